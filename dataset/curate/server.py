"""An SGLang server of our own: its command line, its start, its end. It dies with the process that started it."""

import asyncio
import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.curate.engine import Engine

POLL_SECONDS = 0.5
TAIL_BYTES = 3000
NUM_PORTS = 3  # tries
PORTS = range(20_000, 30_000)
PORT_TAKEN = "address already in use"
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ServerFailed(RuntimeError):
    """The server did not start; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How servers are started."""

    model_path: str
    device: str  # "cuda" or "cpu"
    log_dir: str
    seeded: bool = False
    context_length: int | None = None
    start_timeout_seconds: float = 900.0
    extra_arguments: tuple[str, ...] = ()  # passed on to SGLang as they are


def command_line(options: ServerOptions, port: int) -> list[str]:
    """The command that serves the model on 127.0.0.1."""
    flags: list[str] = [
        "--model-path",
        options.model_path,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--trust-remote-code",
        "--enable-multimodal",
        "--skip-tokenizer-init",  # ids in, ids out: nothing is tokenised twice
        "--log-level",
        "warning",
    ]
    if options.context_length is not None:
        flags += ["--context-length", str(options.context_length)]
    if options.seeded:
        # Overlapped scheduling would call the logit processor before it knows the last token's position.
        flags += ["--enable-custom-logit-processor", "--disable-overlap-schedule"]
    module = "sglang_cpu.launch_server" if options.device == "cpu" else "sglang.launch_server"
    if options.device != "cpu":
        flags += ["--mem-fraction-static", "0.8"]
    return [sys.executable, "-m", module, *flags, *options.extra_arguments]


def environment(device: str) -> dict[str, str]:
    """The server's environment: ours, what the model needs and, on CPU, what the CPU run needs."""
    import llavaonevision1_5

    variables = {**os.environ, **llavaonevision1_5.sglang_environment()}
    if device == "cpu":
        import sglang_cpu

        variables |= sglang_cpu.environment()
    return variables


class Server:
    """One server process."""

    def __init__(self, options: ServerOptions, name: str) -> None:
        self.options, self.name = options, name
        self.process: subprocess.Popen | None = None
        self.address = ""
        self.log_path = Path(options.log_dir) / f"server-{name}.log"
        self._num_starts = 0

    async def start(self) -> str:
        """Start and wait until healthy; returns the address. Raises ``ServerFailed`` with the log's end."""
        for attempt in range(NUM_PORTS):
            try:
                return await self._start_on(free_port())
            except ServerFailed as error:
                # A server binds its port a minute after it was found free; somebody may have been faster.
                if PORT_TAKEN not in str(error).lower() or attempt == NUM_PORTS - 1:
                    raise
        raise AssertionError("unreachable")

    async def _start_on(self, port: int) -> str:
        self.address = f"http://127.0.0.1:{port}"
        self._num_starts += 1
        self.log_path = Path(self.options.log_dir) / f"server-{self.name}-{self._num_starts}.log"
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command_line(self.options, port),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment(self.options.device),
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one libc call that was loaded before the fork
            )
        engine = Engine(self.address)
        await engine.open()
        limit = self.options.start_timeout_seconds
        try:
            await asyncio.wait_for(self._until_healthy(engine), limit)
        except TimeoutError as error:
            tail = self.log_tail()
            self.stop()
            raise ServerFailed(
                f"server {self.name} was not healthy after {limit:.0f} s; end of {self.log_path}:\n{tail}"
            ) from error
        except BaseException:
            self.stop()
            raise
        finally:
            await engine.close()
        return self.address

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """End the server and every process that it started."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):  # the whole group is gone already
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def log_tail(self) -> str:
        """The last lines of the log."""
        if not self.log_path.exists():
            return "(no log)"
        with self.log_path.open("rb") as log:
            log.seek(max(0, self.log_path.stat().st_size - TAIL_BYTES))
            return log.read().decode("utf-8", "replace")

    async def _until_healthy(self, engine: Engine) -> None:
        while not await engine.healthy():
            if not self.alive or PORT_TAKEN in self.log_tail().lower():
                code = self.process.returncode if self.process else None
                raise ServerFailed(
                    f"server {self.name} ended with code {code}; end of {self.log_path}:\n{self.log_tail()}"
                )
            await asyncio.sleep(POLL_SECONDS)


def free_port() -> int:
    """A TCP port that is free at this moment, below the range from which the system serves outgoing connections."""
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerFailed(f"no free port from {PORTS.start} to {PORTS.stop - 1}")


def split_addresses(texts: Sequence[str]) -> tuple[str, ...]:
    """Server addresses from command-line words that may hold commas."""
    return tuple(address for text in texts for address in text.split(",") if address)


def _die_with_parent() -> None:
    # Runs in the child between fork and exec. Without it a killed run would leave a server holding GPU memory.
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
