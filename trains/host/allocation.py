"""AReaL's allocation strings, such as `sglang:d4+fsdp:d4`. The class that reads them is private in AReaL 1.0.4."""

from __future__ import annotations

from typing import Any

from areal.api.alloc_mode import _AllocationMode as Allocation


def parse(text: str) -> Allocation:
    """Servers and trainers of `allocation_mode`. Raises what AReaL raises for other text."""
    return Allocation.from_str(text)


def server_allocation(allocation: Allocation) -> Any:
    """The servers' part, as AReaL's weight update wants it."""
    return next(part for part in allocation.allocations if part.backend == "sglang")
