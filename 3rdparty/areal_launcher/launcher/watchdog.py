"""Names what hangs: a phase of a trainer rank, a server, or a process that somebody has stopped.

Trainer ranks write down what they are doing and when they last got on (trains/heartbeat.py). How long that may take is
learned from the run itself: ten times the longest so far, at least `launcher.hang_floor_seconds`; ten times that floor
where nothing has been seen yet. What is named leaves the stack traces of all its threads in its log (SIGABRT, with
Python's own faulthandler) and on the console. A server is then started again; anything else ends the run.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from areal.launcher import live
from areal.launcher.servers import Server, Servers, answers, command_line, descendants, is_alive

LOOK_SECONDS = 2.0
STOOD_STILL_SECONDS = 10.0  # between two looks: this process itself, and perhaps everything
FACTOR = 10  # of the longest that the run has needed so far; of the floor where it has needed nothing yet
STOPPED_SECONDS = 8.0  # of a process in the state that SIGSTOP leaves
HEALTH_SECONDS = 10.0
WAITS_FOR_SERVERS = ("rollout", "proximal", "exchange", "evaluate", "start")
MAX_TRACE_LINES = 120


class HangError(Exception):
    """A part of the run hangs; `job` is the launcher's name of it."""

    def __init__(self, job: str, text: str):
        super().__init__(text)
        self.job = job


