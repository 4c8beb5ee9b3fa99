"""What the files of a checkpoint folder hold, read from headers alone; a broken file is named, never half read.

Standard library only: an 8B checkpoint is looked through in a second, without memory. Every error is a `ValueError`
or `FileNotFoundError` whose message begins with the file.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = "model.safetensors.index.json"
LFS_POINTER = b"version https://git-lfs"
MAX_HEADER_BYTES = 100_000_000  # the format's own limit


@dataclass(frozen=True)
class Tensor:
    """One weight as its file's header describes it; `dtype` in the format's words (`BF16`, `F32`)."""

    shape: list[int]
    dtype: str
    file: str


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    content = path.read_bytes()
    _refuse_pointer(path, content)
    try:
        settings = json.loads(content)
    except ValueError as error:  # JSONDecodeError or UnicodeDecodeError
        raise ValueError(f"{path} is not JSON ({error}); download it again") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds a {type(settings).__name__}, wanted an object")
    return settings


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file, by name. The file must be as long as its header says."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing" + (" (a broken link)" if path.is_symlink() else ""))
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(max(8, len(LFS_POINTER)))
        _refuse_pointer(path, start)
        length = int.from_bytes(start[:8], "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise ValueError(
                f"{path} ends before its header does ({size} bytes): truncated, or no safetensors; download it again"
            )
        file.seek(8)
        text = file.read(length)
    try:
        entries = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        end = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        tensors = {name: Tensor(entry["shape"], entry["dtype"], path.name) for name, entry in entries.items()}
    except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} has no safetensors header ({error!r}); download it again") from error
    if size != end:
        what = "truncated" if size < end else "too long"
        raise ValueError(
            f"{path} is {what}: it has {size} bytes, its header wants {end}; download or copy it again"
        )
    return tensors


def tensors(folder: str | os.PathLike) -> dict[str, Tensor]:
    """All weights of a folder, by name; an index beside the files must agree with them.

    Raises FileNotFoundError without weights or for a file that the index names, ValueError with every other problem.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.safetensors"))
    index = folder / INDEX
    placed = _index(index) if index.is_file() else {}
    for name in sorted(set(placed.values()) - {path.name for path in files}):
        raise FileNotFoundError(f"{folder / name} is missing, and {INDEX} places weights in it")
    if not files:
        raise FileNotFoundError(f"no *.safetensors in {folder}")
    found: dict[str, Tensor] = {}
    problems = []
    for path in files:
        header = read_header(path)
        problems += [
            f"{path}: {name} stands in {found[name].file} too" for name in sorted(header.keys() & found)
        ]
        found |= header
    if placed:
        there = {name: tensor.file for name, tensor in found.items()}
        problems += [
            f"{index}: {name} is not in {placed[name]}"
            for name in sorted(placed)
            if there.get(name) != placed[name]
        ]
        problems += [
            f"{index}: {name} of {there[name]} is not listed" for name in sorted(there.keys() - placed)
        ]
    if problems:
        more = f"\nand {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError("\n".join(problems[:8]) + more)
    return found


def _index(path: Path) -> dict[str, str]:
    placed = read_json(path).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise ValueError(f"{path} has no weight_map; download it again")
    for name, file in placed.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise ValueError(f"{path} places {name} in {file!r}, wanted the name of a file beside it")
    return placed


def _refuse_pointer(path: Path, content: bytes) -> None:
    if content.startswith(LFS_POINTER):
        raise ValueError(
            f"{path} is a git-lfs pointer, not the file itself; run `git lfs pull` in its folder"
        )
