"""Reference answers as a data file may hold them: strings, or the numbers, booleans and lists of JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

_ONE_LIST = ("bbox", "detection")  # types whose list of numbers, or of lists of numbers, is one reference


def reference_texts(answer: Any, answer_type: str) -> tuple[str, ...]:
    """The alternatives of an answer field, each as a text.

    5 -> ("5",); true -> ("true",); [1, 2] -> ("1", "2"), two alternatives; [["A", "C"]] -> ("A, C",). For boxes
    [10, 20, 30, 40] is one reference, and for detection so is a list of boxes.
    ValueError names the element that is blank or no JSON value.
    """
    if answer_type in _ONE_LIST and _numbers(answer):
        answer = [list(answer)]
    elif answer_type == "detection" and _is_list(answer) and answer and all(map(_numbers, answer)):
        answer = [[list(box) for box in answer]]
    elif not _is_list(answer):
        answer = [answer]
    if not answer:
        raise ValueError("answer: the list of reference answers is empty")
    joined = answer_type not in (*_ONE_LIST, "general-code")
    return tuple(_text(element, index, joined) for index, element in enumerate(answer))


def _text(element: Any, index: int, joined: bool) -> str:
    if isinstance(element, str) and element.strip():
        return element
    if joined and _is_list(element) and element and not any(_is_list(inner) for inner in element):
        return ", ".join(_text(inner, index, False) for inner in element)
    finite = not isinstance(element, float) or math.isfinite(element)
    if isinstance(element, bool | int | float | Mapping) or (_is_list(element) and element):
        try:
            text = json.dumps(element, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError):
            finite = False
        if finite:
            return text
    raise ValueError(
        f"answer[{index}]: got {element!r}, wanted a string that is not blank, or a number, boolean or list of JSON"
    )


def _numbers(value: Any) -> bool:
    return (
        _is_list(value)
        and bool(value)
        and all(isinstance(number, int | float) and not isinstance(number, bool) for number in value)
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
