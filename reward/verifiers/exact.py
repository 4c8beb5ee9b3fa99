"""critic and any: normalised exact match (NFKC, case, white space, quotes and dashes, wrapping punctuation).

Markdown and a label before the answer ("**Answer:** Paris") go away where the reference is not written with them.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from reward.extract import unwrap
from reward.reading.labels import closing, folded_width, without_label, without_markdown
from reward.reading.unicode import normalize
from reward.types import Verdict, Verifier

MAX_CHARS = 20_000

_PAIRS = ('""', "''", "“”", "‘’", "«»", "()", "[]", "{}", "<>", "**", "__", "``", "《》", "「」")
_REASON = re.compile(r"[,.;]?+ (?:because|since) |\n[^\S\n]*+(?:explanation|reason)\b", re.IGNORECASE)
_TRAILING = ".,;:!?。"


def normalized(text: str) -> str:
    """The text without the differences that do not count. A text of punctuation alone is kept as it is."""
    folded = " ".join(folded_width(normalize("NFKC", unwrap(text))).casefold().split())
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


def _readings(text: str) -> Iterator[str]:
    """The text, and what is left of it without markdown, label, the reason behind it or the clauses before it."""
    yield normalized(text)
    text = folded_width(normalize("NFKC", unwrap(text)))
    bare = without_label(without_markdown(text))
    yield normalized(bare)
    reason = _REASON.search(bare)
    if reason:
        yield normalized(bare[: reason.start()])
    conclusion = closing(text)
    if conclusion is not None:
        yield normalized(conclusion[1])


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
    equal = any(reading == prepared for reading in _readings(extracted))
    return Verdict(float(equal), trace=(f"exact: {answer[:200]!r} against {prepared[:200]!r}",))


VERIFIER = Verifier(prepare, verify)
