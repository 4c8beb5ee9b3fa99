"""Unicode normalisation in linear time."""

import unicodedata
from typing import Literal

MAX_MARKS = 30  # in a row, the limit of Unicode's own stream-safe text (UAX 15, section 13)
_SHORT = 2_000  # characters whose normalisation takes milliseconds at worst


def normalize(form: Literal["NFC", "NFKC"], text: str) -> str:
    """`unicodedata.normalize` without the marks beyond the thirtieth of a run: sorting long runs is quadratic."""
    if len(text) > _SHORT and not text.isascii():
        marks = {char for char in set(text) if unicodedata.combining(char)}
        if marks:
            text = "".join(_bounded_runs(text, marks))
    return unicodedata.normalize(form, text)


def _bounded_runs(text: str, marks: set[str]):
    run = 0
    for char in text:
        run = run + 1 if char in marks else 0
        if run <= MAX_MARKS:
            yield char
