"""Length and repetition penalties, each in [-1, 0] and off by default. They are added to the total, not normalised."""

import re
from collections.abc import Mapping
from typing import Any

MAX_WORDS = 50_000
PENALTIES = ("overlong", "repetition")  # names of the parts that `penalties` gives


def penalties(completion: str, num_tokens: int | None, params: Mapping[str, Any]) -> dict[str, float]:
    """The penalties that a sample's spec switches on. Raises ValueError naming a setting that cannot be used."""
    found = {}
    if params["overlong"] is not None:
        max_tokens, buffer_tokens = _settings(params, "overlong", "max_tokens", "buffer_tokens")
        if num_tokens is None:
            raise ValueError("num_tokens: needed by spec.overlong")
        if not 0 < buffer_tokens <= max_tokens:
            raise ValueError(
                f"spec.overlong: got {params['overlong']!r}, wanted 0 < buffer_tokens <= max_tokens"
            )
        found["overlong"] = soft_overlong_penalty(num_tokens, max_tokens, buffer_tokens)
    if params["repetition"] is not None:
        n, max_fraction = _settings(params, "repetition", "n", "max_fraction")
        if n != int(n) or n < 1 or not 0 <= max_fraction < 1:
            raise ValueError(
                f"spec.repetition: got {params['repetition']!r}, wanted n >= 1 and 0 <= max_fraction < 1"
            )
        found["repetition"] = repetition_penalty(completion, int(n), max_fraction)
    return found


def soft_overlong_penalty(num_tokens: int, max_tokens: float, buffer_tokens: float) -> float:
    """0 up to max - buffer, then falling linearly to -1 at max_tokens and beyond (DAPO, arXiv 2503.14476, eq. 13)."""
    excess = num_tokens - (max_tokens - buffer_tokens)
    return -min(max(excess / buffer_tokens, 0.0), 1.0)


def repetition_penalty(text: str, n: int, max_fraction: float) -> float:
    """0 while at most `max_fraction` of the word n-grams are repeats, then falling linearly to -1 when all are.

    The repeated share is 1 - distinct / total over the first 50,000 words.
    """
    words = [
        match.group() for _, match in zip(range(MAX_WORDS), re.finditer(r"\S+", text.lower()), strict=False)
    ]
    total = len(words) - n + 1
    if total < 1:
        return 0.0
    repeated = 1.0 - len({tuple(words[index : index + n]) for index in range(total)}) / total
    return -max(0.0, repeated - max_fraction) / (1.0 - max_fraction)


def _settings(params: Mapping[str, Any], name: str, *keys: str) -> tuple[float, ...]:
    given = params[name]
    numbers = isinstance(given, Mapping) and set(given) == set(keys)
    if not numbers or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in given.values()):
        raise ValueError(f"spec.{name}: got {given!r}, wanted numbers for {keys}")
    return tuple(given[key] for key in keys)
