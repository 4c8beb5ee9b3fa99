"""Filters before generation, all off unless asked for (V-Triune, sec. 3.2, uses such filters for its data).

A filter looks at one sample and says why it is rejected (`filter:answer-length`, ...) or None.
"""

import json
import re
import unicodedata
from dataclasses import dataclass, field, fields

from dataset.images import ImageError, upright_size
from reward.reading.boxes import are_normalized
from utils.sample import IMAGE_MARK, Sample

LANGUAGES = ("en", "zh")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters in force; None or empty switches one off."""

    max_answer_chars: int | None = None  # the shortest reference must be at most this long
    answer_symbols: str = ""  # references that hold one of these characters are rejected
    drop_answer_types: tuple[str, ...] = ()
    max_boxes: int | None = None  # bbox and detection references
    max_box_area: float | None = None  # largest box as a share of the image, in [0, 1]
    language: str | None = None  # of the question; one of LANGUAGES


PRESETS: dict[str, Filters] = {
    "reasoning": Filters(
        max_answer_chars=20, answer_symbols="=[", drop_answer_types=("multiple-choice", "boolean")
    ),
    "detection": Filters(max_boxes=10, max_box_area=0.5),
}


@dataclass(frozen=True, slots=True)
class FilterChoice:
    """A preset by name and the single settings given beside it, which win."""

    preset: str | None = None
    settings: Filters = field(default_factory=Filters)

    def resolve(self) -> Filters:
        """The filters in force. Raises ``ValueError`` for an unknown preset or language."""
        if self.preset is not None and self.preset not in PRESETS:
            raise ValueError(f"--filter-preset {self.preset!r}, wanted one of {', '.join(PRESETS)}")
        if self.settings.language not in (None, *LANGUAGES):
            raise ValueError(
                f"--filter-language {self.settings.language!r}, wanted one of {', '.join(LANGUAGES)}"
            )
        base, off = PRESETS.get(self.preset or "", Filters()), Filters()
        chosen = {}
        for item in fields(Filters):
            given = getattr(self.settings, item.name)
            chosen[item.name] = given if given != getattr(off, item.name) else getattr(base, item.name)
        return Filters(**chosen)


def filter_reason(sample: Sample, filters: Filters) -> str | None:
    """Why a sample is rejected, or None."""
    if sample.answer_type in filters.drop_answer_types:
        return "filter:answer-type"
    if filters.max_answer_chars is not None and min(map(len, sample.answer)) > filters.max_answer_chars:
        return "filter:answer-length"
    if any(symbol in answer for symbol in filters.answer_symbols for answer in sample.answer):
        return "filter:answer-symbols"
    if filters.language is not None and not in_language(sample.problem, filters.language):
        return "filter:language"
    if sample.answer_type in ("bbox", "detection"):
        return _box_reason(sample, filters)
    return None


def in_language(text: str, language: str) -> bool:
    """A test by script, not by vocabulary: `en` wants 90 % of the letters to be basic Latin, `zh` 20 % Han.

    Text without letters belongs to every language.
    """
    letters = [c for c in text.replace(IMAGE_MARK, "") if c.isalpha()]
    if not letters:
        return True
    if language == "en":
        return sum(c.isascii() for c in letters) >= 0.9 * len(letters)
    han = sum(unicodedata.name(c, "").startswith("CJK UNIFIED") for c in letters)
    return han >= 0.2 * len(letters)


def reference_boxes(answer: str) -> list[tuple[float, ...]]:
    """The boxes of a reference: JSON (nested lists, or objects with `bbox_2d`/`bbox`), else its numbers in fours."""
    found: list[tuple[float, ...]] = []
    try:
        parsed = json.loads(answer)
    except ValueError:  # not JSON: its numbers, in fours
        numbers = [float(number) for number in NUMBER.findall(answer)]
        return [tuple(numbers[i : i + 4]) for i in range(0, len(numbers) - 3, 4)]
    _collect_boxes(parsed, found)
    return found


def _collect_boxes(value: object, found: list[tuple[float, ...]]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key.startswith("bbox") or isinstance(inner, list | dict):
                _collect_boxes(inner, found)
    elif isinstance(value, list):
        if len(value) == 4 and all(isinstance(v, int | float) for v in value):
            found.append(tuple(float(v) for v in value))
        else:
            for inner in value:
                _collect_boxes(inner, found)


def _box_reason(sample: Sample, filters: Filters) -> str | None:
    boxes = reference_boxes(sample.answer[0])
    if filters.max_boxes is not None and len(boxes) > filters.max_boxes:
        return "filter:num-boxes"
    if filters.max_box_area is not None and sample.images:
        try:
            width, height = upright_size(sample.images[0], sample.id)
        except ImageError:
            return None  # a corrupt image is counted as such when it is decoded
        unit = 1 if are_normalized(boxes) else width * height
        areas = [abs((x2 - x1) * (y2 - y1)) / unit for x1, y1, x2, y2 in boxes]
        if areas and max(areas) > filters.max_box_area:
            return "filter:box-area"
    return None
