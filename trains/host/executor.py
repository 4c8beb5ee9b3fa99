"""AReaL's `WorkflowExecutor`, which runs workflows ahead of the trainer, for the ring buffer and the evaluation."""

from __future__ import annotations

from typing import Any

from areal.api import RolloutWorkflow

from trains import heartbeat
from trains.types import Rollout


class Executor:
    """Wraps the executor of a rollout client."""

    def __init__(self, inner: Any):
        self.inner = inner

    def submit(self, data: dict[str, Any], workflow: RolloutWorkflow, *, is_eval: bool = False) -> None:
        """Have `workflow` roll out {"key", "prompt"}; begins when AReaL's capacity rule allows it."""
        if getattr(workflow, "turns", None) is not None:
            workflow.turns.expect(data["key"])
        self.inner.submit(data, workflow, is_eval=is_eval)

    def finished(self, timeout: float) -> list[Rollout | None]:
        """What is finished: one result, or none after `timeout` seconds. None in the list: AReaL rejected it."""
        results = self.inner.wait(1, timeout=timeout, raise_timeout=False)
        if results:
            heartbeat.progress()
        return results

    def release(self) -> None:
        """Give back the place that AReaL counts for an accepted group that will not be consumed."""
        manager = self.inner.staleness_manager
        with manager.lock:
            manager.rollout_stat.accepted -= 1

    def recover(self, version: int) -> None:
        """After a restart: count what was consumed before, or the capacity rule allows a burst of stale work."""
        self.inner.staleness_manager.on_version_recovered(version)
