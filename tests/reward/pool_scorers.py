"""Scorers that test_pool.py puts in place of the verifiers: each obeys a command in the completion."""

import ctypes
import os
import signal
import time
from typing import Any

_hoard: list[bytes] = []


def obey(task: dict[str, Any]) -> dict[str, Any]:
    """Do what the completion says; the score is that of a right answer, `extracted` names the process."""
    command, _, argument = task["completion"].partition(" ")
    if command == "hang":
        while True:
            pass
    if command == "sleep":
        time.sleep(float(argument))
    if command == "segfault":
        ctypes.string_at(0)
    if command == "stop-once" and not os.path.exists(argument):
        open(argument, "w").close()
        os.kill(os.getpid(), signal.SIGSTOP)
    if command == "exit":
        os._exit(3)
    if command == "allocate":
        bytearray(int(argument) << 20)
    if command == "grow":
        _hoard.append(b"x" * (int(argument) << 20))
    if command == "children":  # a grandchild that must die with its worker
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        time.sleep(60)
    if command == "bad-data":
        raise ValueError("answer: not readable")
    if command == "bug":
        return {"bug": "Traceback\n  line\nKeyError: 'x'"}
    return {
        "total": 1.0,
        "parts": {"accuracy": 1.0},
        "status": "ok",
        "extracted": str(os.getpid()),
        "trace": [],
    }
