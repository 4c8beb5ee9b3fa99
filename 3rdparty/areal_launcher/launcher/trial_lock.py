"""One trial, one run: a lock in the trial's folder, held by the launcher and by the trainer that it started.

The kernel gives it back when the process that holds it ends, however it ends; nobody has to clean up.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LAUNCHER, TRAINER = ".launcher.lock", ".trainer.lock"
POLL_SECONDS = 0.2


class TrialInUseError(Exception):
    """Another process runs this trial; the message says which, where and since when."""


@contextmanager
def held(folder: str | os.PathLike, name: str = LAUNCHER, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock `name` of a trial's folder, which is made, for the time of the block.

    Raises TrialInUseError where somebody else has it, and still has it `wait_seconds` later.
    """
    descriptor = take(folder, name, wait_seconds)
    try:
        yield
    finally:
        os.close(descriptor)


def take(folder: str | os.PathLike, name: str = LAUNCHER, wait_seconds: float = 0.0) -> int:
    """As `held`, until the process ends; the open file's descriptor."""
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 4096, 0).decode(errors="replace")
                os.close(descriptor)
                raise TrialInUseError(f"{path.parent} is in use: {_described(holder)}") from None
            time.sleep(POLL_SECONDS)
    holder = {
        "pid": os.getpid(),
        "user": getpass.getuser(),
        "host": socket.gethostname(),
        "since": time.strftime("%F %T"),
        "program": shlex.join(sys.argv[:2]),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)
    return descriptor


def _described(text: str) -> str:
    try:
        holder = json.loads(text)
        return (
            f"process {holder['pid']} of {holder['user']} on {holder['host']} has run it since {holder['since']} "
            f"({holder['program']}). Wait for it, stop it, or give this run a trial_name of its own"
        )
    except (ValueError, KeyError, TypeError):  # a moment before it has written who it is
        return "another process has just started it. Wait for it, or give this run a trial_name of its own"
