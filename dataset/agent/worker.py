"""What a worker process does for a call: `reward.workers` forks it, and kills it at the call's deadline."""

from __future__ import annotations

import traceback
from typing import Any

import dataset.images  # noqa: F401 - imported once, in the process that workers are forked from
from dataset.agent.registry import TOOLS, get_tool
from dataset.agent.types import ToolError

for _name in TOOLS:
    get_tool(_name)


def run_task(task: dict[str, Any]) -> dict[str, Any]:
    """Run {"name", "arguments", "context"}: the tool's reply, {"refused": message}, or {"bug": traceback}."""
    from reward.types import Unavailable

    try:
        return get_tool(task["name"]).run(task["arguments"], task["context"])
    except ToolError as error:
        return {"refused": str(error)}
    except (MemoryError, Unavailable):
        raise
    except Exception:  # what a model asks for may break a tool, but never a run
        return {"bug": traceback.format_exc()}
