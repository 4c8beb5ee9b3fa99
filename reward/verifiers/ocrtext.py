"""ocrtext: 1 - Levenshtein / max(length), after NFC, lower-casing and white-space folding; 0 below a threshold."""

import unicodedata
from collections.abc import Mapping
from typing import Any

import Levenshtein

from reward.extract import unwrap
from reward.types import Verdict, Verifier

MAX_CHARS = 100_000
INLINE_CELLS = 4_000_000  # product of the two lengths up to which the distance costs well under a millisecond


def normalized(text: str) -> str:
    """NFC, lower case, runs of white space as one space."""
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", unwrap(text)).lower()).split())


def similarity(left: str, right: str) -> float:
    """1 - Levenshtein(left, right) / max(len(left), len(right)), in [0, 1]; two empty texts are equal."""
    longest = max(len(left), len(right))
    return 1.0 - Levenshtein.distance(left, right) / longest if longest else 1.0


def prepare(reference: str, params: Mapping[str, Any]) -> str:
    """The normalised reference. Raises ValueError when it is too long or a threshold lies outside [0, 1]."""
    minimum = params["min_similarity"]
    if isinstance(minimum, bool) or not isinstance(minimum, int | float) or not 0 <= minimum <= 1:
        raise ValueError(f"spec.min_similarity: got {minimum!r}, wanted a number in [0, 1]")
    if len(reference) > MAX_CHARS:
        raise ValueError(f"longer than {MAX_CHARS} characters")
    return normalized(reference)


def verify(extracted: str, prepared: str, params: Mapping[str, Any]) -> Verdict:
    """The similarity, or 0 where it is below `min_similarity`."""
    if len(extracted) > MAX_CHARS:
        return Verdict(0.0, "rejected", trace=(f"ocrtext: longer than {MAX_CHARS} characters",))
    minimum = params["min_similarity"]
    answer = normalized(extracted)
    shortest, longest = sorted((len(answer), len(prepared)))
    if shortest < minimum * longest:  # the distance is at least the difference of the lengths
        return Verdict(
            0.0, trace=(f"ocrtext: lengths {len(answer)} and {len(prepared)} alone put it below {minimum}",)
        )
    value = similarity(answer, prepared)
    step = f"ocrtext: similarity {value:.4f}, counted from {minimum}"
    return Verdict(value if value >= minimum else 0.0, parts={"similarity": value}, trace=(step,))


def quick(extracted: str, references: tuple[str, ...], params: Mapping[str, Any]) -> Verdict | None:
    """Short texts are compared in the caller's process."""
    longest = max(len(reference) for reference in references)
    if len(references) * longest * len(extracted) > INLINE_CELLS or max(longest, len(extracted)) > MAX_CHARS:
        return None
    verdicts = (verify(extracted, prepare(reference, params), params) for reference in references)
    return max(verdicts, key=lambda verdict: verdict.accuracy)


DEFAULTS = {"solved_threshold": 0.5, "min_similarity": 0.5}
VERIFIER = Verifier(prepare, verify, DEFAULTS, isolated=True, deadline_seconds=3.0, quick=quick)
