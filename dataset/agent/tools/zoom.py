"""zoom: a part of an image, cut out of the original and enlarged to the size that the model's rule gives it.

A box is in pixels of the image as the model sees it; the cut is made in the stored original, which may be far larger. A
crop can be zoomed into again: it remembers where in the original it lies.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from dataset.agent.types import Tool, ToolError

MIN_SIDE = 2.0  # pixels of the original that a crop must have at least, each way
POINT_SHARE = 0.25  # of the image's sides: the crop around a point
WHOLE_SHARE = 0.95  # of the area that was seen: a crop of more tells nothing new
MAX_RATIO = 20.0  # longer side over shorter one; a thinner crop is widened

_decoded: OrderedDict[str, Any] = OrderedDict()  # the images that this worker has opened last


def run(arguments: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """The crop. `context` has `image` {"record", "region", "size"} and `limits` (of `resize_to_limits`)."""
    from dataset.images import resize_to_limits, to_base64_png

    view = context["image"]
    width, height = view["size"]
    box = _box(arguments, width, height)
    image = _open(view["record"])
    left, top, right, bottom = view["region"] or (0.0, 0.0, float(image.width), float(image.height))
    scale_x, scale_y = (right - left) / width, (bottom - top) / height
    region = (
        left + box[0] * scale_x,
        top + box[1] * scale_y,
        left + box[2] * scale_x,
        top + box[3] * scale_y,
    )
    region = _widened(region, (left, top, right, bottom))
    if min(region[2] - region[0], region[3] - region[1]) < MIN_SIDE:
        raise ToolError(f"zoom: the box {_shown(box)} holds less than {MIN_SIDE:g} pixels; give a larger one")
    pixels = (math.floor(region[0]), math.floor(region[1]), math.ceil(region[2]), math.ceil(region[3]))
    crop = resize_to_limits(image.crop(pixels), **context["limits"])
    share = (box[2] - box[0]) * (box[3] - box[1]) / (width * height)
    return {
        "images": [{"png": to_base64_png(crop), "region": pixels, "size": crop.size, "of_parent": True}],
        "without_effect": share >= WHOLE_SHARE,
    }


def _box(arguments: Mapping[str, Any], width: int, height: int) -> tuple[float, float, float, float]:
    """The wanted box within the image that the model sees. Raises ToolError for one that is no box there."""
    given = next((arguments[key] for key in ("bbox_2d", "bbox", "box") if key in arguments), None)
    point = next((arguments[key] for key in ("point", "coordinate", "point_2d") if key in arguments), None)
    if given is None and point is not None:
        x, y = _numbers(point, 2)
        if not (0 <= x <= width and 0 <= y <= height):
            raise ToolError(f"zoom: the point ({x:g}, {y:g}) lies outside of the image of {width}x{height}")
        dx, dy = width * POINT_SHARE / 2, height * POINT_SHARE / 2
        given = [x - dx, y - dy, x + dx, y + dy]
    if given is None:
        raise ToolError("zoom: wanted {'bbox_2d': [x1, y1, x2, y2]}")
    x1, y1, x2, y2 = _numbers(given, 4)
    if x2 <= x1 or y2 <= y1:
        raise ToolError(f"zoom: [{x1:g}, {y1:g}, {x2:g}, {y2:g}] is no box; wanted x1 < x2 and y1 < y2")
    clipped = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise ToolError(f"zoom: the box lies outside of the image of {width}x{height}")
    return clipped


def _numbers(value: Any, count: int) -> list[float]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != count:
        raise ToolError(f"zoom: wanted {count} numbers, got {str(value)[:80]}")
    for number in value:
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if not is_number or not abs(number) < 1e9:  # NaN too
            raise ToolError(f"zoom: wanted {count} numbers, got {str(value)[:80]}")
    return [float(number) for number in value]


def _widened(region: tuple[float, ...], within: tuple[float, ...]) -> tuple[float, ...]:
    """A sliver grows to `MAX_RATIO`, as far as the image goes: the model's rule takes no thinner image."""
    left, top, right, bottom = region
    width, height = right - left, bottom - top
    if width > MAX_RATIO * height:
        grow = (width / MAX_RATIO - height) / 2
        top, bottom = max(top - grow, within[1]), min(bottom + grow, within[3])
    elif height > MAX_RATIO * width:
        grow = (height / MAX_RATIO - width) / 2
        left, right = max(left - grow, within[0]), min(right + grow, within[2])
    return left, top, right, bottom


def _open(record: Mapping[str, Any]) -> Any:
    """The decoded original; the last ones are kept, for the rollouts of a prompt look at the same image."""
    from dataset.images import decode_image

    key = record.get("path") or hashlib.sha256(record["base64"].encode()).hexdigest()
    if key not in _decoded:
        stored = {"path": record["path"]} if record.get("path") else base64.b64decode(record["base64"])
        _decoded[key] = decode_image(stored)
        while len(_decoded) > 2:
            _decoded.popitem(last=False)
    _decoded.move_to_end(key)
    return _decoded[key]


def _shown(box: Sequence[float]) -> str:
    return "[" + ", ".join(f"{number:.0f}" for number in box) + "]"


TOOL = Tool(
    description='zoom: {"bbox_2d": [x1, y1, x2, y2], "image": N} enlarges a part of an image, in pixels; N from 0.',
    run=run,
    wants_image=True,
    other_names=("image_zoom_in_tool", "crop", "search_coordinate"),
)
