"""Pass@k with intervals, per source, from curated parquet, against a stand-in for the server."""

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from dataset.prompts import PromptConfig
from utils.evaluate import offline as evaluate_offline

ENGINE = Path(__file__).resolve().parents[2] / "dataset" / "fake_engine.py"


def record(source, accuracies):
    return {"source": source, "rewards": accuracies, "accuracies": accuracies, "solved_threshold": 1.0}


def test_pass_at_k_is_averaged_over_samples():
    """Two samples: 1 of 2 solved (pass@1 1/2, pass@2 1) and 0 of 2 (0, 0): means 1/4 and 1/2."""
    summary = evaluate_offline.summarise([record("a", [1.0, 0.0]), record("b", [0.0, 0.5])], ks=(1, 2))
    assert summary["overall"]["pass@1"][0] == pytest.approx(0.25)
    assert summary["overall"]["pass@2"][0] == pytest.approx(0.5)
    assert summary["overall"]["reward"] == pytest.approx(0.375)
    assert summary["source"]["a"]["pass@1"] == [0.5, 0.5, 0.5], "one sample has no spread to show"
    assert summary["source"]["b"]["pass@2"][0] == 0.0


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(7)
    covered = 0
    for trial in range(200):
        values = (generator.random(80) < 0.3).astype(float)
        mean, low, high = evaluate_offline.interval(values, seed=trial)
        assert low <= mean <= high
        covered += low <= 0.3 <= high
    assert 0.88 <= covered / 200 <= 0.99
    assert evaluate_offline.interval([0.0, 1.0] * 40)[1:] == evaluate_offline.interval([0.0, 1.0] * 40)[1:]


@pytest.fixture
def address(tiny_checkpoint, tmp_path):
    port_file = tmp_path / "port"
    command = [
        sys.executable,
        str(ENGINE),
        "--checkpoint",
        str(tiny_checkpoint),
        "--port-file",
        str(port_file),
    ]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 90
    while not port_file.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    yield f"127.0.0.1:{port_file.read_text()}"
    process.kill()
    process.wait()


def test_end_to_end(address, tiny_checkpoint, digits_data, tmp_path, capsys):
    output = tmp_path / "result"
    status = evaluate_offline.main(
        [
            "--model", str(tiny_checkpoint),
            "--data", str(digits_data / "stage1" / "heldout.parquet"),
            "--attempts", "4",
            "--max-samples", "24",
            "--max-tokens", "32",
            "--output", str(output),
            "--server-addresses", address,
        ]
    )  # fmt: skip
    assert status == 0
    summary = json.loads((output / "summary.json").read_text())
    attempts = [json.loads(line) for line in (output / "attempts.jsonl").read_text().splitlines()]
    assert len(attempts) == summary["overall"]["num_samples"] == 24
    solved = [sum(a["parts"]["accuracy"] >= 1 for a in r["attempts"]) / 4 for r in attempts]
    mean, low, high = summary["overall"]["pass@1"]
    assert mean == pytest.approx(sum(solved) / 24)
    assert 0 <= low <= mean <= high <= 1
    assert summary["overall"]["pass@4"][0] == pytest.approx(sum(s > 0 for s in solved) / 24)
    assert sum(values["num_samples"] for values in summary["source"].values()) == 24
    assert "pass@4" in capsys.readouterr().out


def test_a_run_is_evaluated_with_the_prompts_it_was_trained_with(tmp_path):
    trained = PromptConfig("release", num_thinking_prompts=3, seed=7)
    manifest = {"finished": False, "checkpoint": None, "prompts": asdict(trained)}
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    for model in (tmp_path, tmp_path / "run.json", tmp_path / "final"):
        assert evaluate_offline.trained_prompts(str(model), None) == trained
    assert evaluate_offline.trained_prompts(str(tmp_path), "recipe").layout == "recipe"
    assert evaluate_offline.trained_prompts(str(tmp_path / "a" / "checkpoint"), None) == PromptConfig()
    (tmp_path / "run.json").write_text(json.dumps({"finished": False, "checkpoint": None}))
    assert evaluate_offline.trained_prompts(str(tmp_path), None) == PromptConfig()


def test_missing_data_and_dead_servers_are_one_message(tmp_path, capsys, tiny_checkpoint, digits_data):
    arguments = [
        "--model",
        str(tiny_checkpoint),
        "--output",
        str(tmp_path / "out"),
        "--server-addresses",
        "127.0.0.1:9",
    ]
    assert evaluate_offline.main([*arguments, "--data", str(tmp_path / "none.parquet")]) == 1
    assert "no data at" in capsys.readouterr().err
    assert evaluate_offline.main([*arguments, "--data", str(digits_data / "stage1" / "heldout.parquet")]) == 1
    assert "127.0.0.1:9 does not answer" in capsys.readouterr().err
