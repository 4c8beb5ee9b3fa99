"""What servers and trainers occupy while a run goes on, seen from outside: GPU memory, or on a CPU resident memory."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from typing import Any

import psutil

GIB = 2**30
SECONDS = 1.0  # between two looks
SERVER, TRAINER = "server", "trainer"


class MemoryWatch:
    """Peaks by role, in bytes, of the processes below this one; use as a context.

    On GPUs: the largest `memory.used` of a GPU that the allocation gives to a role, by nvidia-smi (everything on it
    counts; a GPU that serves and trains is `both`). On a CPU: the largest resident memory of one server and one trainer
    rank with all their children; pages that processes share count in each.

    Args:
        server_gpus, train_gpus: GPUs of each role, servers first, as the local launcher deals them out.
        num_gpus: of the machine's that the run may use; 0 on a CPU.
    """

    def __init__(self, server_gpus: int, train_gpus: int, num_gpus: int):
        self.roles = [SERVER] * server_gpus + [TRAINER] * train_gpus
        self.num_gpus = num_gpus
        self.peaks: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(SECONDS):
            for role, used in (self.of_gpus() if self.num_gpus else self.of_processes()).items():
                self.peaks[role] = max(self.peaks.get(role, 0.0), used)

    def of_gpus(self) -> dict[str, float]:
        """Now, by role; empty where nvidia-smi does not answer."""
        if shutil.which("nvidia-smi") is None:
            return {}
        query = ["nvidia-smi", "--query-gpu=index,memory.used", "--format=csv,noheader,nounits"]
        found = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
        return self.by_role(found.stdout) if found.returncode == 0 else {}

    def by_role(self, table: str) -> dict[str, float]:
        """From nvidia-smi's lines `index, MiB`.

        >>> MemoryWatch(1, 1, 2).by_role("0, 1024\\n1, 3072\\n")
        {'server': 1073741824.0, 'trainer': 3221225472.0}
        >>> MemoryWatch(1, 1, 1).by_role("0, 1024\\n")
        {'both': 1073741824.0}
        """
        holders: dict[int, set[str]] = {}
        for place, role in enumerate(self.roles):
            holders.setdefault(place % self.num_gpus, set()).add(role)
        peaks: dict[str, float] = {}
        for line in table.splitlines():
            index, _, mebibytes = line.partition(",")
            roles = holders.get(int(index), set())
            if roles:
                role = roles.copy().pop() if len(roles) == 1 else "both"
                peaks[role] = max(peaks.get(role, 0.0), float(mebibytes) * 2**20)
        return peaks

    def of_processes(self) -> dict[str, float]:
        """Now, by role: the largest sum over a server, or a trainer rank, and its children."""
        peaks: dict[str, float] = {}
        counted: set[int] = set()
        for process in psutil.Process().children(recursive=True):  # parents come before their children
            with contextlib.suppress(psutil.Error):
                role = role_of(process.cmdline())
                if role is None or process.pid in counted:
                    continue
                members = [process, *process.children(recursive=True)]
                counted |= {member.pid for member in members}
                peaks[role] = max(peaks.get(role, 0.0), sum(_resident(member) for member in members))
        return peaks


def role_of(command: list[str]) -> str | None:
    """The role of a process by its command line; None for shells, launchers and torchrun.

    >>> role_of(["python", "-m", "sglang_cpu.launch_server", "--port", "1"])
    'server'
    >>> role_of(["python", "-u", "trains/grpo.py", "--config", "x.yaml"])
    'trainer'
    >>> role_of(["python", "-m", "torch.distributed.run", "trains/grpo.py"]) is None
    True
    """
    words = [word for word in command if word]
    if not words or "python" not in words[0].rpartition("/")[2]:
        return None
    if any(word.endswith(("launch_server", "launch_server.py")) for word in words[1:6]):
        return SERVER
    launches = any("launcher" in word or "torchrun" in word or "distributed" in word for word in words[1:6])
    return TRAINER if not launches and any(word.endswith(".py") for word in words[1:4]) else None


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0
