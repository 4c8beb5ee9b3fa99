"""`python -m dataset.create` when things go wrong: kill -9 and resumption, dead servers, bad rows, refusals."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from dataset.create import main
from dataset.curate.journal import Journal
from tests.dataset.curation_runs import HERE, ROOT, contents, digits_command, manifest_of, shard_rows


@pytest.mark.parametrize("num_kills", [2, pytest.param(10, marks=pytest.mark.long)])
def test_kills_lose_and_repeat_nothing(num_kills, checkpoint, engines, tmp_path):
    slow = engines(latency=0.01)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    size = ["--max-samples", "150"]
    assert main(digits_command(checkpoint, slow, whole, *size)) == 0
    goal = (whole / "curation" / "digits" / "journal.bin").stat().st_size
    environment = {**os.environ, "CURATION_LOG": str(tmp_path / "log.txt"), "OMP_NUM_THREADS": "1"}
    zygote = subprocess.Popen(
        [sys.executable, str(HERE / "curation_zygote.py")],
        cwd=ROOT, env={**environment, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    journal, generator = broken / "curation" / "digits" / "journal.bin", random.Random(7)

    def run(kill_at):
        zygote.stdin.write(
            json.dumps(digits_command(checkpoint, slow, broken, *size, "--incremental")) + "\n"
        )
        zygote.stdin.flush()
        child = int(zygote.stdout.readline())
        while kill_at is not None and (not journal.exists() or journal.stat().st_size < kill_at):
            time.sleep(0.001)
        if kill_at is not None:
            time.sleep(generator.random() * 0.02)
            os.kill(child, signal.SIGKILL)
        return int(zygote.stdout.readline())

    try:
        for i in range(num_kills):
            assert run(kill_at=goal * (i + generator.random()) / (num_kills + 4)) == -signal.SIGKILL
        assert run(kill_at=None) == 0, (tmp_path / "log.txt").read_text()[-3000:]
        assert contents(broken) == contents(whole)
        positions = [r.header["position"] for _, r in Journal(journal).records() if "position" in r.header]
        assert sorted(positions) == list(range(150))
        before = contents(broken)
        assert run(kill_at=None) == 0
        assert contents(broken) == before
    finally:
        zygote.stdin.close()
        zygote.wait(60)


def test_a_dead_server_ends_the_run_with_a_message_and_the_rest_can_follow(
    checkpoint, engines, engine, tmp_path, capsys
):
    mortal = engines(latency=0.2)
    command = digits_command(checkpoint, mortal, tmp_path, "--max-samples", "40", "--concurrency", "2")
    killer = subprocess.Popen(
        [sys.executable, "-c", KILLER, mortal, str(tmp_path / "curation/digits/journal.bin")]
    )
    assert main(command) == 1
    killer.wait()
    error = capsys.readouterr().err
    assert "every worker has failed" in error
    assert mortal in error
    assert "--incremental" in error
    assert main(digits_command(checkpoint, engine, tmp_path, "--max-samples", "40", "--incremental")) == 0
    assert manifest_of(tmp_path)["counts"]["examined"] == 40


KILLER = """
import os, sys, time, urllib.request
while not os.path.exists(sys.argv[2]) or os.path.getsize(sys.argv[2]) < 20000:
    time.sleep(0.02)
try:
    urllib.request.urlopen(f"http://{sys.argv[1]}/die", data=b"")
except OSError:
    pass
"""


def test_another_server_takes_over(checkpoint, engines, tmp_path, capsys):
    mortal, other = engines(latency=0.1), engines(latency=0.1)
    command = digits_command(
        checkpoint, f"{mortal},{other}", tmp_path, "--executor", "local", "--max-samples", "40"
    )
    killer = subprocess.Popen(
        [sys.executable, "-c", KILLER, mortal, str(tmp_path / "curation/digits/journal.bin")]
    )
    assert main(command) == 0
    killer.wait()
    assert "worker 0 is out" in capsys.readouterr().err
    assert manifest_of(tmp_path)["counts"]["measured"] == 40


def test_broken_connections_are_retried(checkpoint, engines, tmp_path):
    flaky = engines(fail_first=3)
    assert main(digits_command(checkpoint, flaky, tmp_path, "--max-samples", "4", "--concurrency", "1")) == 0
    assert manifest_of(tmp_path)["counts"]["measured"] == 4


def test_bad_rows_are_skipped_counted_and_listed(checkpoint, engine, tmp_path):
    fixture = HERE.parent / "fixtures" / "sources" / "virl39k"
    command = [
        "--model-name", checkpoint, "--dataset-name", "virl39k", "--dataset-path", str(fixture), "--keep-all",
        "--server-addresses", engine, "--output-dir", str(tmp_path), "--rollout-n", "3", "--prompt-type", "think",
    ]  # fmt: skip
    assert main(command) == 0
    manifest = manifest_of(tmp_path, "virl39k")
    assert manifest["counts"]["rejected_by_reason"] == {"bad-reference": 1, "image-marks": 1}
    assert [row["id"] for row in manifest["rejected_rows"]] == [
        "virl39k/train/0000004",
        "virl39k/train/0000005",
    ]
    rows = shard_rows(tmp_path)
    assert len(rows) == 4
    assert {row["prompt_type"] for row in rows} == {"think"}


def test_a_second_run_must_say_that_it_continues_and_use_the_same_settings(
    finished, checkpoint, engine, capsys
):
    assert main(digits_command(checkpoint, engine, finished)) == 1
    assert "--incremental continues it" in capsys.readouterr().err
    assert main(digits_command(checkpoint, engine, finished, "--incremental", "--seed", "3")) == 1
    assert "seed: the journal has 219, this run 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dataset-split", "heldout"], "evaluation split"),
        (["--dataset-name", "nonesuch"], "unknown, wanted one of virl39k"),
        (["--min-reward", "0.8", "--max-reward", "0.5"], "nothing could be kept"),
        (["--rollout-n", "0"], "num_attempts: got 0"),
        (["--exclude", "missing.parquet"], "no such file"),
    ],
)
def test_wrong_settings_are_named_at_the_start(more, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(digits_command("nowhere", "127.0.0.1:1", tmp_path, *more))
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
