"""Files that are whole or absent, and rows of parquet one at a time."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A binary file to write that takes the place of `path` when the block ends; an error leaves `path` as it was.

    Several processes may write the same path at once: the last one to end wins. Makes the folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def parquet_rows(path: str | os.PathLike, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file in order, one batch in memory; of all columns, or of those named that it has."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=32, columns=names):
            yield from batch.to_pylist()
