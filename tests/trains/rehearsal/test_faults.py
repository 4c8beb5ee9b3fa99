"""Planted faults: each is found before anything is started, and named once."""

import json

import pyarrow.parquet as pq
import pytest

from reward.verifiers import custom
from trains.arguments import read
from trains.config import Config
from trains.rehearsal import cli, data, walk
from trains.rehearsal.published import published_rows, write_published

CONFIG = "configs/llavaov15-8b_stage1_grpo.yaml"
FAULTS = {
    "a folder that is not there": (["train_dataset.path={}/nowhere"], "train_dataset.path='{}/nowhere' does not exist"),
    "a column under another name": (["train_dataset.path={}/renamed"], "column 'answer' is missing"),
    "cut images": (["train_dataset.path={}/cut"], "2 of 22 rows cannot be used"),
    "a reference that is no box": (["train_dataset.path={}/no-box"], "2 of 22 rows cannot be used"),
    "no prompt that fits": (["train_dataset.max_length=16"], "none of its 22 rows fits max_length"),
    "a prompt longer than a micro-batch": (["train_dataset.max_length=4096"], "one sequence must fit a micro-batch"),
    "a mixture's weight": (
        ["train_dataset.mixture=[{{path:'{}/good',weight:0}}]"],
        "train_dataset.mixture[0].weight=0: wanted a number above 0",
    ),
    "a mixture's path": (["train_dataset.mixture=[{{weight:1}}]"], "wanted a path"),
    "a typing error": (["actor.optimizer.lrr=1e-6"], "did you mean actor.optimizer.lr?"),
    "a learning rate": (["actor.optimizer.lr=nan"], "actor.optimizer.lr=nan"),
    "an allocation": (["allocation_mode=sglang:d4"], "allocation_mode='sglang:d4'"),
    "an estimator": (["loss.estimator=grpoo"], "loss.estimator"),
    "a verifier that is no function": (["+reward.verifiers={{mine:{}/mine.py:score}}"], "mine.py"),
    "a column that is named wrongly": (["+train_dataset.columns={{problem:question}}"], "question"),
    "a stage that has not finished": (["actor.path={}/unfinished"], "has not finished"),
    "a folder that cannot be written": (["cluster.fileroot={}/good/00000.parquet"], "00000.parquet cannot be written"),
    "an unknown answer type": (["train_dataset.path={}/no-type"], "2 of 22 rows cannot be used"),
}  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Data with one fault per folder, and an earlier run that has not finished."""
    folder = tmp_path_factory.mktemp("planted")
    write_published(folder / "good")
    table = pq.read_table(folder / "good/00000.parquet")
    (folder / "renamed").mkdir()
    pq.write_table(
        table.rename_columns(["label" if name == "answer" else name for name in table.column_names]),
        folder / "renamed/00000.parquet",
    )
    for name, kind, change in (
        ("cut", "number", lambda row: row["images"][0].update(bytes=row["images"][0]["bytes"][:90])),
        ("no-box", "bbox", lambda row: row.update(answer=["left of the chair"])),
        ("no-type", "number", lambda row: row.update(answer_type="nummer")),
    ):
        rows = published_rows()
        for row in rows:
            if row["answer_type"] == kind:
                change(row)
        write_published(folder / name, rows=rows)
    (folder / "unfinished").mkdir()
    (folder / "unfinished/run.json").write_text(json.dumps({"finished": False, "checkpoint": None}))
    return folder


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_one_message_before_anything_starts(fault, planted, tmp_path, monkeypatch, capsys):
    overrides, wanted = FAULTS[fault]
    monkeypatch.setattr(walk, "launch", lambda argv: pytest.fail("something was started"))
    argv = ["trains/grpo.py", "--config", CONFIG, f"train_dataset.path={planted}/good"]
    argv += [f"cluster.fileroot={tmp_path}", *(text.format(planted) for text in overrides), "--rehearse"]
    assert cli.main(argv) == 1
    output = capsys.readouterr().out
    problems = [line for line in output.splitlines() if line.startswith("PROBLEM")]
    assert len(problems) == 1, output
    assert wanted.format(planted) in problems[0]
    assert "NOT READY: 1 found" in output


DEATHS = {
    "raises": "raise KeyError('gone')",
    "dies": "import os; os._exit(3)",
    "hangs": "while True: pass",
}


@pytest.mark.parametrize("death", DEATHS)
def test_a_dead_verifier_is_one_message_before_anything_starts(death, tmp_path, monkeypatch, capsys):
    """Whatever became of it, three answers tell; the sound ones beside it are audited all the same."""
    (tmp_path / "mine.py").write_text(f"def score(answer, reference, params):\n    {DEATHS[death]}\n")
    kept = [row for row in published_rows() if row["answer_type"] in ("number", "boolean")]
    mine = f"mine-{death}"  # names are for the whole process
    rows = [row | {"answer_type": mine} if row["answer_type"] == "number" else row for row in kept]
    write_published(tmp_path / "mine", rows=rows)
    monkeypatch.setattr(walk, "launch", lambda argv: pytest.fail("something was started"))
    monkeypatch.setitem(custom.DEFAULTS, "deadline_seconds", 0.5)
    argv = ["trains/grpo.py", "--config", CONFIG, f"train_dataset.path={tmp_path}/mine", "--rehearse"]
    argv += [f"cluster.fileroot={tmp_path}", f"+reward.verifiers={{{mine}:'{tmp_path}/mine.py:score'}}"]
    assert cli.main(argv) == 1
    output = capsys.readouterr().out
    problems = [line for line in output.splitlines() if line.startswith("PROBLEM")]
    assert len(problems) == 1, output
    assert f"pixmo_count, {mine}: its verifier is dead: " in problems[0]
    assert ("timeout" if death == "hangs" else "crash") + " on 3 answers in a row" in problems[0]
    assert "references of 1 of 2 sources and types pay" in output


def test_sound_data_pass_the_audit(planted):
    argv = ["trains/grpo.py", "--config", CONFIG, f"train_dataset.path={planted}/good"]
    assert data.audit_rewards(read(argv, Config)[0])[1] == []