class Watchdog:
    """Looks at heartbeats and process states whenever `look` is called; see the module docstring."""

    def __init__(
        self,
        folder: Path,
        trainer_log: Path,
        servers: Servers,
        floor_seconds: float,
        say: Callable[[str], None],
    ):
        self.folder, self.trainer_log, self.servers = folder, trainer_log, servers
        self.floor, self.say = floor_seconds, say
        self._looked = 0.0
        self._readers: dict[Path, live.Reader] = {}
        self._stopped: dict[int, float] = {}  # since when
        self._named: set[int] = set()
        self._servers_changed = time.monotonic()
        self._servers_seen: Any = None

    def look(self) -> None:
        """Raises HangError, and ServerLostError where a server has hung too often."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        if now - self._looked > STOOD_STILL_SECONDS:
            self._stopped.clear()
            self._servers_changed = now
        self._looked = now
        state = [(server.address, server.is_ready) for server in self.servers]
        if state != self._servers_seen:
            self._servers_seen, self._servers_changed = state, now
        ranks = list(self._ranks())
        self._look_at_processes(ranks, now)
        self._look_at_ranks(ranks, now)

    # --- processes that are stopped ------------------------------------------------------------------------------

    def _look_at_processes(self, ranks: list[dict[str, Any]], now: float) -> None:
        stopped = [p for p in descendants(psutil.Process()) if _is_stopped(p)]
        self._stopped = {p.pid: self._stopped.get(p.pid, now) for p in stopped}
        self._named &= self._stopped.keys()
        for process in stopped:
            if now - self._stopped[process.pid] >= STOPPED_SECONDS and process.pid not in self._named:
                self._named.add(process.pid)
                self._on_stopped(process, ranks)

    def _on_stopped(self, process: psutil.Process, ranks: list[dict[str, Any]]) -> None:
        what = f"is stopped (as by SIGSTOP) for {STOPPED_SECONDS:.0f} s"
        server = next((s for s in self.servers if process in s.tree()), None)
        if server is not None:
            self._on_server(server, f"hangs: its process {process.pid} ({_title(process)}) {what}")
            return
        for rank in ranks:
            if process.pid == rank["pid"]:
                text = f"rank {rank['rank']} (pid {process.pid}) {what}, {_doing(rank)}"
                raise HangError("trainer", text + _traces([process], self.trainer_log))
            is_verifier = "reward.workers" in command_line(process)
            if is_verifier and rank["pid"] in {parent.pid for parent in _parents(process)}:
                self.say(
                    f"HANG: verifier process {process.pid} of trainer rank {rank['rank']} {what}, {_doing(rank)}; its "
                    "task goes to another one"
                )
                return
        self.say(f"HANG: process {process.pid} ({_title(process)}) {what}; it is told to go on")
        process.send_signal(signal.SIGCONT)

    # --- phases --------------------------------------------------------------------------------------------------

    def _ranks(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self.folder.glob("rank*.json")):
            beat = self._readers.setdefault(path, live.Reader(path, None)).read()
            if beat is not None and psutil.pid_exists(beat["pid"]):
                yield beat

    def limit(self, beat: dict[str, Any]) -> float:
        """Seconds without progress that the phase of a heartbeat may take."""
        longest = beat["longest"].get(beat["phase"])
        return FACTOR * self.floor if longest is None else max(self.floor, FACTOR * longest)

    def _look_at_ranks(self, ranks: list[dict[str, Any]], now: float) -> None:
        mute = [
            rank for rank in ranks if now - rank["written"] > max(self.floor, FACTOR * rank["longest_mute"])
        ]
        for rank in mute:
            seconds = now - rank["written"]
            text = f"rank {rank['rank']} (pid {rank['pid']}) has run no Python for {seconds:.0f} s, {_doing(rank)}"
            raise HangError("trainer", text + _traces([psutil.Process(rank["pid"])], self.trainer_log))
        late = [rank for rank in ranks if self._seconds(rank, now) > self.limit(rank)]
        if not late:
            return
        if any(rank["phase"] in WAITS_FOR_SERVERS for rank in late):
            silent = [
                server
                for server in self.servers
                if server.is_ready and not answers(f"http://{server.address}/health", HEALTH_SECONDS)
            ]
            for server in silent:
                self._on_server(server, f"hangs: no answer, while {_told(late, now)}")
            if silent:
                return
        late.sort(key=lambda rank: rank["progress"])
        processes = [psutil.Process(rank["pid"]) for rank in late]
        raise HangError("trainer", _told(late, now) + _traces(processes, self.trainer_log))

    def _seconds(self, rank: dict[str, Any], now: float) -> float:
        """Since the last progress; a server that came or went meanwhile begins it anew."""
        since = rank["progress"]
        if rank["phase"] in WAITS_FOR_SERVERS:
            if not all(server.is_ready for server in self.servers):
                return 0.0
            since = max(since, self._servers_changed)
        return now - since

    def _on_server(self, server: Server, reason: str) -> None:
        self.say(f"HANG: server {server.address} {reason}{_traces(server.tree(), self.servers.log)}")
        self.servers.restart(server, "hung")


def _told(late: list[dict[str, Any]], now: float) -> str:
    return "; ".join(
        f"rank {rank['rank']} (pid {rank['pid']}) has got no further for {now - rank['progress']:.0f} s, {_doing(rank)}"
        for rank in late
    )


def _doing(rank: dict[str, Any]) -> str:
    return f"in phase {rank['phase']} of step {rank['step'] + 1}"


def _traces(processes: list[psutil.Process], log: Path) -> str:
    """Have the processes write into `log` where all their threads are, which ends them; that text."""
    size = log.stat().st_size
    for process in processes:
        try:
            process.send_signal(signal.SIGABRT)
            process.send_signal(signal.SIGCONT)  # a stopped one hears nothing before it goes on
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=3.0)
    with log.open("rb") as file:
        file.seek(size)
        dumps = file.read().decode(errors="replace").split("Fatal Python error")[1:]
    lines = [line for dump in dumps for line in _main_thread_first(dump)[: MAX_TRACE_LINES // len(dumps)]]
    return "".join(f"\n    {line}" for line in lines)


def _main_thread_first(dump: str) -> list[str]:
    """Lines of what faulthandler wrote of one process, where the main thread comes last."""
    threads = [block for block in dump.split("\n\n") if "(most recent call first)" in block]
    return "\n".join(reversed(threads)).splitlines()


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.NoSuchProcess:
        return False


def _parents(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.parents()
    except psutil.NoSuchProcess:
        return []


def _title(process: psutil.Process) -> str:
    return command_line(process)[:60].strip() if is_alive(process) else "ended"
