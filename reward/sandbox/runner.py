"""The program inside the sandbox: a warm interpreter that runs one solution on one test after another.

Standard library only: its text is handed to a bare interpreter. It reads requests as JSON lines from stdin and
answers each with one JSON line on stdout. Every test runs in a fork of its own, confined once more, so a test can
break nothing but itself. No expected output is ever known here; the answer is judged outside.

A record is written only after the code has ended as it should: code that leaves early (`os._exit(0)`) has none. Behind
it stands a nonce that exists for the test only then, so that a record written by the solution itself is none.
"""

import _socket
import fcntl
import io
import json
import os
import select
import signal
import struct
import sys
import time
import types
import typing

from reward.sandbox.confine import (
    allow_thread,
    die_with_parent,
    forbid_system_calls,
    hold_threads,
    limit_resources,
)

MAX_THREADS = 256  # that one test may start, ended ones included
_MAX_DEPTH = 100


def main() -> None:
    """Serve tests until stdin ends. First line: the setup {code, memory_bytes, output_bytes}; then one test a line."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    setup = json.loads(requests.readline())
    for line in requests:
        answers.write(json.dumps(run_test(setup, json.loads(line), null)).encode() + b"\n")
        answers.flush()


def run_test(setup: dict, test: dict, null: int) -> dict:
    """Outcome of one test: {outcome, stdout, record}; outcome is done, exit, timeout or output."""
    stdin = os.memfd_create("stdin")
    with os.fdopen(os.dup(stdin), "wb") as file:
        file.write(test.get("stdin", "").encode("utf-8", "surrogatepass"))
    os.lseek(stdin, 0, os.SEEK_SET)
    out_read, out_write = os.pipe()
    record_read, record_write = os.pipe()
    nonce_read, nonce_write = os.pipe()
    ours, theirs = _socket.socketpair()
    runner = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            die_with_parent(runner)
            limit_resources(int(test["time_limit_seconds"]) + 2, setup["memory_bytes"], setup["output_bytes"])
            listener = hold_threads()
            theirs.sendmsg([b"L"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", listener))])
            sources = (stdin, out_write, null, record_write, nonce_read)
            high = [fcntl.fcntl(source, fcntl.F_DUPFD, 16) for source in sources]
            for target, source in enumerate(high):
                os.dup2(source, target)
            os.closerange(len(sources), 4096)
            forbid_system_calls()
            run_solution(setup["code"], test)
        finally:
            os._exit(1)
    theirs.close()
    for descriptor in (stdin, out_write, record_write, nonce_read):
        os.close(descriptor)
    with os.fdopen(_received(ours), "rb", closefd=True) as listener:
        nonce = os.urandom(16).hex().encode()
        streams, outcome = collect(
            child, out_read, record_read, test["time_limit_seconds"], setup["output_bytes"],
            Companion(listener.fileno(), nonce_write, nonce),
        )  # fmt: skip
    record, _, proof = streams[1].partition(b"\n")
    if outcome == "done" and proof != nonce:
        outcome = "exit"
    text = record.decode("utf-8", "replace") if outcome == "done" else ""
    return {"outcome": outcome, "stdout": streams[0].decode("utf-8", "replace"), "record": text}


class Companion:
    """What the runner does for a test while it waits: answers requests for threads, and gives the nonce once.

    The nonce goes out when the first line of the record is complete and must come back behind it. A line that the
    solution wrote itself, before, beside or instead of the record, therefore makes none.
    """

    def __init__(self, listener: int, nonce_write: int, nonce: bytes) -> None:
        self.listener, self.nonce_write, self.nonce = listener, nonce_write, nonce
        self.threads_left = MAX_THREADS

    def thread_wanted(self) -> None:
        try:
            allow_thread(self.listener, self.threads_left > 0)
            self.threads_left -= 1
        except FileNotFoundError:
            return  # the one that asked has been killed

    def record_arrived(self, chunk: bytes) -> None:
        if b"\n" in chunk and self.nonce_write >= 0:
            os.write(self.nonce_write, self.nonce)
            self.close()

    def close(self) -> None:
        if self.nonce_write >= 0:
            os.close(self.nonce_write)
        self.nonce_write = -1


def collect(  # noqa: PLR0917
    child: int, out: int, record: int, seconds: float, limit: int, companion: Companion
) -> tuple[list[bytes], str]:
    """What the child wrote to `out` and `record` until it ended, then its end: done, timeout or output (too much)."""
    deadline = time.monotonic() + seconds
    chunks: dict[int, list[bytes]] = {out: [], record: []}
    size, outcome, open_pipes = 0, "done", {out, record}
    poll = select.poll()
    for descriptor in (out, record, companion.listener):
        poll.register(descriptor, select.POLLIN)
    while open_pipes and outcome == "done":
        ready = poll.poll(max(deadline - time.monotonic(), 0) * 1000)
        if not ready or time.monotonic() > deadline:
            outcome = "timeout"
        for descriptor, event in ready:
            if descriptor == companion.listener:
                if event & select.POLLIN:
                    companion.thread_wanted()
                else:
                    poll.unregister(descriptor)
                continue
            chunk = os.read(descriptor, 1 << 16)
            chunks[descriptor].append(chunk)
            size += len(chunk)
            if descriptor == record:
                companion.record_arrived(chunk)
            if not chunk:
                open_pipes.discard(descriptor)
                poll.unregister(descriptor)
            if size > limit:
                outcome = "output"
    if outcome == "done" and not _ends(child, deadline):
        outcome = "timeout"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    companion.close()
    os.close(out)
    os.close(record)
    return [b"".join(chunks[out]), b"".join(chunks[record])], outcome


def _ends(child: int, deadline: float) -> bool:
    """Whether a child whose pipes are closed, perhaps on purpose, ends within its time."""
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def _received(connection: object) -> int:
    """The descriptor that the child sent. OSError: it died first, so this kernel has no such filters."""
    _, ancillary, _, _ = connection.recvmsg(1, _socket.CMSG_SPACE(4))
    connection.close()
    if not ancillary:
        raise OSError(
            "seccomp: this kernel cannot hold system calls (before Linux 5.5), so threads have no bound"
        )
    return struct.unpack("i", ancillary[0][2])[0]


def run_solution(code: str, test: dict) -> None:
    """Run the solution in this (confined) process and write its record to descriptor 3; never returns normally."""
    sys.stdin = io.TextIOWrapper(open(0, "rb", closefd=False), encoding="utf-8", errors="replace")  # noqa: SIM115
    out = CountedOutput(1, "wb", closefd=False)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(out), encoding="utf-8", errors="replace")
    printed, with_stdin = sys.stdout, "expression" not in test and "call" not in test
    module = types.ModuleType("__main__" if with_stdin else "solution")
    for name in [name for name in sys.modules if name.partition(".")[0] == "reward"]:
        del sys.modules[name]
    sys.modules["__main__"] = sys.modules[module.__name__] = module
    namespace = module.__dict__
    # `List[int]` without its import
    namespace.update({name: getattr(typing, name) for name in typing.__all__})
    try:
        exec(compile(code, "<solution>", "exec"), namespace)  # the sandbox exists for this line
    except SystemExit as stop:
        if not with_stdin or stop.code not in (None, 0):
            os._exit(1)
    value = None
    if "expression" in test:
        exec(compile(f"_value = ({test['expression']}\n)", "<test>", "exec"), namespace)
        value = namespace["_value"]
    elif "call" in test:
        value = find(namespace, test["call"])(*test["args"], **test["kwargs"])
    else:
        printed.flush()
        solve = namespace.get("solution")
        if isinstance(solve, types.FunctionType) and out.num_bytes == 0 and wants_input(solve):
            result = solve(test["stdin"])
            if result is not None:
                print(result, file=printed)
    record = json.dumps({"value": encode(value, 0)}).encode()
    sys.stdout.flush()
    printed.flush()
    os.write(3, record + b"\n")
    os.write(3, os.read(4, 64))
    os._exit(0)


class CountedOutput(io.FileIO):
    """Standard output that knows how much was written."""

    num_bytes = 0

    def write(self, data: object) -> int:
        self.num_bytes += len(data)
        return super().write(data)


def wants_input(function: types.FunctionType) -> bool:
    """Whether a function takes one argument: `def solution(input)` gets the whole input as one string."""
    code, defaults = function.__code__, function.__defaults__ or ()
    return code.co_argcount - len(defaults) <= 1 <= code.co_argcount and not code.co_kwonlyargcount


def find(namespace: dict, name: str) -> object:
    """The named function, or the method of that name of a class called Solution."""
    if name in namespace:
        return namespace[name]
    return getattr(namespace["Solution"](), name)


def encode(value: object, depth: int) -> list:  # noqa: PLR0911 one return per kind of value
    """[type, content] of plain data by exact type; an object that merely claims to be equal becomes ["other", name]."""
    kind = type(value)
    if depth > _MAX_DEPTH:
        return ["other", "too deep"]
    if value is None or kind is bool or kind is str:
        return [kind.__name__, value]
    if kind is int:
        return ["int", hex(value)]
    if kind is float:
        return ["float", value.hex()]
    if kind is complex:
        return ["complex", [value.real.hex(), value.imag.hex()]]
    if kind is bytes:
        return ["bytes", value.hex()]
    if kind in (list, tuple, set, frozenset):
        return [kind.__name__, [encode(item, depth + 1) for item in value]]
    if kind is dict:
        return ["dict", [[encode(key, depth + 1), encode(item, depth + 1)] for key, item in value.items()]]
    return ["other", kind.__name__]
