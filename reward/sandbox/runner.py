"""The program inside the sandbox: a warm interpreter that runs one solution on one test after another.

Standard library only: its text is handed to a bare interpreter. It reads requests as JSON lines from stdin and
answers each with one JSON line on stdout. Every test runs in a fork of its own, confined once more, so a test can
break nothing but itself. No expected output is ever known here; the answer is judged outside.

A record is written only after the code has ended as it should: code that leaves early (`os._exit(0)`) has none.
"""

import io
import json
import os
import select
import signal
import sys
import time

from reward.sandbox.confine import die_with_parent, forbid_system_calls, limit_resources

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
    runner = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            die_with_parent(runner)
            for source, target in ((stdin, 0), (out_write, 1), (null, 2)):
                os.dup2(source, target)
            os.dup2(record_write, 3)
            os.closerange(4, 4096)
            seconds = int(test["time_limit_seconds"]) + 2
            limit_resources(seconds, setup["memory_bytes"], setup["output_bytes"])
            forbid_system_calls()
            run_solution(setup["code"], test)
        finally:
            os._exit(1)
    for descriptor in (stdin, out_write, record_write):
        os.close(descriptor)
    streams, outcome = collect(
        child, (out_read, record_read), test["time_limit_seconds"], setup["output_bytes"]
    )
    record = streams[1].decode("utf-8", "replace")
    if outcome == "done" and not record:
        outcome = "exit"
    return {"outcome": outcome, "stdout": streams[0].decode("utf-8", "replace"), "record": record}


def collect(child: int, pipes: tuple[int, ...], seconds: float, limit: int) -> tuple[list[bytes], str]:
    """What the child wrote to each pipe until it ended, then its end: done, timeout or output (too much of it)."""
    deadline = time.monotonic() + seconds
    chunks: dict[int, list[bytes]] = {pipe: [] for pipe in pipes}
    size, outcome, open_pipes = 0, "done", set(pipes)
    while open_pipes and outcome == "done":
        ready = select.select(list(open_pipes), [], [], max(deadline - time.monotonic(), 0))[0]
        if not ready:
            outcome = "timeout"
        for pipe in ready:
            chunk = os.read(pipe, 1 << 16)
            chunks[pipe].append(chunk)
            size += len(chunk)
            if not chunk:
                open_pipes.discard(pipe)
            if size > limit:
                outcome = "output"
    if outcome == "done":  # the pipes are closed, perhaps on purpose: the time limit still holds
        while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > deadline:
                outcome = "timeout"
                break
            time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for pipe in pipes:
        os.close(pipe)
    return [b"".join(chunks[pipe]) for pipe in pipes], outcome


def run_solution(code: str, test: dict) -> None:
    """Run the solution in this (confined) process and write its record to descriptor 3; never returns normally."""
    sys.stdin = io.TextIOWrapper(open(0, "rb", closefd=False), encoding="utf-8", errors="replace")  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8", errors="replace")  # noqa: SIM115
    with_stdin = "expression" not in test and "call" not in test
    namespace = {"__name__": "__main__" if with_stdin else "solution", "__builtins__": __builtins__}
    try:
        exec(compile(code, "<solution>", "exec"), namespace)  # the sandbox exists for this line
    except SystemExit as stop:
        if not with_stdin or stop.code not in (None, 0):
            os._exit(1)
    record = None
    if "expression" in test:
        exec(compile(f"_value = ({test['expression']}\n)", "<test>", "exec"), namespace)
        record = encode(namespace["_value"], 0)
    elif "call" in test:
        record = encode(find(namespace, test["call"])(*test["args"], **test["kwargs"]), 0)
    sys.stdout.flush()
    os.write(3, (json.dumps({"value": record}) + "\n").encode())
    os._exit(0)


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
