"""The summary page: every number recomputed from the files of a run."""

import json

import pytest

from utils import summary


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "stage1" / "demo"
    folder.mkdir(parents=True)
    steps = [
        {
            "step": n, "reward": 0.1 * n, "gap_histogram": {"0": 10, "2": 5 * n}, "parity_max": 1e-6 * n,
            "parity_tokens": 3,
            "num_rollouts": 8, "num_skipped": 0, "exchange_pause": 0.1,
            "buffer": {"submitted": 10 * n, "evicted": n}, "seconds": {"rollout": 0.5, "update": 1.0, "total": 1.5},
        }
        for n in (1, 2)
    ]  # fmt: skip
    evaluations = [
        {
            "step": step,
            "overall": {"accuracy": value, "num_samples": 400},
            "source": {"digits-number": {"accuracy": value}},
        }
        for step, value in ((0, 0.5), (2, 0.75))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in steps))
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(record) + "\n" for record in evaluations))
    manifest = {
        "command": "again",
        "checkpoint": "final",
        "logs": "logs",
        "finished": True,
        "experiment_name": "x-stage1",
        "trial_name": "demo",
    }
    (folder / "run.json").write_text(json.dumps(manifest))
    return folder


def test_numbers(run):
    entry = summary.summarise(summary.load_run(run))
    assert entry["held_out"]["before"] == {"overall": 0.5, "digits-number": 0.5}
    assert entry["held_out"]["after"] == {"overall": 0.75, "digits-number": 0.75}
    assert entry["version_gap"] == {"histogram": {"0": 20, "2": 15}, "mean": 30 / 35, "max": 2}
    assert entry["parity_max"] == 2e-6
    assert (entry["num_rollouts"], entry["evicted"], entry["submitted"]) == (16, 2, 20)
    assert "+25.0" in summary.describe(entry)


def test_page_and_json_are_written(run, tmp_path, capsys):
    assert summary.main([str(run), str(run), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/summary.png").stat().st_size > 20_000
    assert len(json.loads((tmp_path / "out/summary.json").read_text())["runs"]) == 2
    assert "again with: again" in capsys.readouterr().out


def test_a_run_without_steps_is_a_message(tmp_path, capsys):
    (tmp_path / "run.json").write_text("{}")
    assert summary.main([str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert "holds no step" in capsys.readouterr().err
