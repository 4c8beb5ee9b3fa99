"""Read boxes out of a model's text in linear time.

Understood: `[..]`, `(..)`, `(x1,y1),(x2,y2)`, JSON with `bbox_2d` or corner names, four bare numbers.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from reward.reading.unicode import normalize

MAX_COORDINATE = 1e7
MAX_CHARS = 50_000
MAX_BOXES = 1_000

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?"
_NUMBER_TOKEN = re.compile(rf"[\s,;]*(?:[\"']?[xy][12]?[\"']?\s?[:=]\s?)?({_NUMBER})(?=[\s,;]|$)")
_WORD_NUMBER = re.compile(r"[-+]?(?:nan|inf(?:inity)?)", re.IGNORECASE)
_LABEL = re.compile(r"[\"'](?:label|class|category|name)[\"']\s?:\s?[\"']([^\"'\n]{1,80})[\"']")
_NAMES = {
    **dict.fromkeys(("x1", "xmin", "x_min", "left", "x"), "x1"),
    **dict.fromkeys(("y1", "ymin", "y_min", "top", "y"), "y1"),
    **dict.fromkeys(("x2", "xmax", "x_max", "right"), "x2"),
    **dict.fromkeys(("y2", "ymax", "y_max", "bottom"), "y2"),
    **dict.fromkeys(("width", "w"), "width"),
    **dict.fromkeys(("height", "h"), "height"),
}
_NAMED = re.compile(
    rf"(?<![\w\\])(x_?min|y_?min|x_?max|y_?max|[xy][12]?|left|top|right|bottom|width|height|[wh])"
    rf"[\"']?(?:\s?[:=]\s?|\s)[\"']?({_NUMBER})(?![\w.])",
    re.IGNORECASE,
)
_SPELLINGS = (("\\left", ""), ("\\right", ""), ("、", ","), ("【", "["), ("】", "]"))
_PIXELS = re.compile(r"(?<=\d) ?(?:px|pixels?)\b")
_BEFORE_BARE = re.compile(r"(?:<[^<>]{1,20}>|[\"'`*\s]|[A-Za-z_][\w ]{0,40}[:=])*+")
_TAG = re.compile(r"<[^<>]{1,20}>")
_BARE = re.compile(rf"\s*+{_NUMBER}(?:[\s,;]++{_NUMBER}){{3}}(?![\w.,;]*+[\s,;]*+[-+\d])\s*+\.?")
FORMATS = ("xyxy", "yxyx", "xywh", "cxcywh")
COORDINATES = ("absolute", "normalized", "permille")
DEFAULTS: dict[str, Any] = {  # the parameters of every verifier that compares boxes
    "box_format": "xyxy",  # of the prediction: one of FORMATS
    "reference_format": "xyxy",  # of the reference answer
    "coordinates": None,  # of the prediction: absolute (pixels), normalized (0..1) or permille (0..1000); None: `meant`
    "reference_coordinates": None,  # of the reference; None: the same as the prediction's
    "image_size": None,  # [width, height] in pixels; needed when the two differ
}


class Box(NamedTuple):
    """Corners with x1 < x2 and y1 < y2, all finite; label is None where none was given."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: str | None = None


class Reading(NamedTuple):
    """Well-formed boxes in the order they were written, and how many attempts at a box were malformed."""

    boxes: tuple[Box, ...]
    num_malformed: int


