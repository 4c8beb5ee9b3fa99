"""Run untrusted Python: choose a layer that provably contains it, then talk to the runner inside.

Layers, best first: bubblewrap (empty root, own namespaces, read-only interpreter), then the same interpreter
confining itself with namespaces and Landlock. Both add, per test, rlimits and a seccomp filter. A layer counts as
available only when a hostile probe run inside it can do its sums but neither read or change a file of ours, nor reach
a socket of ours, nor start a process or endless threads, nor touch the process that started it. When none passes,
`SandboxUnavailable` names what failed.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from reward.sandbox.runner import MAX_THREADS
from reward.types import Unavailable

MEMORY_BYTES = 512 << 20  # address space of one test
OUTPUT_BYTES = 4 << 20  # stdout and record of one test together; also the largest file it may write
_MAX_ANSWER_BYTES = 8 * OUTPUT_BYTES
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",  # sets iterate in the same order each run
    "PATH": "/usr/local/bin:/usr/bin:/bin",
}
_MODULES = ("confine", "runner", "native")
_NUM_ATTEMPTS = 16  # lines that the probe prints


class SandboxUnavailable(Unavailable):
    """No layer contains untrusted code on this machine; the message names each probe that failed."""


class SandboxDied(Exception):
    """The sandbox ended, or fell silent, before it answered."""


class Outcome(NamedTuple):
    """One test as the runner saw it.

    end: `done`, `exit` (no completion record), `timeout` or `output` (too much of it). record: "" or the JSON text
    {"value": [type, content] or null}, written by the solution's process and therefore not to be trusted.
    """

    end: str
    stdout: str
    record: str


class Session:
    """One sandbox with one solution: `run` its tests one after another."""

    def __init__(self, process: subprocess.Popen[bytes], setup: Mapping[str, Any]) -> None:
        self._process = process
        self._buffer = b""
        self._send(setup)

    def run(self, test: Mapping[str, Any], seconds: float) -> Outcome:
        """Run one test ({stdin}, {expression} or {call, args, kwargs}) for at most `seconds` of wall time.

        SandboxDied: the sandbox ended or did not answer in time.
        """
        self._send({**test, "time_limit_seconds": seconds})
        answer = self._receive(time.monotonic() + seconds + 3.0)
        return Outcome(answer["outcome"], answer["stdout"], answer["record"])

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise SandboxDied(f"the sandbox ended: {error}") from error

    def _receive(self, deadline: float) -> dict[str, str]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        chunks = []
        size = 0
        while True:
            if not select.select([descriptor], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise SandboxDied("the sandbox did not answer in time")
            chunk = os.read(descriptor, 1 << 20)
            size += len(chunk)
            chunks.append(chunk)
            if not chunk or size > _MAX_ANSWER_BYTES:
                raise SandboxDied(
                    "the sandbox ended before it answered" if not chunk else "too long an answer"
                )
            if chunk.endswith(b"\n"):
                return json.loads(b"".join(chunks))


@contextmanager
def open_session(code: str, layer: str | None = None) -> Iterator[Session]:
    """A sandbox around `code` on the best layer, killed with everything in it on leaving.

    SandboxUnavailable: no layer works here. SandboxDied: it did not start this time.
    """
    layer = layer or available_layer()
    command = LAYERS[layer]()
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_ENVIRONMENT,
        cwd="/",
    )
    try:
        yield Session(process, _setup(code))
    finally:
        _end(process)
        for stream in (process.stdin, process.stdout):
            _close_quietly(stream)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the sandbox from the inside out.

    Its outer process reaps the inner one and ends with it. Killed first, it would leave an orphan to be reaped by
    whoever adopts it, which process 1 of a container often does not do: one entry of the process table per answer.
    """
    for child in _children(process.pid):
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1.0)
    process.kill()
    process.wait()


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended, or this kernel keeps no such list
        return []


def _close_quietly(stream: Any) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        return  # unsent bytes of a sandbox that is already dead


def _setup(code: str) -> dict[str, Any]:
    return {"code": code, "memory_bytes": MEMORY_BYTES, "output_bytes": OUTPUT_BYTES}


@cache
def available_layer() -> str:
    """Name of the first layer that passes its probe; probed once per process."""
    failures = []
    for layer in LAYERS:
        failure = probe(layer)
        if failure is None:
            return layer
        failures.append(f"{layer}: {failure}")
    raise SandboxUnavailable(
        "general-code needs a sandbox and none works here. Failed probes: " + "; ".join(failures) + ". "
        "Install bubblewrap (apt-get install bubblewrap) and allow user namespaces, or use a kernel with Landlock."
    )


