"""Random access to curated rows on disk without holding them: parquet shards, folders of them, or the Hub."""

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset.schema import SchemaError, columns_problems
from utils.columns import columns_faults, curated, stored_names
from utils.tables import data_files, load_table, split_paths

MAX_GROUP_ROWS = 512  # above this, one shuffled row would read too much of the file
BATCH_ROWS = 64  # rows in memory, images included, while all are gone through


class RowReader(Protocol):
    """A set of rows under our names: `name` for messages, its length, one row, and all rows."""

    name: str

    def __len__(self) -> int: ...

    def read(self, row: int) -> dict[str, Any]:
        """One row as a plain dict, all columns."""

    def iter_rows(self, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Any]]:
        """Rows `start` to `stop` (None: the end) in order, a batch in memory."""

    def place(self, row: int) -> tuple[str, int]:
        """File and row number in it, for messages."""

    def fingerprint(self) -> str:
        """Changes when the rows may have changed."""


def open_rows(
    path: str | Sequence[str],
    split: str = "train",
    *,
    columns: Mapping[str, str] | None = None,
    seed: int = 219,
) -> RowReader:
    """A reader of files (parquet, JSONL, CSV), directories (searched recursively), globs and Hub names.

    Several stand in a list or in one text with commas; each may end in ``[10%]``, a share of its rows drawn by `seed`.
    `columns` names the columns of data that has not ours, see `utils.columns`.
    Raises ``FileNotFoundError`` for a local path without data and ``SchemaError`` for wrong columns.
    """
    columns = dict(columns or {})
    named = [(data_files(name) or name, share) for name, share in split_paths(path)]
    if all(isinstance(files, list) and share == 1.0 for files, share in named):
        files = [file for group, _ in named for file in group]
        if len({file.suffix for file in files}) == 1:
            return _open(files, split, columns)
    parts = [(_open(files, split, columns), share) for files, share in named]
    return parts[0][0] if len(parts) == 1 and parts[0][1] == 1.0 else JoinedRows(parts, seed)


def _open(files: "list[Path] | str", split: str, columns: Mapping[str, str]) -> RowReader:
    if isinstance(files, str):
        return MappedRows([files], split, columns)
    if len({file.suffix for file in files}) > 1:
        raise SchemaError(
            f"{files[0].parent}: holds files of several kinds; name one kind, e.g. FOLDER/*.parquet"
        )
    if files[0].suffix == ".parquet":
        reader = ParquetRows(files, columns)
        if reader.max_group_rows <= MAX_GROUP_ROWS:
            return reader
    return MappedRows(files, split, columns)


def _check_columns(name: Any, schema: pa.Schema, columns: Mapping[str, str]) -> None:
    problems = columns_faults(columns, schema.names) if columns else columns_problems(schema)
    if problems:
        raise SchemaError(f"{name}: " + "; ".join(problems))


class ParquetRows:
    """Shards with small row groups, read a group at a time straight from the file."""

    def __init__(self, files: Sequence[Path], columns: Mapping[str, str] | None = None) -> None:
        self.files, self.columns = [Path(file) for file in files], dict(columns or {})
        self.name = (
            str(self.files[0]) if len(self.files) == 1 else f"{self.files[0].parent} ({len(files)} shards)"
        )
        groups: list[tuple[int, int, int]] = []  # file, group, rows
        for index, file in enumerate(self.files):
            with _open_parquet(file) as parquet:
                _check_columns(file, parquet.schema_arrow, self.columns)
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
        stored = table.slice(table.num_rows + row - int(self.ends[group]), 1).to_pylist()[0]
        return self._curated(stored, int(self.groups[group, 0]), row)

    def iter_rows(self, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Any]]:
        row, stop = start, len(self) if stop is None else min(stop, len(self))
        while row < stop:
            group = int(np.searchsorted(self.ends, row, side="right"))
            file, local_group, num_rows = (int(value) for value in self.groups[group])
            handle, end = self._handle(file), int(self.ends[group])
            names = stored_names(self.columns, handle.schema_arrow.names)
            table = handle.read_row_group(local_group, columns=names, use_threads=False)
            wanted = table.slice(num_rows + row - end, min(stop, end) - row)
            for batch in wanted.to_batches(max_chunksize=BATCH_ROWS):
                for stored in batch.to_pylist():
                    yield self._curated(stored, file, row)
                    row += 1

    def _curated(self, stored: dict[str, Any], file: int, row: int) -> dict[str, Any]:
        folder = self.files[file].parent
        return curated(stored, self.columns, name=self.files[0].stem, number=row, folder=folder)

    def place(self, row: int) -> tuple[str, int]:
        group = int(np.searchsorted(self.ends, row, side="right"))
        file = int(self.groups[group, 0])
        first = int(self.groups[self.groups[:, 0] < file, 2].sum())
        return str(self.files[file]), row - first

    def fingerprint(self) -> str:
        stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in self.files]
        return repr((stats, self.columns))

    def _handle(self, file: int) -> pq.ParquetFile:
        key = (os.getpid(), file)
        if self._open_file is None or self._open_file[:2] != key:
            self._open_file = (*key, _open_parquet(self.files[file]))
        return self._open_file[2]


