"""The processes behind `reward.pool`: a zygote that imports the verifiers once, and the workers it forks.

The trainer's process is never forked (it has threads and a GPU context). It starts this module in a fresh
interpreter, the zygote, which stays single-threaded and forks a warm worker in a few milliseconds whenever asked.
A worker scores one task at a time: length-prefixed JSON in, length-prefixed JSON out.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any

from reward.sandbox.confine import die_with_parent
from reward.types import Unavailable

LENGTH = struct.Struct("!I")
TAKEN = b"T"
PAGE_BYTES = resource.getpagesize()

_WARM_UP_MATH = (
    "\\frac{2\\sqrt{3}}{5}", "x^{2}+3x-1", "\\left(1,\\pi\\right)", "[0,\\infty)", "\\{1,2\\}", "y=\\sin 30^{\\circ}",
    "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "3 \\times 10^{5}", "25\\%", "x<5",
)  # fmt: skip
_WARM_UP_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40"><linearGradient id="g"><stop offset="0"/>'
    '</linearGradient><path d="M1 2L30 4" stroke="red" fill="url(#g)"/><text y="9" opacity="0.4">a</text></svg>'
)


def zygote_main(control_fd: int, parent_pid: int, scorer_name: str, headroom_bytes: int) -> None:
    """Serve fork and kill requests until the parent goes away.

    Messages: `fork` with the worker's socket attached is answered by its process id, `kill PID` by `done` once the
    worker and its process group are dead and reaped. The zygote alone reaps, so a process id never names a stranger.
    """
    die_with_parent(parent_pid)
    control = socket.socket(fileno=control_fd)
    scorer = load_scorer(scorer_name)
    if scorer is load_scorer("reward.workers.worker:score_task"):
        warm_up()
    gc.collect()
    gc.freeze()  # the imported modules stay shared with the workers, page by page
    control.send(b"ready")
    workers: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 64, 1)
        if not message:
            break
        if message == b"fork":
            pid = _fork_worker(control, descriptors[0], scorer, headroom_bytes)
            workers.add(pid)
            control.send(str(pid).encode())
        else:
            pid = int(message.removeprefix(b"kill "))
            _kill(pid, workers)
            control.send(b"done")
    for pid in list(workers):
        _kill(pid, workers)


def load_scorer(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The function `module:function` that turns a task into a reply."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def score_task(task: dict[str, Any]) -> dict[str, Any]:
    """Score one task {completion, answer, answer_type, options}: the reply is the fields of a RewardOutput.

    ValueError: the data is wrong. Anything a verifier raises about the model's answer comes back as `bug`, because
    only the references, checked first, may raise for reasons of ours.
    """
    from reward.score import checked_inputs, prepared_reference, score_local

    options = task["options"]
    rule, references = checked_inputs(
        task["completion"], task["answer"], task["answer_type"],
        options["prompt_type"], options["spec"], options["progress"],
    )  # fmt: skip
    for reference in references:
        prepared_reference(rule.verifier, reference, rule.params_key)
    try:
        output = score_local(task["completion"], task["answer"], task["answer_type"], **options)
    except (Unavailable, MemoryError):
        raise
    except ValueError as error:
        if str(error).startswith("spec."):
            raise
        return {"bug": traceback.format_exc()}
    except Exception:
        return {"bug": traceback.format_exc()}
    return {
        "total": output.total,
        "parts": output.parts,
        "status": output.status,
        "extracted": output.extracted,
        "trace": output.trace,
    }


def warm_up() -> None:
    """Judge one answer of each costly kind, so that a fresh worker's first task does not pay for lazy imports.

    The first LaTeX expression costs Math-Verify over a second of imports and grammar tables; a worker that began with
    it on a busy machine would be killed before it was warm, and so would the next one.
    """
    from reward.sandbox.session import SandboxUnavailable, available_layer
    from reward.score import score_local

    for expression in _WARM_UP_MATH:
        score_local(f"<answer>{expression}</answer>", expression, "math-expressions")
        score_local("<answer>x^{2}-\\frac{y}{3}</answer>", expression, "math-expressions")
    score_local(f"<answer>{_WARM_UP_SVG.replace('4', '5')}</answer>", _WARM_UP_SVG, "svg-code")
    with contextlib.suppress(SandboxUnavailable):  # raised again by whoever scores general-code
        available_layer()


def worker_main(connection: socket.socket, scorer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Score tasks until the connection closes.

    A task is answered twice: TAKEN at once, which starts its deadline, then {output} or {error, message}, with the
    `memory_bytes` in use.
    """
    while (request := receive(connection)) is not None:
        connection.sendall(TAKEN)
        try:
            reply: dict[str, Any] = {"output": scorer(json.loads(request))}
        except MemoryError:
            os._exit(1)  # the interpreter may be in any state; the pool sees a crash
        except Unavailable as error:
            reply = {"error": "Unavailable", "message": str(error)}
        except Exception as error:  # errors of our data: the caller's to hear
            reply = {"error": type(error).__name__, "message": str(error)}
        reply["memory_bytes"] = memory_pages()[1] * PAGE_BYTES
        send(connection, json.dumps(reply).encode())


def send(connection: socket.socket, payload: bytes) -> None:
    """Write one length-prefixed message."""
    connection.sendall(LENGTH.pack(len(payload)) + payload)


def receive(connection: socket.socket) -> bytes | None:
    """Read one length-prefixed message; None at the end of the connection."""
    head = _read_exactly(connection, LENGTH.size)
    return None if head is None else _read_exactly(connection, LENGTH.unpack(head)[0])


def memory_pages() -> tuple[int, int]:
    """(address space, resident) of this process in pages."""
    with open("/proc/self/statm") as file:
        total, resident, *_ = file.read().split()
    return int(total), int(resident)


def _read_exactly(connection: socket.socket, size: int) -> bytes | None:
    chunks = []
    while size:
        chunk = connection.recv(min(size, 1 << 20))
        if not chunk:
            return None
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def _fork_worker(
    control: socket.socket, descriptor: int, scorer: Callable[..., Any], headroom_bytes: int
) -> int:
    zygote = os.getpid()
    pid = os.fork()
    if pid:
        os.setpgid(pid, pid)  # in both processes: whichever runs first
        os.close(descriptor)
        return pid
    try:
        os.setpgid(0, 0)
        die_with_parent(zygote)
        control.close()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        limit = memory_pages()[0] * PAGE_BYTES + headroom_bytes
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]  # a browser lifts the limit and sets its own
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        worker_main(socket.socket(fileno=descriptor), scorer)
        os._exit(0)
    finally:
        os._exit(1)


def _kill(pid: int, workers: set[int]) -> None:
    """Kill a worker with its process group and reap it; the group id is safe because we have not reaped it before."""
    if pid not in workers:
        return
    workers.discard(pid)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    zygote_main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
