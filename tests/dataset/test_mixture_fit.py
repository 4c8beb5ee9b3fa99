"""`python -m dataset.mixture_fit` on the folders of finished runs."""

import json

import numpy as np
import pytest

from benchmarks import mixture_study
from dataset.mixture_fit import main, objective_weights, read_study
from utils.response_surface import features

PATHS = ("./data/a/train.parquet", "./data/b/train.parquet", "./data/c/train.parquet")


def write_run(folder, weights, accuracy, *, finished=True, paths=PATHS):
    folder.mkdir(parents=True)
    mixture = [{"path": path, "weight": 10 * w} for path, w in zip(paths, weights, strict=True) if w]
    (folder / "run.json").write_text(json.dumps({"finished": finished, "mixture": mixture}))
    lines = [
        {"step": step, "source": {name: {"accuracy": value} for name, value in found.items()}}
        for step, found in ((0, dict.fromkeys(accuracy, 0.1)), (40, accuracy))
    ]
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Reading gets better with a and worse with b; sums want a and b alike."""
    folders = []
    for number, weights in enumerate(np.random.default_rng(3).dirichlet(np.ones(3), 14)):
        a, b, _ = weights
        accuracy = {"reading": 0.5 + 0.3 * a - 0.2 * b, "sums": 0.4 + 1.2 * a * b}
        folders.append(write_run(tmp_path / f"run{number}", weights, accuracy))
    return folders


def test_runs_are_read(runs):
    study = read_study(runs)
    assert study.names == ("a/train", "b/train", "c/train")
    assert study.weights.shape == (14, 3)
    assert np.allclose(study.weights.sum(1), 1)
    assert study.accuracy["sums"] == pytest.approx(0.4 + 1.2 * study.weights[:, 0] * study.weights[:, 1])


def test_the_best_mixture_follows_the_objective(runs, tmp_path, capsys):
    found = {}
    for objective in ("reading=1", "sums=1"):
        out = tmp_path / "found.json"
        status = main([*map(str, runs), "--objective", objective, "--json", str(out)])
        assert status == 0
        found[objective] = json.loads(out.read_text())["best"]
    assert found["reading=1"]["mixture"]["a/train"] > 0.9
    assert found["reading=1"]["expected"]["mean"] == pytest.approx(0.8, abs=0.03)
    sums = found["sums=1"]
    assert sums["mixture"]["a/train"] == pytest.approx(0.5, abs=0.08)
    assert sums["mixture"]["b/train"] == pytest.approx(0.5, abs=0.08)
    assert sums["expected"]["low"] <= 0.7 <= sums["expected"]["high"] + 0.02
    assert '- {path: "./data/a/train.parquet", weight: ' in capsys.readouterr().out


def test_a_mixture_is_predicted(runs, tmp_path):
    out = tmp_path / "found.json"
    assert main([*map(str, runs), "--at", "a/train=1,b/train=1,c/train=2", "--json", str(out)]) == 0
    at = json.loads(out.read_text())["at"]
    assert at["mixture"] == {"a/train": 0.25, "b/train": 0.25, "c/train": 0.5}
    wanted = features(np.array([[0.25, 0.25, 0.5]]))[0]
    assert at["by_source"]["sums"]["mean"] == pytest.approx(0.4 + 1.2 * wanted[3], abs=0.02)


def test_a_floor_is_kept(runs, tmp_path):
    out = tmp_path / "found.json"
    assert main([*map(str, runs), "--min-weight", "0.1", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert min(found["best"]["mixture"].values()) >= 0.1
    assert min(found["next"]["mixture"].values()) >= 0.1


def test_runs_that_have_not_finished_are_left_out(runs, tmp_path, capsys):
    halted = write_run(tmp_path / "halted", (0.2, 0.3, 0.5), {"reading": 0.0, "sums": 0.0}, finished=False)
    assert len(read_study([*runs, halted]).runs) == 14
    assert "halted has not finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--objective", "singing=1"], "no singing here; there are reading, sums"),
        (["--objective", "reading"], "wanted name=weight"),
        (["--objective", "reading=-1"], "at least 0"),
        (["--at", "d=1"], "no d here; there are a/train"),
        (["--min-weight", "0.4"], "less than 1 / 3"),
    ],
)
def test_wrong_arguments_are_one_message(runs, arguments, message, capsys):
    assert main([*map(str, runs), *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_folders_that_are_no_study_are_named(runs, tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 1
    assert "none is no run" in capsys.readouterr().err
    assert main([*map(str, runs[:3])]) == 1
    assert "3 different mixtures" in capsys.readouterr().err
    other = write_run(tmp_path / "other", (0.2, 0.3, 0.5), {"reading": 0.5})
    assert main([*map(str, runs), str(other)]) == 1
    assert "other measured ['reading']" in capsys.readouterr().err
    old = tmp_path / "old"
    old.mkdir()
    (old / "run.json").write_text('{"finished": true}')
    assert main([str(old)]) == 1
    assert "names no mixture" in capsys.readouterr().err


def test_objectives_are_scaled():
    assert objective_weights("mean", ["a", "b"]) == {"a": 0.5, "b": 0.5}
    assert objective_weights("a=3,b=1", ["a", "b", "c"]) == {"a": 0.75, "b": 0.25}


def test_the_studys_design():
    mixtures = np.array(mixture_study.design())
    assert mixtures.shape == (16, 5)
    assert np.allclose(mixtures.sum(1), 1)
    assert len(np.unique(mixtures.round(6), axis=0)) == 16
    assert sum(mixture_study.UNSEEN) == pytest.approx(1)
    assert (
        np.abs(mixtures - np.array(mixture_study.UNSEEN)).max(1).min() >= 0.1
    )  # no run of the design is near
    rows = mixture_study.validation_rows()
    by_source = {task: sum(row["source"] == task for row in rows) for task in mixture_study.TASKS}
    assert len(set(by_source.values())) == 1, by_source
