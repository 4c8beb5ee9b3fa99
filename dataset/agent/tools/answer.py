"""answer: gives the final answer and ends the conversation, for models that call a tool for that too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataset.agent.types import Tool, ToolError
from utils.sample import json_text


def run(arguments: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """The answer's text. Raises ToolError where there is none."""
    del context
    value = arguments.get("answer")
    if value is None or value == "":
        raise ToolError("answer: wanted {'answer': ...}")
    return json_text(value)


TOOL = Tool(
    description='answer: {"answer": TEXT} gives the final answer.',
    run=run,
    terminal=True,
    other_names=("final_answer",),
)
