"""A trainer's log for people: what the libraries print at every step is left out, colours and progress bars too.

What is not known as noise is kept, so nothing that explains a failure is lost; `trainer.full.log` beside it has
everything, as it was printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

FULL_SUFFIX = ".full.log"
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NOISE = re.compile(
    r"\(AReaL\) .* (DEBUG|INFO):( |$)"  # its loggers, one of which prints metrics.jsonl again as a table
    r"|[╒├╘│]"  # that table
    r"|.*\d+%\|.*\| *\d+/\d+ \["  # a progress bar
    r"|wandb:(?! (ERROR|WARNING))"
)
LIBRARY_WARNING = re.compile(r"\S*(site-packages|lib/python3)\S*\.py:\d+: \w*Warning: ")


class ReadableLog:
    """Appends to `path` what people want to read of the lines handed to it, without colours."""

    def __init__(self, path: Path):
        self.path = path
        self._was_dropped = self._was_warning = False

    def append(self, lines: Iterable[str]) -> None:
        """Add all of `lines` but noise."""
        with self.path.open("a", encoding="utf-8") as sink:
            sink.writelines(line + "\n" for line in self.readable(lines))

    def readable(self, lines: Iterable[str]) -> Iterator[str]:
        """The lines that are kept. A library's warning goes with the line of its source, a table with a blank line."""
        for line in lines:
            text = COLOURS.sub("", line).rstrip("\r").rpartition("\r")[2].rstrip()
            is_warning = LIBRARY_WARNING.match(text) is not None
            if is_warning or NOISE.match(text):
                self._was_dropped, self._was_warning = True, is_warning
            elif (self._was_dropped and not text) or (self._was_warning and text.startswith("  ")):
                self._was_warning = False
            else:
                self._was_dropped = self._was_warning = False
                yield text


def full_log(log: Path) -> Path:
    """Where everything stands: `trainer.log` -> `trainer.full.log`."""
    return log.with_name(log.stem + FULL_SUFFIX)
