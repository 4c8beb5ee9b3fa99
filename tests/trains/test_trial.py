"""Whose a trial's folder is, and what becomes of the records in it."""

import json
import subprocess
import sys

import pytest
from areal.launcher import local, trial_lock

from trains import trial
from utils import records

HOLD = """
import sys, time
from areal.launcher import trial_lock
trial_lock.take(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "trial"
    (folder / "final").mkdir(parents=True)
    (folder / "final" / "config.json").write_text("{}")
    (folder / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    (folder / "evaluations.jsonl").write_text('{"step": 0}\n{"step": 2}\n')
    (folder / ".launcher.lock").write_text("")
    write_manifest(folder, finished=True)
    return folder


def write_manifest(folder, finished):
    (folder / "run.json").write_text(json.dumps({"finished": finished}))


@pytest.mark.parametrize(("finished", "may_continue"), [(True, False), (True, True), (False, False)])
def test_a_run_that_begins_anew_moves_the_earlier_one_aside(finished, may_continue, folder):
    write_manifest(folder, finished)
    before = (folder / "metrics.jsonl").read_bytes()
    for number in (1, 2):
        said = trial.begin_anew(folder, may_continue=may_continue, overwrite=False)
        assert said.endswith(f"was moved to {folder}/earlier/{number}")
        assert sorted(path.name for path in folder.iterdir()) == [".launcher.lock", "earlier"]
        write_manifest(folder, finished)
        (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    assert (folder / "earlier" / "1" / "metrics.jsonl").read_bytes() == before
    assert (folder / "earlier" / "1" / "final" / "config.json").is_file()
    assert (folder / "earlier" / "2" / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_overwrite_deletes_what_is_there_and_nothing_else(folder):
    (folder / "earlier" / "1").mkdir(parents=True)
    assert "deleted" in trial.begin_anew(folder, may_continue=False, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == [".launcher.lock", "earlier"]


def test_a_run_that_never_came_to_a_checkpoint_is_the_same_run(folder):
    write_manifest(folder, finished=False)
    assert trial.begin_anew(folder, may_continue=True, overwrite=False) is None
    assert records.read(folder / "metrics.jsonl") == records.read(folder / "evaluations.jsonl") == []
    assert not (folder / "earlier").exists()


def test_an_empty_folder_is_no_earlier_run(tmp_path):
    (tmp_path / "images").mkdir()
    assert trial.begin_anew(tmp_path, may_continue=False, overwrite=False) is None


def test_a_continued_run_keeps_its_records_up_to_the_checkpoint(folder):
    trial.continue_from(folder, 1)
    assert (folder / "metrics.jsonl").read_text() == '{"step": 1}\n'
    assert records.read(folder / "evaluations.jsonl") == [{"step": 0}]


def test_a_trial_has_one_holder_who_is_named_and_whose_end_frees_it(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            trial_lock.TrialInUseError, match=rf"process {holder.pid} of .* has run it since 2"
        ):
            trial_lock.take(tmp_path, wait_seconds=0.3)
        with trial_lock.held(tmp_path, trial_lock.TRAINER):
            pass  # another lock
        holder.kill()
        with trial_lock.held(tmp_path, wait_seconds=10):
            pass
        with trial_lock.held(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_second_launch_of_a_live_trial_starts_nothing(overrides, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(local.areal_local, "local_main", lambda *_: pytest.fail("started"))
    monkeypatch.setattr(sys, "argv", ["local"])
    words = ["trains/grpo.py", "--config", "configs/digits_cpu_stage1.yaml", *overrides]
    with trial_lock.held(tmp_path / "runs" / "digits-stage1" / "demo"):
        assert local.main(words) == 2
    assert "is in use: process" in capsys.readouterr().err
