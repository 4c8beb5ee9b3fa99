"""`dataset.agent.worker` where `python` may be called: the sandbox is tried out once, before workers are forked."""

from contextlib import suppress

from dataset.agent.worker import run_task
from reward.sandbox.session import SandboxUnavailable, available_layer

__all__ = ["run_task"]

with suppress(SandboxUnavailable):  # raised again by the first call
    available_layer()
