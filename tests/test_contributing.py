"""CONTRIBUTING.md shows how to add a verifier, a source, an estimator and a metric: do it, in a copy, and use them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"```python\n# (new file|line of (\w+) in) (\S+)\n(.*?)```", re.DOTALL)
USE = """
import json
from pathlib import Path

import torch

from dataset.schema import row_problems, write_shard
from dataset.sources import Context, Location, check_columns, get_source
from reward import score
from trains.metrics import _means
from utils import metric_names
from utils.advantages import group_advantages
from utils.files import parquet_rows
from utils.loss_options import validate
from utils.sample import Sample

Path("words.jsonl").write_text(json.dumps({"word": "Stop"}) + "\\n")
source = get_source("words")
[row] = source.load(Location("words.jsonl", "train"))
check_columns(source, row, "words.jsonl")
write_shard("words.parquet", [source.to_sample(row, Context("words/0")).to_row()])
[row] = parquet_rows("words.parquet")
assert not list(row_problems(row)), "rows of the new type are accepted"
sample = Sample.from_row(row)
spec = {"match_case": False}
scores = [
    score(f"<answer>{text}</answer>", sample.answer, sample.answer_type, spec=given).total
    for text, given in (("potS", None), ("pots", None), ("pots", spec), ("Stop", spec))
]
assert scores == [1.0, 0.0, 1.0, 0.0], scores

validate({"estimator": "batch-mean"})
rewards = torch.tensor([1.0, 0.0, 1.0, 1.0])  # the second group has no signal
assert group_advantages(rewards, 2, "batch-mean").tolist() == [0.25, -0.75, 0.0, 0.0]

rollout = {"parts": {"accuracy": 1.0}, "status": "ok", "truncated": False, "length": 3}
assert _means([rollout | {"reward": 0.5}, rollout | {"reward": 0.75}])["reward_max"] == 0.75
assert metric_names.describe("by_source/words/reward_max") == "Largest total reward of a rollout. One source."
"""


def add(folder):
    """Do what the blocks say; returns the places that were touched."""
    places = []
    for kind, name, path, text in BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text()):
        places.append(path)
        file = folder / path
        if kind == "new file":
            assert not file.exists()
            file.write_text(text)
        else:
            old = file.read_text()
            new, count = re.subn(
                rf"^({name}\b.*[{{(]\n)", lambda match, text=text: match[1] + text, old, flags=re.MULTILINE
            )
            assert count == 1, f"{path} has no table {name}"
            file.write_text(new)
    return places


def test_the_steps_that_are_shown_are_all_that_is_needed(tmp_path):
    for name in ("trains", "dataset", "reward", "utils"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    assert add(tmp_path) == [
        "reward/verifiers/backwards.py", "reward/registry.py",
        "dataset/sources/words.py", "dataset/sources/__init__.py",
        "utils/advantages.py", "utils/loss_options.py",
        "trains/metrics.py", "utils/metric_names.py",
    ]  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", USE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
