"""Run a CPU server as a child process, for tests and small offline jobs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import sglang_cpu


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _tail(path: Path, num_lines: int = 30) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-num_lines:])


def stop(process: subprocess.Popen, timeout_seconds: float = 10.0) -> None:
    """End the server and its children, which share a process group; waits until all are gone."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout_seconds if sign == signal.SIGTERM else None)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


@contextmanager
def running_server(
    model_path: str | os.PathLike,
    *,
    log_path: str | os.PathLike,
    options: Mapping[str, str | int | bool] | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 180.0,
    module: str = "sglang_cpu.launch_server",
) -> Iterator[str]:
    """Start a server on a free port of 127.0.0.1, yield its URL when it is healthy, stop it afterwards.

    `module` is what Python runs. `options` and `environment` are added to `sglang_cpu.flags()` and
    `sglang_cpu.environment()`, and win.
    Raises RuntimeError with the end of the log when the server dies or is not healthy in time.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = {"model-path": str(model_path), "host": "127.0.0.1", "port": port, **(options or {})}
    log = Path(log_path)
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *sglang_cpu.command_line(arguments)],
            env={**os.environ, **sglang_cpu.environment(), **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + timeout_seconds
        while not _is_ready(url):
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with status {process.returncode}; {log}:\n{_tail(log)}")
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"the server is not healthy after {timeout_seconds} s; {log}:\n{_tail(log)}"
                )
            time.sleep(0.25)
        yield url
    finally:
        stop(process)
