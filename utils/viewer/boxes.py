"""Predicted and reference boxes as shares of the image, to be drawn over it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from reward.extract import unwrap
from reward.reading.boxes import Box, meant, read_boxes
from reward.spec import resolve

MAX_DRAWN = 40  # boxes of one answer
BOX_VERIFIERS = ("bbox", "detection")


class Drawn(NamedTuple):
    """A box in shares of the image's width and height, as SVG's rect takes it."""

    x: float
    y: float
    width: float
    height: float
    label: str


def boxes_of(row: dict[str, Any]) -> tuple[list[Drawn], list[Drawn]]:
    """(reference, predicted) boxes of a row of rollouts/; two empty lists where its answer is no box, or where pixels
    are meant and no size is known."""
    try:
        spec = json.loads(row.get("spec") or "{}")
        if (
            spec.get("verifier", row["answer_type"]) not in BOX_VERIFIERS
        ):  # importing the others takes seconds
            return [], []
        params = resolve(row["answer_type"], spec).params
    except ValueError:
        return [], []
    references = [
        box
        for text in row["answer"][:1]
        for box in read_boxes(unwrap(text), params["reference_format"]).boxes
    ]
    source = meant(params, references)
    size = params["image_size"] or (row["image_sizes"] or [None])[0]
    return (
        _shares(references, params["reference_coordinates"] or source, size),
        _shares(read_boxes(row["extracted"] or "", params["box_format"]).boxes, source, size),
    )


def _shares(boxes: Iterable[Box], coordinates: str, size: tuple[float, float] | None) -> list[Drawn]:
    scales = {"normalized": (1.0, 1.0), "permille": (1000.0, 1000.0), "absolute": size}
    if scales[coordinates] is None:
        return []
    width, height = scales[coordinates]
    return [
        Drawn(b.x1 / width, b.y1 / height, (b.x2 - b.x1) / width, (b.y2 - b.y1) / height, b.label or "")
        for b in list(boxes)[:MAX_DRAWN]
    ]
