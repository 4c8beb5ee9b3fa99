"""What this trainer rank is doing and when it last got on, written at every phase and every second for the watchdog.

    enter("update", step)   a phase begins
    progress()              something within it is done: an answer has come

The longest time between two of these, by phase, goes along: the watchdog's limits follow from it. Outside of the local
launcher nothing is written.
"""

from __future__ import annotations

import os
import threading
import time

from areal.launcher import live

WRITE_SECONDS = 1.0


class Heartbeat(threading.Thread):
    """The thread that writes, which goes on as long as this process runs Python at all."""

    def __init__(self, rank: int = 0):
        super().__init__(name="heartbeat", daemon=True)
        self.rank = rank
        self.phase, self.step = "start", 0
        self.longest: dict[str, float] = {}  # seconds between two marks, by phase
        self.longest_mute = 0.0  # seconds between two writes
        self._progress = self.written = time.monotonic()
        self._lock = threading.Lock()
        self._changed = threading.Event()

    def enter(self, phase: str, step: int | None = None) -> None:
        """A phase begins, and the one before is over."""
        with self._lock:
            self._mark()
            self.phase = phase
            self.step = self.step if step is None else step
        self._changed.set()

    def progress(self) -> None:
        """The phase has got on."""
        with self._lock:
            self._mark()

    def _mark(self) -> None:
        now = time.monotonic()
        self.longest[self.phase] = max(self.longest.get(self.phase, 0.0), now - self._progress)
        self._progress = now

    def content(self) -> dict:
        """What is written; times by the monotonic clock, which all processes of a machine share."""
        now = time.monotonic()
        with self._lock:
            self.longest_mute = max(self.longest_mute, now - self.written)
            self.written = now
            return {
                "rank": self.rank,
                "pid": os.getpid(),
                "phase": self.phase,
                "step": self.step,
                "progress": self._progress,
                "longest": dict(self.longest),
                "written": now,
                "longest_mute": self.longest_mute,
            }

    def run(self) -> None:
        """The thread's body."""
        folder = live.folder_here()
        while folder is not None:
            self._changed.clear()
            live.write(folder / f"rank{self.rank}.json", self.content())
            self._changed.wait(WRITE_SECONDS)


_heartbeat = Heartbeat()


def start() -> None:
    """Begin to write, as torchrun's rank of this process."""
    _heartbeat.rank = int(os.environ.get("RANK", "0"))
    if not _heartbeat.is_alive():
        _heartbeat.written = time.monotonic()
        _heartbeat.start()


enter, progress = _heartbeat.enter, _heartbeat.progress
