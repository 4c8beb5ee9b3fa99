"""The digits through lmms-eval and through the training's own evaluation: the same answer to every sample."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from utils.evaluate import prepare, results

pytestmark = [pytest.mark.evaluation, pytest.mark.timeout(1800)]
ROOT = Path(__file__).resolve().parents[2]
EVERY = 32  # row of the held-out ones: 50 of them


def run(*command):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A model that reads some of the digits."""
    folder = tmp_path_factory.mktemp("warm") / "model"
    run("trains.demo.warm_start", "--output", folder)
    return folder


@pytest.fixture(scope="module")
def rows(digits_data, tmp_path_factory):
    table = pq.read_table(f"{digits_data}/stage1/heldout.parquet")
    path = tmp_path_factory.mktemp("rows") / "some_digits.parquet"
    pq.write_table(table.take(list(range(0, len(table), EVERY))), path)
    return path


@pytest.mark.parametrize("backend", prepare.BACKENDS)
@pytest.mark.parametrize("mode", prepare.MODES)
def test_scores_agree_to_the_sample(mode, backend, warm, rows, tmp_path):
    common = ["--model", warm, "--data", rows, "--device", "cpu"]
    run(
        "utils.evaluate", *common, "--mode", mode, "--output", tmp_path / "lmms", "--max-new-tokens", "48",
        "--backend", backend,
    )  # fmt: skip
    kind = {"fast": "answer", "thinking": "think"}[mode]
    run(
        "utils.evaluate.offline", *common, "--prompt-type", kind, "--output", tmp_path / "offline",
        "--attempts", "1", "--temperature", "0", "--max-tokens", "48",
    )  # fmt: skip
    (measured,) = results.read(tmp_path / "lmms").values()
    records = [json.loads(line) for line in (tmp_path / "offline/attempts.jsonl").read_text().splitlines()]
    offline = {str(r["position"]): r["attempts"][0]["parts"]["accuracy"] for r in records}
    assert len(offline) == pq.read_metadata(rows).num_rows
    assert measured.scores == pytest.approx(offline)
    if mode == "fast":
        assert 0.2 < sum(offline.values()) / len(offline) < 1, (
            "right and wrong answers, or agreeing means nothing"
        )
