"""Calls of tools in killable worker processes, those of the rewards (`reward.workers`)."""

from __future__ import annotations

import asyncio
import json
import logging
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from reward.types import Unavailable
from reward.workers.dispatch import Dispatcher, Limits, Task

logger = logging.getLogger(__name__)


class ToolFailed(RuntimeError):
    """A call did not come to its end: `fault` is tool_timeout or tool_crash."""

    def __init__(self, fault: str, message: str):
        super().__init__(message)
        self.fault = fault


class ToolPool:
    """A few warm workers behind `call`; made where a configuration has tools, closed with the run.

    num_workers: workers that share the queue; max_workers: those counted that are stuck until their deadline.
    with_python: whether `python` may be called, whose sandbox is then tried out at the start.
    runner: `module:function` that runs a task inside the worker; the tests replace it.
    """

    def __init__(
        self,
        num_workers: int = 2,
        *,
        max_workers: int = 16,
        with_python: bool = True,
        runner: str | None = None,
    ) -> None:
        limits = Limits(num_workers, max_workers, 0.5, 1024 << 20, 512 << 20)
        module = "dataset.agent.worker_python" if with_python else "dataset.agent.worker"
        self._dispatcher = Dispatcher(runner or f"{module}:run_task", limits)
        self._dispatcher.start()
        self._finalizer = weakref.finalize(self, self._dispatcher.close)

    async def call(
        self, name: str, arguments: Mapping[str, Any], context: Mapping[str, Any], seconds: float
    ) -> dict[str, Any]:
        """The reply of a tool, {"refused": message} where it does not do what is asked.

        Raises ToolFailed for a worker that was killed or died, `reward.Unavailable` where this machine lacks what the
        tool needs, RuntimeError if the pool is closed.
        """
        task = {"name": name, "arguments": dict(arguments), "context": {**context, "seconds": seconds}}
        payload = await asyncio.to_thread(lambda: json.dumps(task).encode())  # it may hold a photograph
        future: Future = Future()
        record = (context.get("image") or {}).get("record") or {}
        key = (name, record.get("path") or hash(record.get("base64")))  # one worker keeps an image open
        self._dispatcher.submit(Task(key=key, payload=payload, deadline_seconds=seconds, future=future))
        reply = await asyncio.wrap_future(future)
        if reply.get("lost") == "timeout":
            raise ToolFailed("tool_timeout", f"{name}: no result within {seconds:g} seconds")
        if "lost" in reply:
            raise ToolFailed("tool_crash", f"{name}: it ended without a result")
        if "error" in reply:
            error = Unavailable if reply["error"] == "Unavailable" else RuntimeError
            raise error(f"{name}: {reply['message']}")
        output = reply["output"]
        if "bug" in output:
            logger.error("tool %s raised on a model's call:\n%s", name, output["bug"])
            raise ToolFailed("tool_crash", f"{name}: it failed")
        return output

    def counters(self) -> dict[str, int]:
        """Totals since the start: tasks, timeouts, crashes, forks, ..."""
        return dict(self._dispatcher.counters)

    def close(self) -> None:
        """End the workers; calls in flight fail with RuntimeError. Safe to call twice."""
        self._finalizer()
