"""Rows and shards that the data tests share."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset.create import main
from dataset.images import to_png_bytes
from dataset.schema import write_shard
from tests.dataset.curation_runs import digits_command


def make_image(seed: int, width: int = 56, height: int = 56) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def make_row(number: int = 0, *, num_images: int = 1, **changes: Any) -> dict[str, Any]:
    """A sound row; `changes` replaces columns."""
    row = {
        "id": f"set/{number:05d}",
        "images": [{"bytes": to_png_bytes(make_image(number + i)), "path": None} for i in range(num_images)],
        "problem": "<image>" * num_images + f"Question {number}?",
        "answer": [str(number)],
        "problem_type": "math",
        "answer_type": "number",
        "source": "set",
        "prompt_type": "answer",
        "spec": None,
    }
    return row | changes


@pytest.fixture
def shard(tmp_path: Path) -> Callable[..., str]:
    """shard(num_rows, name="rows.parquet", **changes) -> path of a shard with rows 0 to num_rows - 1"""

    def write(num_rows: int, name: str = "rows.parquet", **changes: Any) -> str:
        path = tmp_path / name
        write_shard(path, [make_row(number, **changes) for number in range(num_rows)])
        return str(path)

    return write


@pytest.fixture(scope="session")
def processor() -> Any:
    from llavaonevision1_5 import tiny

    return tiny.build_processor()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    tiny = pytest.importorskip("llavaonevision1_5.tiny")
    return str(tiny.build_tiny_checkpoint(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def engines(checkpoint, tmp_path_factory):
    """Starts stand-in servers; returns their addresses."""
    folder, processes = tmp_path_factory.mktemp("engines"), []

    def start(**options):
        port_file = folder / f"port{len(processes)}"
        words = [w for name, value in options.items() for w in (f"--{name.replace('_', '-')}", str(value))]
        command = [
            sys.executable,
            str(Path(__file__).with_name("fake_engine.py")),
            "--checkpoint",
            checkpoint,
        ]
        processes.append(subprocess.Popen([*command, "--port-file", str(port_file), *words]))
        deadline = time.monotonic() + 90
        while not port_file.exists():
            assert time.monotonic() < deadline
            assert processes[-1].poll() is None
            time.sleep(0.05)
        return f"127.0.0.1:{port_file.read_text()}"

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def engine(engines):
    return engines()


@pytest.fixture(scope="module")
def finished(checkpoint, engine, tmp_path_factory):
    """One undisturbed run."""
    output = tmp_path_factory.mktemp("run")
    assert main(digits_command(checkpoint, engine, output, "--shard-size", "16", "--max-reward", "0.7")) == 0
    return output
