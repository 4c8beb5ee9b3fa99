"""What the processes of one run tell each other while it lasts: small files in the trial's folder `.live`.

`servers.json`      by the launcher: the servers that are healthy, and how many were lost so far
`serving.json`      by the first trainer rank: the servers that answer with the current weights
`server-PORT.json`  by the servers' wrapper: how a server was started
`rankN.json`        by each trainer rank: what it is doing (`trains/heartbeat.py`)

A reader never sees half a file, and looks again only where a file has changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

VARIABLE = "AREAL_LIVE_FOLDER"  # in the environment of every process of a run that the local launcher started
NAME = ".live"


def make(trial_folder: Path) -> Path:
    """The empty folder of a run that begins; what is left of another one is removed."""
    folder = trial_folder / NAME
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def folder_here() -> Path | None:
    """The folder of the run that this process belongs to; None outside of the local launcher."""
    value = os.environ.get(VARIABLE)
    return Path(value) if value else None


def write(path: Path, content: Any) -> None:
    """Put `content` there, as a whole. A disk that is full is no reason to stop: it is written again later."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content))
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()


class Reader:
    """The content of one file; `default` before it is there."""

    def __init__(self, path: Path, default: Any):
        self.path, self.content = path, default
        self._seen: tuple[int, int] | None = None

    def read(self) -> Any:
        """What is in it now."""
        try:
            status = self.path.stat()
            if (status.st_ino, status.st_mtime_ns) != self._seen:
                self.content = json.loads(self.path.read_text())
                self._seen = status.st_ino, status.st_mtime_ns
        except (OSError, ValueError):  # not there yet, or being replaced
            pass
        return self.content
