"""Imports point downward only; the table is the architecture."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = {"trains", "reward", "dataset", "utils", "areal", "torch"}
ALLOWED = {
    "trains": {"trains", "dataset", "reward", "utils", "areal", "torch"},
    "dataset": {"dataset", "utils", "reward", "torch"},
    "reward": {"reward", "utils"},
    "utils": {"utils"},
}
# Single tools and the mathematics may use more than their folder.
EXTRA = {
    "utils/functional.py": {"torch"},
    "utils/advantages.py": {"torch"},
    "utils/logprobs.py": {"torch"},
    "utils/policy_metrics.py": {"torch"},
    "utils/sequences.py": {"torch"},
    "utils/doctor/config.py": {"areal", "trains"},
    "utils/doctor/checks.py": {"trains"},
    "utils/checkpoint/compare.py": {"torch", "dataset"},
    "utils/evaluate/cli.py": {"dataset"},
    "utils/evaluate/offline.py": {"dataset", "reward"},
}
# The loader side of dataset/ must not need rewards: only curation and its sources score anything.
CURATION = ("dataset/create.py", "dataset/curate/", "dataset/sources/")


def files():
    return sorted(path.relative_to(ROOT) for folder in ALLOWED for path in (ROOT / folder).rglob("*.py"))


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", files(), ids=str)
def test_imports_point_downward(path):
    used = set(imports_of(ROOT / path)) & PROJECT
    allowed = ALLOWED[path.parts[0]] | EXTRA.get(str(path), set())
    if path.parts[0] == "dataset" and not str(path).startswith(CURATION):
        allowed = allowed - {"reward"}
    assert used <= allowed, f"{path} imports {sorted(used - allowed)}"
