"""Read a turn of the model: the one parser of tool calls.

    <think>I cannot read it.</think><tool_call>{"name": "zoom", "arguments": {"bbox_2d": [28, 0, 56, 28]}}</tool_call>

Rules, in this order:

1. What counts stands behind the last `</think>` and before a `<think>` that opens behind it, as for answers.
2. A finished `<answer>...</answer>` there ends the conversation, whatever else the turn holds.
3. No `<tool_call>` ends it too.
4. Exactly one `<tool_call>` ... `</tool_call>` is wanted, around one JSON object with `name` (text) and `arguments` (an
   object, or its text; absent: none). `parameters` is read as `arguments`. In place of the object may stand a bare list
   of numbers, a box [x1, y1, x2, y2] or a point [x, y], also in round brackets: a zoom.
5. Everything else is a fault, which the model is told of and which is counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from dataset.agent.registry import canonical_name
from dataset.agent.types import Call, Turn
from reward.extract import answer_region

OPEN, CLOSE = "<tool_call>", "</tool_call>"
MAX_CALL_CHARS = 20_000
_NUMBERS = re.compile(r"[\[(]\s*-?\d+(?:\.\d+)?(?:\s*,\s*-?\d+(?:\.\d+)?){1,3}\s*[\])]")


def read_turn(text: str, tools: Collection[str]) -> Turn:
    """What the model wants; `tools` are the names that it may call."""
    start, end = answer_region(text)
    region = text[start:end]
    opened = region.count(OPEN)
    answer = region.find("<answer>")
    if answer >= 0 and region.find("</answer>", answer) >= 0:
        return Turn(fault="call_beside_answer" if opened and tools else None)
    if not opened or not tools:
        return Turn()
    if opened > 1:
        return Turn(fault="several_calls", message="one call at a time, please")
    body = region[region.index(OPEN) + len(OPEN) :]
    if CLOSE not in body:
        return Turn(fault="malformed_call", message=f"the call does not end with {CLOSE}")
    return _read_call(body[: body.index(CLOSE)].strip(), tools)


def _read_call(body: str, tools: Collection[str]) -> Turn:
    if len(body) > MAX_CALL_CHARS:
        return Turn(
            fault="malformed_call",
            message=f"the call has {len(body)} characters; at most {MAX_CALL_CHARS} are read",
        )
    if _NUMBERS.fullmatch(body):
        numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", body)]
        body = json.dumps(
            {"name": "zoom", "arguments": {"bbox_2d" if len(numbers) == 4 else "point": numbers}}
        )
    try:
        call = json.loads(body, parse_constant=_refuse)
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
            raise ValueError('wanted {"name": ..., "arguments": {...}}')
        arguments: Any = call.get("arguments", call.get("parameters")) or {}
        if isinstance(arguments, str):
            arguments = json.loads(arguments, parse_constant=_refuse)
        if not isinstance(arguments, Mapping):
            raise ValueError("arguments must be a JSON object")
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return Turn(fault="malformed_call", message=f"the call cannot be read: {reason[:200]}")
    name = canonical_name(call["name"])
    if name not in tools:
        known = ", ".join(sorted(tools))
        return Turn(
            fault="unknown_tool", message=f"there is no tool {call['name'][:60]!r}; there is: {known}"
        )
    return Turn(call=Call(name, dict(arguments)))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")