def read_boxes(text: str, box_format: str = "xyxy") -> Reading:
    """Every box of a text. Groups of two numbers pair up into corners when the text has no group of four."""
    if len(text) > MAX_CHARS:
        return Reading((), 1)
    if not text.isascii():
        text = normalize("NFKC", text).replace("−", "-")
    for spelling, plain in _SPELLINGS:
        text = text.replace(spelling, plain)
    text = _PIXELS.sub("", text)
    groups = list(_innermost_groups(text))
    quads = [(values, start, end) for values, start, end in groups if len(values) > 2]
    pairs = [(values, start, end) for values, start, end in groups if len(values) == 2]
    if not quads and pairs:
        quads = [(a[0] + b[0], a[1], b[2]) for a, b in zip(pairs[::2], pairs[1::2], strict=False)]
        quads += [(pairs[-1][0], pairs[-1][1], pairs[-1][2])] if len(pairs) % 2 else []
    if not quads:
        quads = _named_boxes(text)
        box_format = "xyxy" if quads else box_format
    if not quads:
        bare = _BARE.match(text, _BEFORE_BARE.match(text).end())
        if bare and not re.search(r"\w", _TAG.sub("", text[bare.end() :])):
            quads = [([float(number) for number in re.findall(_NUMBER, bare.group())], 0, len(text))]
    if len(quads) > MAX_BOXES:
        return Reading((), len(quads))
    labels = _labels(text, quads)
    boxes = [to_box(values, box_format, label) for (values, _, _), label in zip(quads, labels, strict=True)]
    good = tuple(box for box in boxes if box is not None)
    return Reading(good, len(boxes) - len(good))


def _innermost_groups(text: str) -> Iterator[tuple[list[float], int, int]]:
    """(numbers, start, end) of every bracket pair without a bracket inside that holds nothing but numbers.

    A group with "nan" or "inf" among its numbers comes back as a malformed group, not as no group at all.
    """
    opened = None
    for match in re.finditer(r"[\[\](){}]", text):
        char = match.group()
        if char in "[({":
            opened = match
        elif opened is not None and (opened.group() + char) in ("[]", "()", "{}"):
            numbers = _numbers(text[opened.end() : match.start()], opened.group() == "{")
            if numbers is not None:
                yield numbers, opened.start(), match.end()
            opened = None
        else:
            opened = None


def _numbers(body: str, braces: bool) -> list[float] | None:
    if len(body) > 400:
        return None
    if braces:  # {"x1": 1, "y1": 2, "x2": 3, "y2": 4, ...}: corners, whatever the format of the others
        named = _named_boxes(body)
        return named[0][0] if len(named) == 1 and len(named[0][0]) == 4 else None
    body = _WORD_NUMBER.sub("1e9999", body)
    body = re.sub(r"[\"'](?=\s*[-+\d.])|(?<=[\d.])[\"']", " ", body)
    numbers, position = [], 0
    while position < len(body.rstrip(" \t\n,;")):
        match = _NUMBER_TOKEN.match(body, position)
        if match is None:
            return None
        numbers.append(float(match.group(1)))
        position = match.end()
    return numbers


def _named_boxes(text: str) -> list[tuple[list[float], int, int]]:
    """Boxes written by the names of their sides: "x1=1, y1=2, x2=3, y2=4" or "x: 1, y: 2, width: 2, height: 2".

    A name that comes again begins the next box; a box that lacks a side comes back as a malformed one.
    """
    boxes: list[tuple[dict[str, float], int, int]] = []
    for match in _NAMED.finditer(text):
        name = _NAMES[match.group(1).lower()]
        if not boxes or name in boxes[-1][0]:
            boxes.append(({}, match.start(), match.end()))
        sides, start, _ = boxes[-1]
        sides[name] = float(match.group(2))
        boxes[-1] = sides, start, match.end()
    return [(_corners(sides), start, end) for sides, start, end in boxes if len(sides) > 2]


def _corners(sides: Mapping[str, float]) -> list[float]:
    if {"x1", "y1", "x2", "y2"} <= sides.keys():
        return [sides["x1"], sides["y1"], sides["x2"], sides["y2"]]
    if {"x1", "y1", "width", "height"} <= sides.keys():
        return [sides["x1"], sides["y1"], sides["x1"] + sides["width"], sides["y1"] + sides["height"]]
    return list(sides.values())[:3]


