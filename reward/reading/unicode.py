"""Unicode normalisation in linear time."""

import unicodedata
from typing import Literal

MAX_MARKS = 30  # in a row, the limit of Unicode's own stream-safe text (UAX 15, section 13)
_SHORT = 2_000  # characters whose normalisation takes milliseconds at worst


def normalize(form: Literal["NFC", "NFKC"], text: str) -> str:
    """`unicodedata.normalize` without the marks beyond the thirtieth of a run: sorting long runs is quadratic."""
    if len(text) > _SHORT and not text.isascii():
        text = "".join(_bounded_runs(text))
    return unicodedata.normalize(form, text)


def _bounded_runs(text: str):
    run = 0
    for char in text:
        run = run + 1 if char > "\u02ff" and unicodedata.combining(char) else 0
        if run <= MAX_MARKS:
            yield char
