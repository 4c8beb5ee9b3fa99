"""The proof of learning: what it runs, what it reads and when it says that a claim does not hold."""

import json
import math

import pytest

from benchmarks.learning import __main__ as learning
from benchmarks.learning import runs, trials
from benchmarks.learning.report import ablations, describe, gain, headline, minutes_to
from benchmarks.learning.statistics import estimate
from trains.arguments import read
from trains.config import Config


def result(seed, gained, variant="plain", config=trials.STAGE1, before=0.5):
    evaluations = [
        {
            "step": step,
            "minutes": step / 20,
            "num_samples": 1600,
            "accuracy": {"overall": value, "digits-sum": value},
        }
        for step, value in ((0, before), (20, before + gained / 200), (40, before + gained / 100))
    ]
    return {
        "settings": {"config": config}, "group": "headline", "variant": variant, "seed": seed, "minutes": 2.0,
        "commit": "abc", "machine": {"cores": 2}, "mean_gap": 1.0, "parity_max": 1e-6, "step_seconds": 1.0,
        "evaluations": evaluations,
    }  # fmt: skip


def test_the_interval_is_students():
    """Five values, by hand: mean 30, standard error sqrt(250 / 4 / 5), t quantiles 2.776 and 2.132."""
    found = estimate([20.0, 25.0, 30.0, 35.0, 40.0])
    error = math.sqrt(250 / 4 / 5)
    assert found.mean == 30
    assert (found.high - 30) / error == pytest.approx(2.776, abs=1e-3)
    assert (30 - found.lower_bound) / error == pytest.approx(2.132, abs=1e-3)
    assert estimate([3.0]).lower_bound == -math.inf
    with pytest.raises(ValueError, match="no finished run"):
        estimate([])


def test_claims_hold_or_do_not():
    good = [result(seed, 25 + seed) for seed in range(5)]
    idle = [result(seed, seed - 2, "control") for seed in range(5)]
    parts = headline(good + idle)
    assert parts["stage 1"]["holds"]
    assert parts["control"]["holds"]
    assert "| stage 1 | 5 | +27.0 [" in describe({"headline": parts})
    assert not headline([result(seed, 14 + seed) for seed in range(5)])["stage 1"][
        "holds"
    ]  # mean 16, bound 14.5
    assert not headline([result(0, 40.0)])["stage 1"]["holds"]  # one run bounds nothing
    assert not headline([result(seed, 3.0, "control") for seed in range(5)])["control"]["holds"]
    assert headline([]) == {}


def test_minutes_are_those_of_the_first_evaluation_there():
    assert minutes_to(result(1, 40), 0.7) == 1.0
    assert minutes_to(result(1, 40), 0.85) == 2.0
    assert minutes_to(result(1, 10), 0.85) is None
    assert gain(result(1, 40), "digits-sum") == pytest.approx(40)


def test_ablations_are_paired_by_seed():
    """Seeds that differ by 20 points and a change that costs each of them 5 to 6: the pairs show it."""
    found = ablations(
        [result(s, 20 + 10 * s) for s in (1, 2, 3)]
        + [result(s, 15 + 10 * s - s / 2, "eta 0") for s in (1, 2, 3)]
    )
    difference = found["eta 0"]["against plain"]
    assert difference["mean"] == pytest.approx(-6.0)
    assert difference["high"] < 0
    assert found["plain"]["gain"]["low"] < found["eta 0"]["gain"]["mean"]  # unpaired, nothing could be said


def test_every_run_is_a_launch_that_the_recipe_understands(tmp_path):
    wanted = trials.headline() + trials.ablations() + trials.choices(["1e-5"], [1])
    assert len({(trial.stage, trial.name) for trial in wanted}) == len(wanted)
    for trial in {(t.variant, t.config): t for t in wanted}.values():
        argv = runs.launch_command(trial, tmp_path)[6:]
        assert argv[0] == "--config"
        config, _ = read(argv, Config)
        assert config.trial_name == trial.name
        assert config.valid_dataset.path.endswith(f"/{trial.split}.parquet")
        assert config.loss.shuffle_rewards == (trial.variant == "control")
    assert {t.split for t in trials.choices(["1e-5"], [1])} == {"validation"}


def test_a_finished_run_is_read_and_not_started_again(tmp_path, monkeypatch, capsys):
    started = []

    def launch(trial, root):
        started.append(trial.name)
        return ["python", "-c", f"import sys; sys.exit({0 if trial.seed == 1 else 3})"]

    left = {name: result(1, 30)[name] for name in ("evaluations", "mean_gap", "parity_max", "step_seconds")}
    monkeypatch.setattr(runs, "prepare", lambda seed, root: None)
    monkeypatch.setattr(runs, "launch_command", launch)
    monkeypatch.setattr(runs, "read", lambda folder: left)
    files = ["--json", str(tmp_path / "learning.json"), "--figure", str(tmp_path / "figure.png")]
    arguments = ["headline", "--seed", "1", "--output", str(tmp_path), *files]
    assert learning.main(arguments) == 1  # the control gained 30 points, too
    assert started == ["headline-plain-seed1", "headline-control-seed1", "headline-plain-seed1"]
    assert learning.main(arguments) == 1
    assert len(started) == 3
    report = json.loads((tmp_path / "learning.json").read_text())
    assert not report["headline"]["control"]["holds"]
    assert (tmp_path / "figure.png").stat().st_size > 1000
    other = ["choose", "--rate", "1e-5", "--seed", "2", "--output", str(tmp_path), *files]
    assert learning.main(other) == 1
    assert "ended with status 3" in capsys.readouterr().err


def test_results_of_other_settings_are_refused(tmp_path):
    trial = trials.headline()[0]
    path = tmp_path / "results" / f"{trial.stage}-{trial.name}.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"settings": {"config": "other"}}))
    with pytest.raises(ValueError, match="other settings"):
        runs.run(trial, tmp_path, path.parent)


def test_a_run_is_read_from_its_records(tmp_path):
    steps = [
        {
            "step": n,
            "seconds": {"total": 30.0 + n, "evaluate": 10.0},
            "gap_histogram": {"0": 1, "2": n},
            "parity_max": n,
        }
        for n in (1, 2, 3)
    ]
    evaluations = [
        {
            "step": step,
            "overall": {"accuracy": step / 4, "num_samples": 8},
            "source": {"a": {"accuracy": 0.5}},
        }
        for step in (0, 3)
    ]
    for name, records in (("metrics", steps), ("evaluations", evaluations)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    found = runs.read(tmp_path)
    assert [e["minutes"] for e in found["evaluations"]] == [0.0, pytest.approx((21 + 22 + 23) / 60, abs=1e-3)]
    assert found["mean_gap"] == pytest.approx(12 / 9)
    assert found["step_seconds"] == 22.0
    assert found["parity_max"] == 3