def _labels(text: str, quads: list[tuple[list[float], int, int]]) -> list[str | None]:
    """The label of the JSON object that each box stands in: the nearest one between its neighbours' braces."""
    labels: list[str | None] = []
    found = [(match.start(), match.group(1)) for match in _LABEL.finditer(text)]
    for _, start, end in quads:
        left, right = text.rfind("{", 0, start + 1), text.find("}", max(end - 1, 0))
        inside = [name for at, name in found if left <= at < right] if 0 <= left < right else []
        labels.append(" ".join(inside[0].casefold().split()) if inside else None)
    return labels


def to_box(values: Sequence[float], box_format: str, label: str | None = None) -> Box | None:
    """Four numbers in one of FORMATS as corners; None unless there are four, finite, with an area."""
    if len(values) != 4 or not all(math.isfinite(value) and abs(value) <= MAX_COORDINATE for value in values):
        return None
    a, b, c, d = values
    if box_format == "yxyx":
        a, b, c, d = b, a, d, c
    elif box_format == "xywh":
        c, d = a + c, b + d
    elif box_format == "cxcywh":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return Box(a, b, c, d, label) if a < c and b < d else None


def iou(first: Box, second: Box) -> float:
    """Intersection over union, I / (A1 + A2 - I), in [0, 1]."""
    width = min(first.x2, second.x2) - max(first.x1, second.x1)
    height = min(first.y2, second.y2) - max(first.y1, second.y1)
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    union = area(first) + area(second) - intersection
    return min(intersection / union, 1.0) if union > 0 else 0.0


def area(box: Box) -> float:
    """Width times height, in squared units of the coordinates."""
    return (box.x2 - box.x1) * (box.y2 - box.y1)


def are_normalized(boxes: Iterable[Sequence[float]]) -> bool:
    """Whether every corner lies within 0..1; pixels would make boxes of a single pixel at the origin of these."""
    return all(0 <= value <= 1 for box in boxes for value in box[:4])


def meant(params: Mapping[str, Any], reference: Iterable[Box]) -> str:
    """The coordinates of a prediction. Where a spec says nothing: normalized if the reference lies within 0..1, as in
    the published data, else pixels.
    """
    if params["coordinates"] is not None:
        return params["coordinates"]
    implied = params["reference_coordinates"] is None and are_normalized(reference)
    return "normalized" if implied else "absolute"


def to_reference_frame(box: Box, source: str, params: Mapping[str, Any]) -> Box:
    """The predicted box, in `source` coordinates, in those of the reference."""
    target = params["reference_coordinates"] or source
    if source == target:
        return box
    scales = {"normalized": (1.0, 1.0), "permille": (1000.0, 1000.0), "absolute": params["image_size"]}
    fx, fy = scales[target][0] / scales[source][0], scales[target][1] / scales[source][1]
    return Box(box.x1 * fx, box.y1 * fy, box.x2 * fx, box.y2 * fy, box.label)


def check_box_params(params: Mapping[str, Any]) -> None:
    """Raise ValueError naming the box parameter of a spec that cannot be used."""
    for name in ("box_format", "reference_format"):
        if params[name] not in FORMATS:
            raise ValueError(f"spec.{name}: got {params[name]!r}, wanted one of {FORMATS}")
    source, target = params["coordinates"], params["reference_coordinates"]
    if source not in (None, *COORDINATES):
        raise ValueError(f"spec.coordinates: got {source!r}, wanted one of {COORDINATES} or null")
    source = source or "absolute"
    if target not in (None, *COORDINATES):
        raise ValueError(f"spec.reference_coordinates: got {target!r}, wanted one of {COORDINATES} or null")
    size = params["image_size"]
    usable = (
        isinstance(size, list | tuple)
        and len(size) == 2
        and all(isinstance(n, int | float) and n > 0 for n in size)
    )
    if size is not None and not usable:
        raise ValueError(f"spec.image_size: got {size!r}, wanted [width, height] in pixels")
    if target not in (None, source) and "absolute" in (target, source) and not usable:
        raise ValueError("spec.image_size: needed to compare boxes in different coordinates")
