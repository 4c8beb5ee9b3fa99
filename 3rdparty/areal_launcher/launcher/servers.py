"""The servers of a run as the launcher sees them: which are alive, and how a dead one comes back.

A server is started again by the launcher itself with the command line it had, at another port: a request meant for the
dead one cannot reach the new one, which begins with the weights of `actor.path`. The trainer loads the current weights
into it before it sends a request there (trains/host/servers.py). Docs: docs/runs.md.
"""

from __future__ import annotations

import ctypes
import shlex
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from areal.launcher import live
from areal.utils.network import find_free_ports

PR_SET_PDEATHSIG = 1
PORTS = (10000, 32767)
PROBE_SECONDS = 2.0  # of one question whether a new server is ready
START_SECONDS = 1200.0  # as long as AReaL waits for the first ones


_libc = ctypes.CDLL(None, use_errno=True)


class ServerLostError(Exception):
    """A server died more often than `launcher.max_server_restarts` allows, or does not start any more."""


@dataclass
class Server:
    """One server: `process` is its main one, `inner` its scheduler and detokenizer, without which it is dead."""

    address: str
    argv: list[str]
    environment: dict[str, str]  # beside that of the launcher's jobs
    process: psutil.Process
    inner: list[psutil.Process] = field(default_factory=list)
    popen: subprocess.Popen | None = None  # where it is a child of this process
    is_ready: bool = True
    since: float = field(default_factory=time.monotonic)
    probed: float = 0.0

    @property
    def port(self) -> str:
        return self.address.rpartition(":")[2]

    def fault(self) -> str | None:
        """How it has ended; None while it lives."""
        if self.popen is not None and self.popen.poll() is not None:
            return how_it_ended(self.popen.returncode)
        if not is_alive(self.process):
            return f"died (process {self.process.pid})"
        dead = next((p for p in self.inner if not is_alive(p)), None)
        return None if dead is None else f"lost its process {dead.pid}"

    def tree(self) -> list[psutil.Process]:
        """Every process of it that can be found."""
        return list({p.pid: p for p in [*self.inner, *descendants(self.process), self.process]}.values())


class Servers:
    """All servers of a run.

    Args:
        folder: the run's `.live`.
        log: what servers print goes there.
        environment: of the job that started them.
        max_restarts: of all servers together.
        say: prints a line for people.
    """

    def __init__(
        self,
        folder: Path,
        log: Path,
        environment: dict[str, str],
        max_restarts: int,
        say: Callable[[str], None],
    ):
        self.folder, self.log, self.environment, self.say = folder, log, environment, say
        self.max_restarts, self.num_restarts = max_restarts, 0
        self._servers: list[Server] = []

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers)

    def adopt(self) -> None:
        """Take over the servers that the wrapper has started, all of which are ready."""
        for path in sorted(self.folder.glob("server-*.json")):
            noted = live.Reader(path, None).read()
            try:
                process = psutil.Process(noted["pid"])
            except psutil.NoSuchProcess as error:
                raise ServerLostError(f"server {noted['address']} died as soon as it was ready") from error
            server = Server(noted["address"], noted["argv"], noted["environment"], process)
            server.inner = _helpers(process)
            self._servers.append(server)
        self._publish()

    def watch(self) -> None:
        """Start again what has died, and see whether what was started is ready.

        Raises ServerLostError, see there.
        """
        for server in self._servers:
            fault = server.fault()
            if fault is not None:
                self.restart(server, fault)
            elif not server.is_ready:
                self._probe(server)

    def restart(self, server: Server, reason: str) -> None:
        """End what is left of a server and start it again."""
        self.num_restarts += 1
        name = f"server {server.address} {reason}"
        if self.num_restarts > self.max_restarts:
            raise ServerLostError(f"{name}; launcher.max_server_restarts={self.max_restarts} are used up")
        server.is_ready = False
        self._publish()
        self.say(f"{name}; it is started again ({self.num_restarts} of {self.max_restarts})")
        end(server.tree())
        self._start(server)

    def lose_all(self, reason: str) -> None:
        """Start every server again that the wrapper had started: nobody would end them if this process were killed."""
        for server in self._servers:
            if server.popen is None:
                self.restart(server, reason)

    def _start(self, server: Server) -> None:
        port, other = find_free_ports(2, PORTS)
        host = server.address.rpartition(":")[0]
        server.argv = with_option(server.argv, "--port", str(port))
        server.argv = with_option(server.argv, "--dist-init-addr", f"localhost:{other}")
        server.address, server.since, server.inner = f"{host}:{port}", time.monotonic(), []
        with self.log.open("ab") as sink:
            sink.write(f"\n=== {time.strftime('%F %T')} again: {shlex.join(server.argv)}\n".encode())
            sink.flush()
            server.popen = subprocess.Popen(
                server.argv,
                env={**self.environment, **server.environment},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_killed_with_parent,  # noqa: PLW1509 -- this process has one thread
            )
        server.process = psutil.Process(server.popen.pid)

    def _probe(self, server: Server) -> None:
        now = time.monotonic()
        if now - server.since > START_SECONDS:
            self.restart(server, f"was not ready {START_SECONDS:.0f} s after its start")
            return
        if now - server.probed < PROBE_SECONDS / 4:
            return
        server.probed = now
        if not answers(f"http://{server.address}/health", PROBE_SECONDS):
            return
        server.inner, server.is_ready = _helpers(server.process), True
        self._publish()
        self.say(f"server {server.address} is ready, {now - server.since:.0f} s after its start")

    def _publish(self) -> None:
        content = {
            "ready": [server.address for server in self._servers if server.is_ready],
            "all": [server.address for server in self._servers],
            "lost": self.num_restarts,
        }
        live.write(self.folder / "servers.json", content)


def with_option(argv: list[str], name: str, value: str) -> list[str]:
    """The command line with another value behind `name`; as it is where it does not have the option."""
    if name not in argv:
        return argv
    place = argv.index(name) + 1
    return [*argv[:place], value, *argv[place + 1 :]]


def answers(url: str, seconds: float) -> bool:
    """Whether there is an answer of status 200 within so many seconds."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def end(processes: list[psutil.Process]) -> None:
    """Kill them and wait until they are gone."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=5.0)


def how_it_ended(status: int) -> str:
    """An exit status in words."""
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """Children, their children and so on; none where it has ended."""
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def command_line(process: psutil.Process) -> str:
    """Empty where it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs or is stopped, and is no dead one that nobody has waited for."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _helpers(process: psutil.Process) -> list[psutil.Process]:
    """Scheduler and detokenizer: SGLang survives their `kill -9` mute."""
    return [p for p in descendants(process) if "resource_tracker" not in command_line(p)]


def _killed_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
