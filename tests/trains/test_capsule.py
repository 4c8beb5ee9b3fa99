"""A step in a capsule: computed again it gives what was recorded; a NaN keeps one by itself, which shows it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sglang_cpu.process import free_port
from utils.capsule_option import interval

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [("off", None), (False, None), ("on_failure", 0), ("every 1", 1), (" every  250 ", 250)],
)
def test_the_option(value, wanted):
    assert interval(value) == wanted


@pytest.mark.parametrize("value", ["every", "every 0", "every -3", "every 1.5", "always", "", 7])
def test_other_options_are_refused(value):
    with pytest.raises(ValueError, match=r"actor\.capsule=.* wanted 'off', 'on_failure' or 'every N'"):
        interval(value)


@pytest.fixture(scope="module")
def kept(tiny_checkpoint, digits_data, tmp_path_factory):
    output = tmp_path_factory.mktemp("capsules")
    environment = {
        **os.environ, "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-W", "ignore", str(ROOT / "tests/trains/capsule_worker.py")]
    command += [str(tiny_checkpoint), str(digits_data), str(output)]
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return output, json.loads((output / "recorded.json").read_text())


def replay(capsule):
    command = [sys.executable, "-W", "ignore", "-m", "trains.replay", str(capsule)]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=280)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_healthy_step_is_computed_again(kept):
    output, (healthy, _) = kept
    capsule = output / "capsules" / "step-000001"
    facts = json.loads((capsule / "capsule.json").read_text())
    assert facts["recorded"]["loss"] == healthy["loss"]
    done = replay(capsule)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    shown = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if len(line.split()) == 4}
    for name, wanted in (("loss", healthy["loss"]), ("grad_norm", healthy["grad_norm"])):
        assert abs(float(shown[name][1]) - wanted) <= 1e-6 * max(1, abs(wanted))
    assert float(shown["gradient_norms/projector"][1]) == pytest.approx(
        healthy["gradient_norms"]["projector"], rel=1e-6
    )
    terms = pq.read_table(capsule / "terms.parquet").to_pylist()
    assert len(terms) == 3 * (5 + 8 + 3)
    assert sum(row["loss"] for row in terms) / len(terms) == pytest.approx(healthy["loss"], abs=1e-6)
    facts["recorded"]["loss"] += 1e-4
    (capsule / "capsule.json").write_text(json.dumps(facts))
    changed = replay(capsule)
    assert (changed.returncode, "DIFFERS" in changed.stdout) == (1, True), "another loss is noticed"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_nan_keeps_a_capsule_that_shows_it(kept):
    output, (_, sick) = kept
    assert sick["num_skipped"] == 1
    capsule = output / "capsules" / "step-000002"
    facts = json.loads((capsule / "capsule.json").read_text())
    assert facts["why"] == "the gradient was not finite"
    done = replay(capsule)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "not finite: 1 values of behavior_logprobs of sample" in done.stdout
    assert "not finite: the loss of 1 tokens" in done.stdout


def test_a_folder_that_is_no_capsule_is_refused(tmp_path):
    from trains.replay import main

    assert main([str(tmp_path)]) == 2
