"""The bundle for a bare CUDA machine: packages pinned, and AReaL imported without what a rank alone never calls."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.doctor.machine import pinned_versions

ROOT = Path(__file__).resolve().parents[2]
# imports the actor with the packages that have stand-ins hidden, as on a machine that lacks them
HIDDEN = """
import sys
import benchmarks.stand_ins as stand_ins

class Hiding:
    def __init__(self, inner): self.inner = inner
    def __getattr__(self, name): return getattr(self.inner, name)
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN or not hasattr(self.inner, "find_spec"):
            return None
        return self.inner.find_spec(name, path, target)

HIDDEN = set(stand_ins.PACKAGES) - {"httpx"}  # transformers needs it
sys.meta_path[:] = [Hiding(f) if not isinstance(f, stand_ins._Finder) else f for f in sys.meta_path]
import trains.actor
import wandb.anything
"""


def names():
    lines = (ROOT / "benchmarks/gpu_bundle.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_package_of_the_bundle_is_pinned():
    assert set(names()) <= set(pinned_versions("gpu"))
    assert len(names()) == len(set(names()))


@pytest.mark.slow
def test_the_actor_is_imported_without_them():
    """And only for AReaL: an import that stands in the program itself fails as it should."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", HIDDEN]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert "No module named 'wandb" in result.stderr, result.stderr[-2000:]
    assert "trains/actor" not in result.stderr


def test_a_stand_in_is_inherited_from_decorates_and_refuses_to_be_called():
    from benchmarks.stand_ins import _make

    remote = _make("ray.remote")

    @remote
    def plain():
        return 1

    @remote(num_cpus=1)
    def with_options():
        return 2

    class Child(_make("ray.util.Base")):
        pass

    assert (plain(), with_options()) == (1, 2)
    assert isinstance(Child(), Child)
    with pytest.raises(ModuleNotFoundError, match=r"ray\.init was called, but ray is not installed"):
        _make("ray.init")("auto")
