"""Runs the tests of a file against its mutants, each in a fork of a process that has imported what is slow."""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.mutants.mutate import Mutant

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 60  # a mutant that loops for ever is noticed too
# file: its fast tests
TARGETS: dict[str, list[str]] = {
    "trains/actor.py": [f"tests/trains/test_actor_{part}.py" for part in ("advantages", "loss", "update")],
    "trains/buffer.py": ["tests/trains/test_buffer.py", "tests/trains/test_buffer_machine.py"],
    "utils/functional.py": ["tests/utils/test_functional.py", "tests/utils/test_functional_cuts.py"],
    "utils/advantages.py": ["tests/utils/test_advantages.py"],
    "reward/score.py": ["tests/reward/test_score.py"],
    "reward/extract.py": ["tests/reward/test_extract.py"],
    "dataset/mixture.py": ["tests/dataset/test_mixture.py"],
}
# What the tests of a folder import that takes seconds, and that no fork should import again.
SLOW_IMPORTS = {
    "trains": ["torch", "hypothesis", "areal.engine.sglang_remote", "areal.engine.fsdp_engine"],
    "utils": ["torch"],
    "reward": ["hypothesis", "scipy.optimize", "sympy"],
    "dataset": ["torch.utils.data", "pyarrow.parquet", "transformers"],
}


class Changed(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Imports one module from a text in place of its file."""

    def __init__(self, file: str, source: str):
        self.file, self.source = file, source
        self.module = file.removesuffix(".py").replace("/", ".")

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name == self.module else None

    def get_filename(self, name):
        return str(ROOT / self.file)

    def get_data(self, path):
        return self.source.encode()


def survives(file: str, source: str) -> bool:
    """Whether the tests of a file pass with this text in its place, in a fork of this process."""
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.alarm(TIMEOUT_SECONDS)
        with (
            open(os.devnull, "w") as null,
            contextlib.redirect_stdout(null),
            contextlib.redirect_stderr(null),
        ):
            sys.meta_path.insert(0, Changed(file, source))
            options = [
                "-q",
                "-x",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:xdist",
                "-m",
                "not slow",
                "-W",
                "ignore",
            ]
            status = pytest.main([*options, *TARGETS[file]])
        os._exit(int(status))
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # workers that the tests may have left
    return status == 0


def examine(file: str, chosen: list[Mutant]) -> tuple[str, list[str], float]:
    """(file, names of the survivors, seconds). Raises RuntimeError when the tests fail without any change."""
    started = time.monotonic()
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # half a second each time
    for name in SLOW_IMPORTS[file.split("/", maxsplit=1)[0]]:
        importlib.import_module(name)
    if not survives(file, (ROOT / file).read_text()):
        raise RuntimeError(f"{' '.join(TARGETS[file])}: fails without any change")
    return file, [m.name for m in chosen if survives(file, m.source)], time.monotonic() - started
