"""Files that are whole or absent, files that a data set names, and rows of parquet one at a time."""

import os
import stat
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


def read_named_file(path: str | os.PathLike, max_bytes: int, root: str | os.PathLike | None = None) -> bytes:
    """The content of a file that data names: a regular file of at most `max_bytes`, below `root` where one is given.

    Links are followed before the place is judged. Raises OSError for anything else (a device, a pipe, `../x`), and does
    not wait for it.
    """
    real = Path(path).resolve(strict=True)
    if root is not None and not real.is_relative_to(Path(root).resolve()):
        raise OSError(f"{path} lies outside of {root}")
    descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(f"{path} holds more than {max_bytes} bytes")
    return content


def parquet_rows(path: str | os.PathLike, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file in order, one batch in memory; of all columns, or of those named that it has."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=32, columns=names):
            yield from batch.to_pylist()
