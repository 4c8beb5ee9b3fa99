"""The trainer's side of the zygote: start it, ask it for workers, have it kill them."""

import os
import socket
import subprocess
import sys

_START_SECONDS = 120.0  # importing the verifiers on a cold, busy machine
_ANSWER_SECONDS = 30.0
_BOOTSTRAP = """
import sys
sys.path[:] = {path!r}
from reward.workers.worker import zygote_main
zygote_main({descriptor}, {parent}, {scorer!r}, {headroom})
"""


class ZygoteDied(Exception):
    """The zygote process ended or does not answer; its workers are dead or dying with it."""


class Zygote:
    """A fresh interpreter with the verifiers imported, forking workers on request.

    It must be created and used by one thread that outlives it: the kernel's parent-death signal follows that thread.
    """

    def __init__(self, scorer: str, headroom_bytes: int) -> None:
        """Start it; `wait_ready` before the first fork."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = _BOOTSTRAP.format(
            path=[entry or os.getcwd() for entry in sys.path],
            descriptor=theirs.fileno(), parent=os.getpid(), scorer=scorer, headroom=headroom_bytes,
        )  # fmt: skip
        # One thread each: a BLAS thread pool would not survive the fork, and two workers share two cores.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
            start_new_session=True, env={**os.environ, **threads},
        )  # fmt: skip
        theirs.close()
        self.control = ours

    def wait_ready(self) -> None:
        """Block until the verifiers are imported. ZygoteDied: they cannot be (the reason is on stderr)."""
        self._answer(_START_SECONDS)
        self.control.settimeout(_ANSWER_SECONDS)

    def fork(self) -> tuple[int, socket.socket]:
        """A new worker: its process id and our end of its connection."""
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(self.control, [b"fork"], [theirs.fileno()])
            return int(self._answer(_ANSWER_SECONDS)), ours
        except (OSError, ZygoteDied) as error:
            ours.close()
            raise ZygoteDied(str(error)) from error
        finally:
            theirs.close()

    def kill(self, pid: int) -> None:
        """Kill a worker with its process group, and reap it."""
        try:
            self.control.send(b"kill %d" % pid)
        except OSError as error:
            raise ZygoteDied(str(error)) from error
        self._answer(_ANSWER_SECONDS)

    def close(self) -> None:
        """End the zygote and every worker."""
        self.control.close()
        try:
            self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self, seconds: float) -> bytes:
        self.control.settimeout(seconds)
        try:
            answer = self.control.recv(64)
        except OSError as error:
            raise ZygoteDied(f"the reward zygote does not answer: {error}") from error
        if not answer:
            raise ZygoteDied("the reward zygote ended; its own message is on stderr")
        return answer
