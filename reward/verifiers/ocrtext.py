"""ocrtext: 1 - Levenshtein / max(length), after NFC, lower-casing and white-space folding; 0 below a threshold.

Full-width letters and curly quotes count as plain ones. A label before the text ("The text reads: ...") and quotes
around it are left out where that comes closer to the reference.
"""

import re
from collections.abc import Mapping
from typing import Any

import Levenshtein

from reward.extract import unwrap
from reward.reading.labels import folded_width, without_label, without_markdown
from reward.reading.unicode import normalize
from reward.types import Verdict, Verifier

MAX_CHARS = 100_000
INLINE_CELLS = 4_000_000  # product of the two lengths up to which the distance costs well under a millisecond
_LABEL = re.compile(
    r"(?:the |this )?+(?:text|sign|image|caption|title|label|ocr|transcription|content|word)s?+"
    r"(?: (?:in|on|of|shown in) the (?:image|picture|sign|photo|document))?+"
    r"(?:(?: (?:reads|says|is|shows))?+ ?+:| (?:reads|says)(?= )) ?+"
    r"|(?:图中|图片中的?+|图片的)?+(?:文字|文本|内容)(?:是|为)?+ ?+:",
    re.IGNORECASE,
)
_QUOTES = {('"', '"'), ("'", "'"), ("「", "」"), ("《", "》"), ("`", "`")}


def normalized(text: str) -> str:
    """NFC, plain widths and quotes, lower case, runs of white space as one space."""
    text = folded_width(normalize("NFC", unwrap(text)))
    return " ".join(normalize("NFC", text.lower()).split())


def _bare(text: str) -> str:
    """A normalised text without a label before it and quotes around it."""
    bare = without_label(without_markdown(text))
    label = _LABEL.match(bare)
    bare = bare[label.end() :] if label else bare
    quoted = len(bare) > 2 and (bare[0], bare[-1]) in _QUOTES and bare[-1] not in bare[1:-1]
    return bare[1:-1].strip() if quoted else bare


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
    readings = [
        reading  # the distance is at least the difference of the lengths
        for reading in dict.fromkeys((answer, _bare(answer)))
        if min(len(reading), len(prepared)) >= minimum * max(len(reading), len(prepared))
    ]
    if not readings:
        return Verdict(
            0.0, trace=(f"ocrtext: lengths {len(answer)} and {len(prepared)} alone put it below {minimum}",)
        )
    value = max(similarity(reading, prepared) for reading in readings)
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
