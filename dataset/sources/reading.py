"""Rows of a data set, one at a time: local parquet, JSONL, JSON and TSV files, folders of them, or the Hub.

Memory holds one record batch. The order is that of the files (sorted by name) and of the rows within them, so a row
number always means the same row.
"""

import csv
import glob
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utils.files import parquet_rows

Row = dict[str, Any]
SUFFIXES = (".parquet", ".jsonl", ".json", ".tsv")
SPLIT_NAMES = ("train", "validation", "val", "test", "testmini", "dev")
CHUNK_CHARS = 1 << 20


@dataclass(frozen=True, slots=True)
class Location:
    """Where the rows of a run are: a local file, a local folder or a data set on the Hub."""

    path: str
    split: str
    config: str | None = None
    data_files: tuple[str, ...] = ()  # files or patterns within `path`
    image_root: str | None = None

    def with_default_image_root(self) -> "Location":
        """The same location; relative image paths start at the local folder unless another was given."""
        local = Path(self.path)
        if self.image_root is not None or not self.path or not local.exists():
            return self
        return replace(self, image_root=str(local if local.is_dir() else local.parent))


def read_rows(location: Location) -> Iterator[Row]:
    """All rows of a location as plain dicts; images stay encoded (``{"bytes", "path"}``).

    Raises ``FileNotFoundError`` naming the patterns tried, ``ValueError`` for an unknown kind of file.
    """
    if not location.path:
        raise FileNotFoundError("this source has no default path: give --dataset-path")
    path = Path(location.path)
    if path.exists():
        for file in local_files(path, location.split, location.config, location.data_files):
            yield from read_file(file)
    else:
        yield from read_hub(location)


def local_files(
    path: Path, split: str, config: str | None = None, data_files: Sequence[str] = ()
) -> list[Path]:
    """The files of a split. Without `data_files`: those named after the split, or all when none names any split."""
    if path.is_file():
        return [path]
    if data_files:
        files = [
            Path(f) for pattern in data_files for f in sorted(glob.glob(str(path / pattern), recursive=True))
        ]
        if not files:
            raise FileNotFoundError(f"no file of {list(data_files)} in {path}")
        return files
    root = path / config if config and (path / config).is_dir() else path
    files = sorted(f for suffix in SUFFIXES for f in root.rglob(f"*{suffix}") if f.is_file())
    of_split = [f for f in files if split_of(f.relative_to(root)) == split]
    if of_split:
        return of_split
    unnamed = [f for f in files if split_of(f.relative_to(root)) is None]
    if unnamed and len(unnamed) == len(files):
        return unnamed
    wanted = f"files named after the split {split!r} ({', '.join(SUFFIXES)})"
    raise FileNotFoundError(f"{root} has no {wanted}; it has {[str(f.relative_to(root)) for f in files][:8]}")


def split_of(path: Path) -> str | None:
    """The split a file name speaks of (`data/train-00000-of-00002.parquet`, `val.json`), or None."""
    for part in (path.name, *reversed(path.parts[:-1])):
        words = part.lower().replace("_", "-").replace(".", "-").split("-")
        for name in SPLIT_NAMES:
            if name in words:
                return name
    return None


def read_file(path: Path) -> Iterator[Row]:
    """The rows of one file. A bad JSON line raises ``ValueError`` with its number: the file is not what it says."""
    if path.suffix == ".parquet":
        yield from parquet_rows(path)
    elif path.suffix == ".jsonl" or (path.suffix == ".json" and not _is_json_array(path)):
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _json_object(line, f"{path}:{number}")
    elif path.suffix == ".json":
        yield from _json_array(path)
    elif path.suffix == ".tsv":
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # cells hold base64 images
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file, delimiter="\t")
    else:
        raise ValueError(f"{path}: unknown kind of file, wanted one of {', '.join(SUFFIXES)}")


def read_hub(location: Location) -> Iterator[Row]:
    """Rows streamed from the Hub (or its local cache), images left encoded."""
    from datasets import load_dataset

    stream = load_dataset(
        location.path,
        location.config,
        split=location.split,
        data_files=list(location.data_files) or None,
        streaming=True,
    )
    yield from stream.decode(False)


def _is_json_array(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        while character := file.read(1):
            if not character.isspace():
                return character == "["
    return False


def _json_array(path: Path) -> Iterator[Row]:
    """The objects of a JSON array, one at a time: published files of this kind hold gigabytes."""
    decoder, chunk = json.JSONDecoder(), CHUNK_CHARS
    with path.open(encoding="utf-8") as file:
        buffer, place = file.read(chunk), 0
        place = buffer.index("[") + 1
        while True:
            while place < len(buffer) and buffer[place] in " \t\r\n,":
                place += 1
            if place < len(buffer):
                if buffer[place] == "]":
                    return
                try:
                    row, place = decoder.raw_decode(buffer, place)
                except ValueError as error:  # an object cut by the end of the buffer, or a fault of the file
                    more = file.read(chunk)
                    if not more:
                        raise ValueError(f"{path}: not a JSON array: {error}") from error
                    buffer, place, chunk = buffer[place:] + more, 0, 2 * chunk
                    continue
                chunk = CHUNK_CHARS
                yield row
                continue
            buffer, place = file.read(chunk), 0
            if not buffer:
                raise ValueError(f"{path}: the JSON array is not closed")


def _json_object(line: str, place: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{place}: got {type(row).__name__}, wanted a JSON object")
    return row
