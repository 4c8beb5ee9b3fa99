"""A launch of a run as a person sees it: lines on the console, an exit status, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "configs/digits_cpu_stage1.yaml"
NAMED_WITHIN_SECONDS = 30
STARTS_WITHIN_SECONDS = 240  # two busy cores


class Output:
    """A command in the background; `lines` grows with what it prints."""

    def __init__(self, command: list[str], variables: dict[str, str]):
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def until(self, pattern: str, timeout: float = STARTS_WITHIN_SECONDS, *, count: int = 1) -> re.Match:
        """The match of the `count`-th line that `pattern` is found in."""
        deadline = time.monotonic() + timeout
        while True:
            found = [match for line in list(self.lines) if (match := re.search(pattern, line))]
            if len(found) >= count:
                return found[count - 1]
            assert self.process.poll() is None or self._reader.is_alive(), (
                f"ended without {pattern!r}:\n{self.text}"
            )
            assert time.monotonic() < deadline, f"no {pattern!r} within {timeout} s:\n{self.text}"
            time.sleep(0.1)

    def until_true(self, condition, timeout: float = STARTS_WITHIN_SECONDS) -> None:
        """Wait for something that it does beside printing."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, f"ended before that:\n{self.text}"
            assert time.monotonic() < deadline, f"not within {timeout} s:\n{self.text}"
            time.sleep(0.1)

    def end(self, timeout: float = STARTS_WITHIN_SECONDS) -> int:
        """Its exit status."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s:\n{self.text}") from None
        self._reader.join(10)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()


class Launch(Output):
    """`python -m areal.launcher.NAME`."""

    def __init__(
        self, name: str, arguments: list[str], variables: dict[str, str], entry: str = "trains/grpo.py"
    ):
        command = [sys.executable, "-W", "ignore", "-m", f"areal.launcher.{name}", entry, "--config", CONFIG]
        super().__init__([*command, *arguments], variables)

    def pid(self, name: str, *, count: int = 1) -> int:
        """Process id that was announced for a server or trainer, of its `count`-th start."""
        return int(self.until(rf"started {name}:0 on \S+ \(pid (\d+)\)", count=count)[1])


def records(runs: Path, trial: str = "demo") -> list[dict]:
    """The steps of a run."""
    path = runs / "digits-stage1" / trial / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def below(pid: int, pattern: str) -> psutil.Process:
    """A process below `pid`, or itself, whose command line `pattern` is found in."""
    top = psutil.Process(pid)
    for process in (top, *top.children(recursive=True)):
        if re.search(pattern, " ".join(process.cmdline())):
            return process
    raise AssertionError(f"nothing like {pattern!r} below {pid}")


def leftovers(folder: Path) -> list[str]:
    """Processes that have this folder on their command line, but for this one's and Ray's or Slurm's own."""
    deadline = time.monotonic() + 10
    while True:
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            words = process.info["cmdline"] or []
            if process.info["pid"] != os.getpid() and any(str(folder) in word for word in words):
                found.append(" ".join(words)[:200])
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.5)
