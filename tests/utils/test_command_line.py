"""Wrong places are named before anything starts; usage errors are two lines; Hub names are told from typing errors."""

import re

import pytest

from dataset import corpus, digits, inspect, mixture_fit, zoom_digits
from dataset.create import main as create
from reward.__main__ import main as reward
from trains import replay
from trains.demo import warm_start
from trains.rehearsal.all import main as rehearse_all
from utils.checkpoint.cli import main as checkpoint
from utils.command_line import check_model, check_output, is_hub_name, unwritable
from utils.completion.__main__ import main as completion
from utils.doctor.report import main as doctor
from utils.evaluate import cli, offline
from utils.summary import main as summary
from utils.tables import data_files
from utils.viewer.cli import main as viewer

COMMANDS = [
    create, inspect.main, mixture_fit.main, corpus.main, digits.main, zoom_digits.main, reward, checkpoint, doctor,
    cli.main, offline.main, summary, viewer, completion, replay.main, warm_start.main, rehearse_all,
]  # fmt: skip


def status_of(command, words):
    try:
        return command(words)
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__module__)
def test_a_usage_error_is_two_lines(command, capsys):
    assert status_of(command, ["--no-such-option"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert ": error: " in first
    assert second.startswith("usage: ")
    assert second.endswith("--help shows all options")


@pytest.mark.parametrize(
    ("path", "is_hub"),
    [
        ("lmms-lab/data", True), ("./a/b", False), ("/a/b", False), ("a", False), ("a/b/c", False), ("a/", False),
        ("data/stage1", False), ("pretrained/x", False), ("here/x", False),
    ],
)  # fmt: skip
def test_a_mistyped_path_is_no_hub_name(path, is_hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert is_hub_name(path) == is_hub
    if is_hub:
        assert data_files(path) == []
        check_model(path)
    else:
        with pytest.raises(FileNotFoundError, match="no data at"):
            data_files(path)
        with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
            check_model(path)


def test_folders_that_cannot_be_written(tmp_path):
    assert unwritable(tmp_path / "new" / "folder") is None
    (tmp_path / "file").touch()
    (tmp_path / "lost").symlink_to(tmp_path / "nothing")
    for name in ("file", "lost"):
        assert unwritable(tmp_path / name / "folder") == tmp_path / name
        with pytest.raises(ValueError, match=f"--output .*{name}/folder: .*{name} cannot be written to"):
            check_output(tmp_path / name / "folder")


@pytest.mark.parametrize("wrong", ["model", "output"])
def test_wrong_places_are_found_before_anything_starts(wrong, tiny_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(offline, "measure", None)
    monkeypatch.setattr("dataset.create.resolve_auto", None)
    monkeypatch.setattr(cli.prepare, "write_run", None)
    (tmp_path / "file").touch()
    model = "./nowhere" if wrong == "model" else str(tiny_checkpoint)
    output = str(tmp_path / "file" / "x") if wrong == "output" else str(tmp_path / "out")
    message = "there is no checkpoint" if wrong == "model" else "cannot be written to"
    for command, words in (
        (create, ["--model-name", model, "--dataset-name", "digits", "--output-dir", output]),
        (offline.main, ["--model", model, "--data", "data/nowhere", "--output", output]),
        (cli.main, ["--model", model, "--tasks", "mmmu_val", "--mode", "fast", "--output", output]),
    ):
        assert status_of(command, words) in (1, 2)
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) <= 2
    assert not (tmp_path / "out").exists()


def test_inspect_finds_them_too(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    for words, message in (
        (["data/nowhere"], "no data at 'data/nowhere'"),
        (["data/nowhere", "--processor", "./nowhere"], "--processor ./nowhere: there is no checkpoint"),
        (["data/nowhere", "--html", f"{tmp_path}/file/x.html"], "--html .*cannot be written to"),
    ):
        monkeypatch.setattr("sys.argv", ["inspect", *words])
        assert inspect.main() == 1
        assert re.search(message, capsys.readouterr().err)