# Attempts by name, each on a file of ours and on the one device in reach; what would succeed changes nothing there.
_PROBE = """
import _thread, ctypes, os, resource, socket
def attempt(action):
    try:
        action()
        return "escaped"
    except (OSError, RuntimeError):
        return "contained"
def connect():
    socket.create_connection(("127.0.0.1", int(port)), 1).close()
def threads():
    _thread.stack_size(65536)
    lock = _thread.allocate_lock()
    lock.acquire()
    for _ in range(MAX_THREADS + 1):
        _thread.start_new_thread(lock.acquire, ())
def set_flags(name):
    import fcntl
    fcntl.ioctl(os.open(name, os.O_RDONLY), 0x40086602, bytes(8))
path, port = input().split("|")
print("sum:" + str(6 * 7))
for name, action in {"network": connect, "process": lambda: os.fork() or os._exit(0), "threads": threads,
                     "signal": lambda: os.kill(os.getppid(), 0),
                     "scratch": lambda: os.open("/tmp", os.O_TMPFILE | os.O_WRONLY),
                     "limits": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CPU)}.items():
    print(name + ":" + attempt(action))
for name, action in {
    "read": lambda name: open(path).read(), "chmod": lambda name: os.chmod(name, 0o666),
    "chown": lambda name: os.chown(name, -1, -1), "utime": lambda name: os.utime(name, (0, 0)) if name == path
    else os.utime(name, ns=(os.stat(name).st_atime_ns, os.stat(name).st_mtime_ns)),
    "setxattr": lambda name: os.setxattr(name, "user.probe", b"1"), "truncate": lambda name: os.truncate(name, 0),
    "rename": lambda name: os.rename(name, name), "link": lambda name: os.link(name, path + "2"),
    "flags": set_flags,
}.items():
    print(name + ":" + attempt(lambda: action(path)) + ":" + attempt(lambda: action("/dev/null")))
""".replace("MAX_THREADS", str(MAX_THREADS))


def probe(layer: str) -> str | None:
    """None when `layer` runs code and contains it, otherwise what went wrong."""
    writable = Path.cwd() if os.access(".", os.W_OK) else None
    with (
        tempfile.NamedTemporaryFile(dir=writable, prefix=".sandbox-probe-") as canary,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        canary.write(b"untouched")
        canary.flush()
        before = os.stat(canary.name)
        stdin = f"{canary.name}|{server.getsockname()[1]}"
        try:
            with open_session(_PROBE, layer) as session:
                outcome = session.run({"stdin": stdin}, 10.0)
        except (OSError, SandboxDied) as error:
            return f"{error} ({_diagnosis(layer)})"
        touched = os.stat(canary.name) != before
    found = outcome.stdout.split()
    escaped = [attempt for attempt in found if "escaped" in attempt]
    if escaped or touched:
        return f"not contained: {', '.join(escaped) or 'a file of ours has changed'}"
    if outcome.end != "done" or len(found) != _NUM_ATTEMPTS or found[0] != "sum:42":
        return f"the probe did not run to its end: {found} ({outcome.end})"
    return None


def _diagnosis(layer: str) -> str:
    """What the layer's command itself says when it is given nothing to do."""
    try:
        result = subprocess.run(
            LAYERS[layer](),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
            env=_ENVIRONMENT,
            cwd="/",
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = result.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {result.returncode}"


def bubblewrap_command() -> list[str]:
    """bwrap with an empty root, the interpreter read-only, nothing writable, no network, the runner as process 1."""
    command = ["bwrap", "--unshare-all", "--as-pid-1", "--die-with-parent", "--new-session", "--clearenv"]
    command += ["--cap-drop", "ALL", "--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/lib", "/lib64"):
        if os.path.islink(name):
            command += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            command += ["--ro-bind", name, name]
    prefix = _interpreter_prefix()
    if not prefix.startswith("/usr/"):
        command += ["--ro-bind", prefix, prefix]
    # The inode of /dev/null is the host's and no user namespace may make another: seccomp keeps it as it is.
    command += ["--dev-bind", "/dev/null", "/dev/null"]
    command += ["--remount-ro", "/", "--chdir", "/", "--setenv", "PYTHONHASHSEED", "0", "--"]
    return command + _interpreter("from reward.sandbox.runner import main; main()")


def native_command() -> list[str]:
    """The bare interpreter, which unshares its namespaces and restricts itself with Landlock before it serves."""
    readable = ["/usr", "/lib", "/lib64", _interpreter_prefix()]
    return _interpreter(
        f"from reward.sandbox.native import confined_main; confined_main({os.getpid()}, {readable!r})"
    )


LAYERS: dict[str, Callable[[], list[str]]] = {"bubblewrap": bubblewrap_command, "landlock": native_command}


def _interpreter_prefix() -> str:
    return os.path.realpath(sys.base_prefix)


def _interpreter(statement: str) -> list[str]:
    """argv of the base interpreter (not the virtual environment's) running `statement` with our modules built in."""
    version = sysconfig.get_config_var("LDVERSION") or f"{sys.version_info.major}.{sys.version_info.minor}"
    executable = os.path.join(_interpreter_prefix(), "bin", f"python{version}")
    return [executable, "-s", "-P", "-S", "-B", "-c", _program() + statement]


@cache
def _program() -> str:
    """Source that defines the package `reward.sandbox` with these modules alone, from their text."""
    sources = {
        f"reward.sandbox.{name}": (Path(__file__).parent / f"{name}.py").read_text() for name in _MODULES
    }
    return (
        "import sys, types\n"
        "for name in ('reward', 'reward.sandbox'):\n"
        "    sys.modules[name] = types.ModuleType(name)\n"
        f"for name, source in {sources!r}.items():\n"
        "    module = sys.modules[name] = types.ModuleType(name)\n"
        "    exec(compile(source, name, 'exec'), module.__dict__)\n"
    )
