"""What goes wrong on the first day: each command says it in a line or two, by name, starts nothing and leaves nothing.

Settings that contradict each other, one by one: tests/trains/test_refusals.py, tests/utils/doctor/test_doctor.py.
"""

import io
import json
import subprocess

import pytest
from areal.launcher import local

from dataset import create, digits, inspect, zoom_digits
from reward.__main__ import main as reward
from tests.utils.doctor.machines import ROOT
from trains import replay
from trains.demo import warm_start
from trains.rehearsal import all as rehearse_all
from utils.checkpoint.cli import main as checkpoint
from utils.doctor.report import main as doctor
from utils.evaluate import cli as evaluate
from utils.evaluate import offline
from utils.summary import main as summary
from utils.viewer.cli import main as viewer

LAUNCH = ["trains/grpo.py", "--config", "configs/digits_cpu_stage1.yaml"]
DIGITS = ["--config", "configs/digits_cpu_stage1.yaml"]
CREATE = ["--model-name", "{model}", "--output-dir", "{new}"]
# (command, its words, exit status, what the message holds); {new} is not there, {file} is a file and no folder
MISTAKES = {
    "a mistyped configuration": (
        local.main,
        [*LAUNCH[:2], "configs/digits.yaml"],
        2,
        "--config configs/digits.yaml does not",
    ),
    "the same, to the doctor": (
        doctor,
        ["--config", "configs/digits.yaml"],
        2,
        "--config configs/digits.yaml does not",
    ),
    "a file that is no configuration": (
        local.main,
        [*LAUNCH[:2], "README.md"],
        2,
        "README.md: wanted a file FILE.yaml",
    ),
    "a mistyped key": (local.main, [*LAUNCH, "actor.lr=1e-6"], 2, "did you mean actor.optimizer.lr?"),
    "a value of the wrong type": (local.main, [*LAUNCH, "seed=abc"], 2, "seed: Value 'abc'"),
    "a value that cannot be read": (
        local.main,
        [*LAUNCH, "actor.path=[1"],
        2,
        "'actor.path=[1' cannot be read",
    ),
    "a word that is no override": (doctor, [*DIGITS, "seed"], 2, "'seed' is no override; wanted key=value"),
    "an option of the doctor's": (doctor, [*DIGITS, "--gpumemory", "24"], 2, "unknown option --gpumemory"),
    "GPUs without memory": (doctor, [*DIGITS, "--gpu-memory", "-5"], 2, "--gpu-memory: -5: wanted GiB"),
    "memory that is no number": (
        doctor,
        [*DIGITS, "--gpu-memory", "nan"],
        2,
        "--gpu-memory: nan: wanted GiB",
    ),
    "answers of no tokens": (doctor, [*DIGITS, "--answer-tokens", "0"], 2, "--answer-tokens: 0: wanted 1"),
    "a model that is not there": (
        local.main,
        [*LAUNCH, "actor.path={new}", "train_dataset.path={rows}", "valid_dataset=null"],
        2,
        "actor.path='{new}'",
    ),
    "data that are not there": (
        local.main,
        [*LAUNCH, "actor.path={model}", "train_dataset.path={new}", "valid_dataset=null"],
        2,
        "train_dataset.path='{new}'",
    ),
    "a folder for runs that cannot be": (
        local.main,
        [
            *LAUNCH,
            "actor.path={model}",
            "train_dataset.path={rows}",
            "valid_dataset=null",
            "cluster.fileroot={file}/runs",
        ],
        2,
        "cluster.fileroot='{file}/runs': {file} cannot be written to",
    ),
    "columns of others": (inspect.main, ["{rows}"], 1, "columns id, images, problem, answer, "),
    "a column that is not there": (
        inspect.main,
        ["{rows}", "--columns", "problem=text", "answer=label"],
        1,
        "columns.problem: the data has no column 'text'",
    ),
    "rows that are no JSON": (inspect.main, ["{broken}"], 1, "{broken} cannot be read as .jsonl"),
    "data to audit that are not there": (reward, ["audit", "{new}"], 2, "no data at '{new}'"),
    "an answer type of no verifier": (
        reward,
        ["explain", "--answer-type", "nuber", "--answer", "4"],
        2,
        "answer_type: got 'nuber', wanted one of",
    ),
    "an unknown source": (
        create.main,
        [*CREATE, "--dataset-name", "virl"],
        2,
        "--dataset-name 'virl' is unknown, wanted one of",
    ),
    "a wrong prompt type": (
        create.main,
        [*CREATE, "--dataset-name", "digits", "--prompt-type", "thinking"],
        2,
        "--prompt-type: invalid choice: 'thinking'",
    ),
    "a source without its data": (
        create.main,
        [*CREATE, "--dataset-name", "generic"],
        2,
        "give --dataset-path",
    ),
    "data of a source that are not there": (
        create.main,
        [*CREATE, "--dataset-name", "digits", "--dataset-path", "{new}/x"],
        2,
        "--dataset-path {new}/x does not exist",
    ),
    "columns of another source": (
        create.main,
        [*CREATE, "--dataset-name", "ref_l4", "--dataset-path", "{rows}"],
        2,
        "wanted ",
    ),
    "shards that cannot be written": (
        digits.main,
        ["--output-dir", "{file}"],
        2,
        "--output-dir {file}: {file} cannot be written to",
    ),
    "the zoom's likewise": (zoom_digits.main, ["--output-dir", "{file}/x"], 2, "{file} cannot be written to"),
    "a checkpoint that cannot be written": (
        warm_start.main,
        ["--output", "{file}/x"],
        2,
        "--output {file}/x: {file} cannot be",
    ),
    "pages of no run": (viewer, ["{folder}"], 1, "{folder} holds no records of a run"),
    "a summary of no run": (
        summary,
        ["{folder}", "--output", "{new}"],
        1,
        "{folder}/metrics.jsonl holds no step",
    ),
    "a summary that cannot be written": (
        summary,
        ["{folder}", "--output", "{file}"],
        1,
        "{file} cannot be written to",
    ),
    "a replay of no capsule": (replay.main, ["{folder}"], 2, "{folder} is no capsule"),
    "a measurement of no checkpoint": (
        evaluate.main,
        ["--model", "{new}", "--tasks", "mmmu_val", "--mode", "fast", "--output", "{new}"],
        1,
        "--model {new}: there is no",
    ),
    "an unknown benchmark": (
        evaluate.main,
        ["--model", "{model}", "--tasks", "mmu_val", "--mode", "fast", "--output", "{new}"],
        1,
        "'mmu_val' is none of",
    ),
    "an offline measurement of others' columns": (
        offline.main,
        ["--model", "{model}", "--data", "{rows}", "--output", "{new}"],
        1,
        "columns id, images, problem, answer, ",
    ),
    "a checkpoint of nothing": (checkpoint, ["verify", "{folder}"], 1, "{folder}/config.json is missing"),
    "an export without its original": (checkpoint, ["export", "{model}", "{new}"], 2, "--original"),
    "a rehearsal of no file": (
        rehearse_all.main,
        ["digits"],
        2,
        "digits: wanted names of llavaov15-8b_stage1_grpo",
    ),
}


@pytest.fixture
def places(tmp_path, tiny_checkpoint):
    """Names of the places that the words above mean."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "How many?", "label": "2"}) + "\n")
    (tmp_path / "broken.jsonl").write_text('{"question": \n')
    names = {"new": "new", "folder": "folder", "file": "file", "rows": "rows.jsonl", "broken": "broken.jsonl"}
    return {"model": tiny_checkpoint} | {name: tmp_path / path for name, path in names.items()}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_said_and_nothing_is_started(name, places, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the launcher adds to it
    monkeypatch.setattr("sys.stdin", io.StringIO())
    started = []
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda self, command, *_, **__: started.append(command))
    command, words, status, message = MISTAKES[name]
    before = sorted(tmp_path.rglob("*"))
    try:
        ended = command([word.format(**places) if "{" in word else word for word in words])
    except SystemExit as end:
        ended = end.code
    out, error = capsys.readouterr()
    assert message.format(**places) in error
    assert ended == status
    assert len(error.splitlines()) <= 3, error
    assert "Traceback" not in error
    assert out == ""
    assert started == []
    assert sorted(tmp_path.rglob("*")) == before