class MappedRows:
    """Anything else `datasets` can load (JSONL, foreign parquet, a Hub name), memory-mapped from its Arrow
    cache.
    """

    def __init__(
        self,
        files: Sequence[Path | str],
        split: str = "train",
        columns: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.columns = str(files[0]), dict(columns or {})
        self.folder = files[0].parent if isinstance(files[0], Path) else None
        self.table = load_table(files, split)
        _check_columns(self.name, self.table.features.arrow_schema, self.columns)

    def __len__(self) -> int:
        return len(self.table)

    def read(self, row: int) -> dict[str, Any]:
        return self._curated(self.table[row : row + 1].to_pylist()[0], row)

    def iter_rows(self, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Any]]:
        table = self.table.select_columns(stored_names(self.columns, self.table.column_names))
        stop = len(self) if stop is None else min(stop, len(self))
        for first in range(start, stop, BATCH_ROWS):
            rows = table[first : min(first + BATCH_ROWS, stop)].to_pylist()
            yield from (self._curated(stored, first + number) for number, stored in enumerate(rows))

    def _curated(self, stored: dict[str, Any], row: int) -> dict[str, Any]:
        return curated(stored, self.columns, name=Path(self.name).stem, number=row, folder=self.folder)

    def place(self, row: int) -> tuple[str, int]:
        return self.name, row

    def fingerprint(self) -> str:
        return repr((str(self.table._fingerprint), self.columns))


class JoinedRows:
    """Several readers as one, each with a share of its rows, drawn by the seed and kept in order."""

    def __init__(self, parts: Sequence[tuple[RowReader, float]], seed: int = 219) -> None:
        self.readers = [reader for reader, _ in parts]
        self.name = ", ".join(reader.name for reader in self.readers)
        self.picked = []  # per reader: its row numbers
        for number, (reader, share) in enumerate(parts):
            wanted = max(1, round(share * len(reader))) if len(reader) else 0
            order = np.random.default_rng([seed, number]).permutation(len(reader))
            self.picked.append(np.sort(order[:wanted]))
        self.ends = np.cumsum([len(picked) for picked in self.picked])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def read(self, row: int) -> dict[str, Any]:
        reader, own = self._own(row)
        return reader.read(own)

    def iter_rows(self, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Any]]:
        stop = len(self) if stop is None else min(stop, len(self))
        yield from (self.read(row) for row in range(start, stop))

    def place(self, row: int) -> tuple[str, int]:
        reader, own = self._own(row)
        return reader.place(own)

    def fingerprint(self) -> str:
        pairs = zip(self.readers, self.picked, strict=True)
        return repr([(reader.fingerprint(), zlib.crc32(picked.tobytes())) for reader, picked in pairs])

    def _own(self, row: int) -> tuple[RowReader, int]:
        part = int(np.searchsorted(self.ends, row, side="right"))
        picked = self.picked[part]
        return self.readers[part], int(picked[len(picked) + row - int(self.ends[part])])


def _open_parquet(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise SchemaError(f"{file}: not a readable parquet file: {error}") from error
