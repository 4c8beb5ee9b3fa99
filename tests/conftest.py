"""Fixtures shared by several folders of tests: a tiny random checkpoint and the digits data, built once."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items):
    """Files with slow tests first: the workers then end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A random LLaVA-OneVision-1.5 of 1.4M parameters in the published layout; like a trained one it never writes
    media tokens.
    """
    from llavaonevision1_5.tiny import build_config, build_tiny_checkpoint

    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    build_tiny_checkpoint(path, seed=0, config=build_config(suppress_media_tokens=True))
    return path


@pytest.fixture(scope="session")
def published_checkpoint(tiny_checkpoint, tmp_path_factory) -> Path:
    """The same weights with the configuration and code of a published folder, which transformers 5 cannot load."""
    from llavaonevision1_5 import shims, tiny

    folder = tmp_path_factory.mktemp("checkpoint") / "published"
    shutil.copytree(tiny_checkpoint, folder)
    tiny.to_published_layout(folder)
    for name in shims.FILES:
        (folder / name).write_text("raise ImportError('this code does not run on transformers 5')\n")
    return folder


@pytest.fixture(scope="session")
def digits_data(tmp_path_factory) -> Path:
    """The embedded data, written as `make demo` does."""
    path = tmp_path_factory.mktemp("digits")
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "dataset.digits", "--output-dir", str(path)],
        cwd=ROOT,
        check=True,
    )
    return path


@pytest.fixture(autouse=True)
def loggers_below_the_root():
    """AReaL replaces the root logger at each of its own; ours would then speak where `caplog` does not listen."""
    for name, module in list(sys.modules.items()):
        logger = getattr(module, "logger", None)
        if name.split(".")[0] in ("dataset", "reward", "utils") and isinstance(logger, logging.Logger):
            logger.parent, logger.disabled = logging.getLogger(), False
            logger._cache.clear()  # a logger that its manager has forgotten keeps stale answers about levels
