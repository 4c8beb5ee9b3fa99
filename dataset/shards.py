"""Random access to curated rows on disk without holding them: parquet shards, folders of them, or the Hub."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset.schema import OPTIONAL_COLUMNS, REQUIRED_COLUMNS, SchemaError, columns_problems

MAX_GROUP_ROWS = 512  # above this, one shuffled row would read too much of the file
TEXT_COLUMNS = [name for name in (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS) if name != "images"]


class RowReader(Protocol):
    """A set of rows: `name` for messages, its length, one row, and all rows without their image bytes."""

    name: str

    def __len__(self) -> int: ...

    def read(self, row: int) -> dict[str, Any]:
        """One row as a plain dict, all columns."""

    def iter_texts(self) -> Iterator[list[dict[str, Any]]]:
        """All rows in order, in batches, text columns and `image_sizes`; `images` only where sizes are
        missing.
        """

    def where(self, row: int) -> str:
        """File and row number, for messages."""

    def fingerprint(self) -> str:
        """Changes when the rows may have changed."""


def open_rows(path: str | Sequence[str], split: str = "train") -> RowReader:
    """A reader of a parquet shard, a directory (searched recursively), a glob, several of these, or a Hub
    name.

    Raises ``FileNotFoundError`` for a local path without shards and ``SchemaError`` for wrong columns.
    """
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    files = [file for item in paths for file in _expand(str(item))]
    if files and all(file.suffix == ".parquet" for file in files):
        reader = ParquetRows(files)
        if reader.max_group_rows <= MAX_GROUP_ROWS:
            return reader
    return MappedRows(files or paths, split)


class ParquetRows:
    """Shards with small row groups, read a group at a time straight from the file."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = [Path(file) for file in files]
        self.name = (
            str(self.files[0]) if len(self.files) == 1 else f"{self.files[0].parent} ({len(files)} shards)"
        )
        groups: list[tuple[int, int, int]] = []  # file, group, rows
        for index, file in enumerate(self.files):
            with _open(file) as parquet:
                problems = columns_problems(parquet.schema_arrow)
                if problems:
                    raise SchemaError(f"{file}: " + "; ".join(problems))
                metadata = parquet.metadata
                groups += [(index, g, metadata.row_group(g).num_rows) for g in range(metadata.num_row_groups)]
        self.groups = np.array(groups, dtype=np.int64).reshape(-1, 3)
        self.ends = np.cumsum(self.groups[:, 2])
        self._open_file: tuple[int, int, pq.ParquetFile] | None = None  # process id, file index, handle
        self._last_group: tuple[int, pa.Table] | None = None

    @property
    def max_group_rows(self) -> int:
        return int(self.groups[:, 2].max(initial=0))

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open_file": None, "_last_group": None}

    def read(self, row: int) -> dict[str, Any]:
        group = int(np.searchsorted(self.ends, row, side="right"))
        if self._last_group is None or self._last_group[0] != group:
            file, local_group, _ = (int(value) for value in self.groups[group])
            table = self._handle(file).read_row_group(local_group, use_threads=False)
            self._last_group = (group, table)
        table = self._last_group[1]
        return table.slice(table.num_rows + row - int(self.ends[group]), 1).to_pylist()[0]

    def iter_texts(self) -> Iterator[list[dict[str, Any]]]:
        for file in self.files:
            with _open(file) as parquet:
                names = parquet.schema_arrow.names
                columns = [name for name in TEXT_COLUMNS if name in names]
                if "image_sizes" not in names:
                    columns.append("images")
                for batch in parquet.iter_batches(batch_size=4096, columns=columns, use_threads=False):
                    yield batch.to_pylist()

    def where(self, row: int) -> str:
        group = int(np.searchsorted(self.ends, row, side="right"))
        file = int(self.groups[group, 0])
        first = int(self.groups[self.groups[:, 0] < file, 2].sum())
        return f"{self.files[file]}, row {row - first}"

    def fingerprint(self) -> str:
        stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in self.files]
        return repr(stats)

    def _handle(self, file: int) -> pq.ParquetFile:
        key = (os.getpid(), file)
        if self._open_file is None or self._open_file[:2] != key:
            self._open_file = (*key, _open(self.files[file]))
        return self._open_file[2]


class MappedRows:
    """Anything else `datasets` can load (JSONL, foreign parquet, a Hub name), memory-mapped from its Arrow
    cache.
    """

    def __init__(self, files: Sequence[Path | str], split: str = "train") -> None:
        import datasets

        self.name = str(files[0])
        if isinstance(files[0], Path):
            kind = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}[files[0].suffix]
            table = datasets.load_dataset(kind, data_files=[str(file) for file in files], split="train")
        else:
            if len(files) != 1:
                raise ValueError(f"a Hub name stands alone, got {list(files)}")
            table = datasets.load_dataset(files[0], split=split)
        problems = columns_problems(table.features.arrow_schema)
        if problems:
            raise SchemaError(f"{self.name}: " + "; ".join(problems))
        self.table = table.with_format("arrow")

    def __len__(self) -> int:
        return len(self.table)

    def read(self, row: int) -> dict[str, Any]:
        return self.table[row : row + 1].to_pylist()[0]

    def iter_texts(self) -> Iterator[list[dict[str, Any]]]:
        names = self.table.column_names
        columns = [name for name in TEXT_COLUMNS if name in names]
        if "image_sizes" not in names:
            columns.append("images")
        for batch in self.table.select_columns(columns).iter(batch_size=512):
            yield batch.to_pylist()

    def where(self, row: int) -> str:
        return f"{self.name}, row {row}"

    def fingerprint(self) -> str:
        return str(self.table._fingerprint)


def _expand(path: str) -> list[Path]:
    if os.path.isdir(path):
        found = sorted(file for kind in ("parquet", "jsonl") for file in Path(path).rglob(f"*.{kind}"))
    elif any(mark in path for mark in "*?["):
        found = [Path(file) for file in sorted(glob.glob(path, recursive=True))]
    elif os.path.isfile(path):
        found = [Path(path)]
    elif _looks_local(path):
        found = []
    else:
        return []  # a Hub name
    if not found:
        raise FileNotFoundError(f"no data at {path!r}: wanted a .parquet or .jsonl file, or a folder of them")
    return found


def _looks_local(path: str) -> bool:
    return (
        path.startswith((".", "/", "~"))
        or path.endswith((".parquet", ".jsonl", ".json"))
        or path.count("/") != 1
    )


def _open(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise SchemaError(f"{file}: not a readable parquet file: {error}") from error
