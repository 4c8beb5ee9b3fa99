"""What `actor.capsule` may be, and what stands in a capsule (trains/capsule.py)."""

import re
from typing import Any

FOLDER, FACTS, CONFIG, STATE = "capsules", "capsule.json", "config.yaml", "state"
KEPT = 2  # capsules of `every N`, the latest; and of failures, the first: each holds weights and optimizer
WANTED = "'off', 'on_failure' or 'every N' with N of 1 or more, e.g. 'every 100'"


def interval(value: Any) -> int | None:
    """Steps between capsules; 0 for failures alone, None for off. Raises ValueError for anything else.

    >>> [interval(value) for value in ("off", "on_failure", "every 100")]
    [None, 0, 100]
    """
    text = str(value).strip().lower()
    if text in ("off", "false", "none"):  # YAML reads a bare `off` as false
        return None
    if text == "on_failure":
        return 0
    match = re.fullmatch(r"every\s+([1-9]\d{0,8})", text)
    if match is None:
        raise ValueError(f"actor.capsule={value!r}: wanted {WANTED}")
    return int(match[1])
