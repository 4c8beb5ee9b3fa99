"""Every tool by its name. To add one: a file in `dataset/agent/tools` with a `TOOL`, and a line here."""

from __future__ import annotations

import importlib
from functools import cache

from dataset.agent.types import Tool

TOOLS: dict[str, str] = {
    "answer": "dataset.agent.tools.answer",
    "python": "dataset.agent.tools.python",
    "search": "dataset.agent.tools.search",
    "zoom": "dataset.agent.tools.zoom",
}


@cache
def get_tool(name: str) -> Tool:
    """The tool of this name. Raises ValueError naming those that there are."""
    if name not in TOOLS:
        raise ValueError(f"tools: got {name!r}, wanted some of {', '.join(TOOLS)}")
    return importlib.import_module(TOOLS[name]).TOOL


@cache
def _other_names() -> dict[str, str]:
    return {other: name for name in TOOLS for other in get_tool(name).other_names}


def canonical_name(name: str) -> str:
    """The registry's name of a tool that a model may know under another one; unknown names stay."""
    return name if name in TOOLS else _other_names().get(name, name)


def check_names(names: object) -> tuple[str, ...]:
    """Names of tools as a tuple. Raises ValueError for anything but a list of names of the registry."""
    if isinstance(names, str) or not isinstance(names, list | tuple):
        raise ValueError(f"tools: got {names!r}, wanted a list of some of {', '.join(TOOLS)}")
    for name in names:
        get_tool(name) if isinstance(name, str) else get_tool(str(name))
    return tuple(dict.fromkeys(names))
