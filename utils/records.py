"""Files of one JSON record a line that outlive a crash at any moment, and a full disk.

A record is there as a whole or not at all once `append` has returned or raised; what a kill cut off in the middle of a
line is cut off for good by whoever reads or appends next.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.files import replacing

TAIL_BYTES = 1 << 16


def append(path: str | os.PathLike, record: dict[str, Any]) -> None:
    """Write `record` behind the others, onto the disk and not only into its cache.

    Raises OSError where it cannot be written (a full disk); the file is then as it was before.
    """
    line = (json.dumps(record) + "\n").encode()
    with open(path, "ab") as file:
        end = _end_of_last_line(Path(path))
        if end != file.tell():
            file.truncate(end)
        try:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):  # the first error is the one to hear of
                os.truncate(path, end)
            raise


def read(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Every whole record, in order; none where there is no such file. A last line that was cut off is left out.

    Raises ValueError, naming file and line, for a line in the middle that is no record.
    """
    path = Path(path)
    if not path.is_file():
        return []
    *lines, rest = path.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            if number == len(lines) and not rest:
                break  # cut off, and something else ended the line
            raise ValueError(f"{path}, line {number}: not a record: {line[:80]!r}") from error
    return found


def keep(path: str | os.PathLike, is_kept: Callable[[dict[str, Any]], bool]) -> None:
    """Drop the records that are not kept. Raises as `read` and `replacing` do; the file is then as it was."""
    found = read(path)
    if Path(path).is_file():
        with replacing(path) as file:
            file.writelines((json.dumps(record) + "\n").encode() for record in found if is_kept(record))


def _end_of_last_line(path: Path) -> int:
    """Bytes of the file up to and with its last line break."""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        while position > 0:
            start = max(0, position - TAIL_BYTES)
            file.seek(start)
            found = file.read(position - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            position = start
    return 0
