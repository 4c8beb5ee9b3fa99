"""`--smoke`: what it changes, what it measures, and the whole of it on a CPU, which is the hardware of the digits."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from areal.launcher import preflight
from areal.utils.hf_utils import load_hf_processor_and_tokenizer

from dataset.encode import encode_prompt
from dataset.loader import create_dataloader
from tests.utils.doctor.machines import node
from trains.arguments import read
from trains.config import Config
from trains.rehearsal import smoke, walk
from trains.rehearsal.memory import MemoryWatch
from trains.rehearsal.published import published_rows, write_published
from trains.rehearsal.report import Page
from utils.sample import Sample

CONFIG = ["trains/grpo.py", "--config", "configs/llavaov15-8b_stage1_grpo.yaml"]


def test_it_changes_where_it_writes_how_long_it_goes_on_and_the_order(tmp_path):
    """Model, batch, group, lengths, data type, exchange and allocation stay: they are what is measured."""
    config, _ = read(CONFIG, Config)
    keys = {change.key for change in smoke.changes(config, tmp_path)}
    assert {key.split(".")[0] for key in keys} == {
        "cluster", "stats_logger", "rehearsal", "total_train_steps", "saver", "evaluator", "recover",
    }  # fmt: skip
    overrides = [change.override for change in smoke.changes(config, tmp_path)]
    changed, _ = read([*CONFIG, *overrides], Config)
    for section in (
        "actor",
        "sglang",
        "gconfig",
        "train_dataset",
        "rollout",
        "loss",
        "buffer",
        "allocation_mode",
    ):
        before, after = (
            str(getattr(c, section)).replace(str(c.cluster.fileroot), "") for c in (config, changed)
        )
        assert before == after, section


def test_the_longest_prompts_come_first(tmp_path, tiny_checkpoint):
    rows = published_rows()
    for number, row in enumerate(rows):
        row["problem"] += " word" * (37 * number % 22)
    write_published(tmp_path / "data", rows=rows)
    processor, _ = load_hf_processor_and_tokenizer(str(tiny_checkpoint))

    def lengths(**options):
        data = str(tmp_path / "data")
        loader = create_dataloader(
            data, processor, batch_size=4, max_length=4096, cache_dir=str(tmp_path / "cache"), **options
        )
        return [
            len(encode_prompt(processor, Sample.from_row(row)).input_ids) for batch in loader for row in batch
        ]

    first = lengths(longest_first=True)
    assert first == sorted(first, reverse=True)
    assert first[0] > first[-1]
    assert sorted(lengths(), reverse=True) == first


@pytest.mark.long  # beside other tests' servers its own could not be told apart
def test_memory_of_a_server_and_of_a_trainer_on_a_cpu(tmp_path):
    """Two stand-in processes by their command lines, a child of one with 64 MiB; the peak outlives them."""
    hold = (
        "import sys, time; block = bytearray(int(sys.argv[-1]) << 20); "
        "block[::4096] = b'1' * len(block[::4096]); time.sleep(60)"
    )
    server, trainer = tmp_path / "launch_server.py", tmp_path / "grpo.py"
    server.write_text(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {hold!r}, '64'])\n")
    trainer.write_text(hold)
    started = [
        subprocess.Popen([sys.executable, str(server)], start_new_session=True),
        subprocess.Popen([sys.executable, str(trainer), "128"], start_new_session=True),
    ]
    try:
        with MemoryWatch(1, 1, 0) as watch:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and not (
                watch.peaks.get("server", 0) > 64 << 20 and watch.peaks.get("trainer", 0) > 128 << 20
            ):
                time.sleep(0.1)
    finally:
        for process in started:
            os.killpg(process.pid, 9)
            process.wait()
    assert 64 << 20 < watch.peaks["server"] < 160 << 20
    assert 128 << 20 < watch.peaks["trainer"] < 224 << 20


def test_memory_of_gpus_is_the_largest_of_a_role():
    table = "0, 100\n1, 300\n2, 700\n3, 500\n4, 9999\n"
    found = MemoryWatch(2, 2, 4).by_role(table)
    assert {role: used / 2**20 for role, used in found.items()} == {"server": 300, "trainer": 700}


def step(number, **changes):
    seconds = {"total": 10.0, "save": 0.0, "evaluate": 0.0, "exchange": 1.0}
    return {
        "step": number, "seconds": seconds, "server_tokens_per_second": 100.0, "trainer_tokens_per_second": 400.0,
        "exchange_pause": 0.5, "waiting_share": 0.1, "length_max": 30, **changes,
    }  # fmt: skip


def test_time_of_the_whole_run():
    """Steps behind the first: 10 s, and 40 s of which 30 went into a checkpoint. 360 steps of 10 s are an hour."""
    first = step(1, seconds={"total": 99.0, "save": 0, "evaluate": 0, "exchange": 9})
    saved = step(3, seconds={"total": 40.0, "save": 25.0, "evaluate": 5.0, "exchange": 1.0})
    found = smoke.speed([first, step(2), saved], 360)
    assert (found["step_seconds"], found["run_hours"]) == (10.0, 1.0)
    config, _ = read(
        [*CONFIG, "train_dataset.mixture=[{path: a, weight: 0.8}, {path: b, weight: 0.2}]"], Config
    )
    parts = [{"for": "training", "kept": 640, "weight": 0.8}, {"for": "training", "kept": 9, "weight": 0.2}]
    assert smoke.num_steps(config, parts) == 30 * 25  # 800 rows an epoch, 32 a step
    assert smoke.num_steps(replace_steps(config, 7), parts) == 7
    page = Page("a.yaml", kind="smoke test")
    page.facts |= {"speed": found, "memory_gib": {"trainer": 41.0}}
    text = page.text()
    assert "a step 10.00 s, the run's 360 steps 1.0 h" in text
    assert "trainer: 41.0 GiB at its peak, estimate none" in text


def replace_steps(config, steps):
    config = replace(config)
    config.total_train_steps = steps
    return config


def test_a_step_without_signal_has_no_gradient_and_that_is_fine_with_a_real_model(tmp_path):
    config, _ = read(CONFIG, Config)
    record = {"gradient_norms": {"projector": 0.0}, "parity_mean": 1e-3, "parity_max": 0.9, "step": 1}
    for share, problems in ((1.0, 0), (0.9, 1)):
        (tmp_path / "metrics.jsonl").write_text(json.dumps(record | {"groups_without_signal": share}) + "\n")
        assert len(walk.check_steps(tmp_path, config, [1], is_reduced=False)[1]) == problems


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["train_dataset.path={}/nowhere"], "actor.path="),
        (["cluster.n_nodes=2", "allocation_mode=sglang:d8+fsdp:d8"], "--smoke runs on this machine alone"),
    ],
)
def test_what_stops_it_before_anything_starts(overrides, wanted, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(walk, "launch", lambda *args, **options: pytest.fail("something was started"))
    argv = [
        *CONFIG,
        f"cluster.fileroot={tmp_path}",
        *(text.format(tmp_path) for text in overrides),
        "--smoke",
    ]
    assert smoke.main(argv, node()) == 1
    output = capsys.readouterr().out
    assert f"=== smoke test of {CONFIG[2]}" in output
    assert wanted in output
    assert "NOT READY" in output


def test_one_of_both():
    with pytest.raises(preflight.ConfigurationError, match="write one of them"):
        preflight.rehearsal([*CONFIG, "--rehearse", "--smoke"])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_digits_on_a_cpu(tiny_checkpoint, digits_data, tmp_path):
    command = [
        sys.executable, "-W", "ignore", "-m", "areal.launcher.local", "trains/grpo.py",
        "--config", "configs/digits_cpu_stage1.yaml", "--smoke", f"actor.path={tiny_checkpoint}",
        f"train_dataset.path={digits_data}/stage1/train.parquet", "train_dataset.batch_size=4",
        f"valid_dataset.path={digits_data}/stage1/heldout.parquet", "gconfig.n_samples=4",
        f"cluster.fileroot={tmp_path}",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    folder = tmp_path / "smoke/digits-stage1/demo"
    page = json.loads((folder / "smoke.json").read_text())
    assert page["verdict"] == "ready"
    assert [s["step"] for s in page["steps"]] == [1, 2, 3, 4]
    assert all(s["parity_max"] < 1e-4 for s in page["steps"])
    assert set(page["memory_gib"]) == {"server", "trainer"}
    assert all(0.2 < used < 8 for used in page["memory_gib"].values())
    speed = page["speed"]
    assert speed["total_steps"] == 60
    assert (
        min(speed["server_tokens_per_second"], speed["trainer_tokens_per_second"], speed["exchange_pause"])
        > 0
    )
    assert set(page["written"]) == {"checkpoint for people", "recovery", "final checkpoint"}
    assert not list(Path(tmp_path).rglob("*.safetensors")), "weights are removed once they have been measured"
    for word in ("memory      trainer:", "time        a step", "speed       servers", "written     recovery"):
        assert word in result.stdout
