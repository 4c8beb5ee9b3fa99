"""Boxes of reference answers: read, checked, and kept in step with the image when it is resized."""

import io
from collections.abc import Sequence
from typing import Any

from dataset.encode import DEFAULT_MAX_PIXELS, DEFAULT_MIN_PIXELS
from dataset.images import ImageError, decode_image, smart_size
from dataset.sources.base import BadRow, Context
from reward.reading.boxes import to_box

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels
PATCH_FACTOR = 28  # patch size 14 x merge 2: the image processor rounds sides to this multiple
JPEG_QUALITY = 95


def from_xywh(values: Any, context: Context) -> Box:
    """A box given as [x, y, width, height]. Raises ``BadRow("bad-reference")`` unless it has an area."""
    try:
        box = to_box([float(value) for value in values], "xywh")
    except (TypeError, ValueError) as error:
        raise BadRow("bad-reference", f"{context.sample_id}: box {values!r} is not four numbers") from error
    if box is None:
        raise BadRow(
            "bad-reference", f"{context.sample_id}: box {values!r}: wanted four numbers with an area"
        )
    return box[:4]


def fit_boxes(
    image: dict[str, Any], boxes: Sequence[Box], context: Context
) -> tuple[dict[str, Any], list[tuple[int, int, int, int]]]:
    """The image at a size that the processor leaves alone, and its boxes in that size's whole pixels.

    Models of the Qwen2-VL family give boxes in pixels of the resized image. Resizing here once, boxes included,
    keeps reference and answer in one frame. Boxes are clipped to the image.
    Raises ``BadRow`` for an unreadable image or a box without area inside it.
    """
    try:
        picture = decode_image(image, context.sample_id)
    except ImageError as error:
        raise BadRow("missing-image", str(error)) from error
    width, height = picture.size
    new_width, new_height = smart_size(
        width, height, factor=PATCH_FACTOR, min_pixels=DEFAULT_MIN_PIXELS, max_pixels=DEFAULT_MAX_PIXELS
    )
    if (new_width, new_height) != (width, height):
        buffer = io.BytesIO()
        picture.resize((new_width, new_height)).save(buffer, format="JPEG", quality=JPEG_QUALITY)
        image = {"bytes": buffer.getvalue(), "path": None}
    scaled = []
    for x1, y1, x2, y2 in boxes:
        box = (
            max(0, round(x1 * new_width / width)),
            max(0, round(y1 * new_height / height)),
            min(new_width, round(x2 * new_width / width)),
            min(new_height, round(y2 * new_height / height)),
        )
        if box[0] >= box[2] or box[1] >= box[3]:
            raise BadRow(
                "bad-reference", f"{context.sample_id}: box {(x1, y1, x2, y2)} outside {width}x{height}"
            )
        scaled.append(box)
    return image, scaled


def box_text(box: Sequence[int]) -> str:
    """The reference answer of a box: ``[x1, y1, x2, y2]``."""
    return "[" + ", ".join(str(value) for value in box) + "]"
