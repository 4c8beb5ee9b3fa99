"""critic and any: normalised exact match (NFKC, case, white space, wrapping punctuation)."""

import unicodedata
from collections.abc import Mapping
from typing import Any

from reward.extract import unwrap
from reward.types import Verdict, Verifier

MAX_CHARS = 20_000

_PAIRS = ('""', "''", "“”", "‘’", "«»", "()", "[]", "{}", "<>", "**", "__", "``")
_TRAILING = ".,;:!?。"


def normalized(text: str) -> str:
    """The text without the differences that do not count. A text of punctuation alone is kept as it is."""
    folded = " ".join(unicodedata.normalize("NFKC", unwrap(text)).casefold().split())
    bare = folded
    for _ in range(8):
        shorter = _unpaired(
            bare.rstrip(_TRAILING).rstrip() if not bare[-2:-1].isdigit() else bare.rstrip(".,;:?。")
        )
        if shorter in ("", bare):
            break
        bare = shorter
    return bare


def _unpaired(text: str) -> str:
    for left, right in _PAIRS:
        if len(text) > 2 and text[0] == left and text[-1] == right and right not in text[1:-1]:
            return text[1:-1].strip()
    return text


def prepare(reference: str, params: Mapping[str, Any]) -> str:
    """The normalised reference."""
    if len(reference) > MAX_CHARS:
        raise ValueError(f"longer than {MAX_CHARS} characters")
    return normalized(reference)


def verify(extracted: str, prepared: str, params: Mapping[str, Any]) -> Verdict:
    """1 when both are the same text after normalisation."""
    if len(extracted) > MAX_CHARS:
        return Verdict(0.0, "rejected", trace=(f"exact: longer than {MAX_CHARS} characters",))
    answer = normalized(extracted)
    return Verdict(float(answer == prepared), trace=(f"exact: {answer[:200]!r} against {prepared[:200]!r}",))


VERIFIER = Verifier(prepare, verify)
