"""Rows that cannot be used, each counted, logged and listed once."""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

logger = logging.getLogger(__name__)
FILE_NAME = "bad_rows.jsonl"  # in the folder of a run


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row, by its place in the data."""

    file: str
    row: int  # in the file, from 0
    id: str | None
    fault: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row} (id {self.id!r}): {self.fault}"


class BadRows:
    """The bad rows of a run. With a path they also stand in that file, a JSON object a line: file, row, id, fault."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._known: set[tuple[str, int]] = set()

    def __len__(self) -> int:
        return len(self._known)

    def add(self, rows: Iterable[BadRow], *, written: bool = False) -> None:
        """Take rows that are not known yet. `written`: another rank has found the same ones and lists them."""
        new = {(row.file, row.row): row for row in rows if (row.file, row.row) not in self._known}
        self._known |= new.keys()
        for row in new.values():
            logger.warning("row left out: %s", row)
        if new and self.path is not None and not written:
            with self.path.open("a") as file:
                file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in new.values())
