"""bbox: IoU of the single predicted box with the reference box, IoU = I / (A1 + A2 - I).

Several boxes for the one target share its credit: the best IoU is divided by their number. An IoU below eps scores 0;
eps may rise over training as in V-Triune (0.85 until 10 % of progress, 0.95 until 25 %, then 0.99).
"""

from collections.abc import Mapping
from typing import Any

from reward.extract import unwrap
from reward.reading import boxes
from reward.reading.boxes import MAX_CHARS, Box, check_box_params, iou, meant, read_boxes, to_reference_frame
from reward.types import Verdict, Verifier

EPS_SCHEDULE = ((0.10, 0.85), (0.25, 0.95), (1.0, 0.99))  # (until this share of training, eps)


def eps_at(progress: float | None, params: Mapping[str, Any]) -> float:
    """The IoU below which the score is 0.

    Without a schedule, or without a progress (curation, evaluation), the fixed `eps` of the spec holds.
    """
    schedule = params["eps_schedule"]
    if not schedule or progress is None:
        return params["eps"]
    steps = EPS_SCHEDULE if schedule is True else schedule
    return next((eps for until, eps in steps if progress < until), steps[-1][1])


def prepare(reference: str, params: Mapping[str, Any]) -> Box:
    """Read the one reference box. Raises ValueError when it is not exactly one box or a parameter is unusable."""
    check_box_params(params)
    _check_eps(params)
    reading = read_boxes(unwrap(reference), params["reference_format"])
    if len(reading.boxes) != 1 or reading.num_malformed:
        raise ValueError(
            f"wanted one box of four finite numbers with x1 < x2 and y1 < y2, got {len(reading.boxes)}"
        )
    return reading.boxes[0]


def verify(extracted: str, prepared: Box, params: Mapping[str, Any]) -> Verdict:
    """The IoU of the predicted box, 0 below eps."""
    if len(extracted) > MAX_CHARS:
        return Verdict(0.0, "rejected", trace=(f"bbox: longer than {MAX_CHARS} characters",))
    reading = read_boxes(extracted, params["box_format"])
    num_boxes = len(reading.boxes) + reading.num_malformed
    if not reading.boxes:
        return Verdict(0.0, "unparseable", trace=("bbox: no four finite numbers with x1 < x2 and y1 < y2",))
    source = meant(params, [prepared])
    best = max(iou(to_reference_frame(box, source, params), prepared) for box in reading.boxes)
    shared = best / num_boxes
    eps = eps_at(params.get("progress"), params)
    accuracy = shared if shared >= eps else 0.0
    step = f"bbox: IoU {best:.4f}, {source} coordinates, boxes written {num_boxes}, eps {eps}"
    parts = {
        "iou": best,
        "num_boxes": float(num_boxes),
        "image_share": image_share(reading.boxes[0], source, params),
    }
    return Verdict(accuracy, parts={k: v for k, v in parts.items() if v is not None}, trace=(step,))


def image_share(box: Box, source: str, params: Mapping[str, Any]) -> float | None:
    """Share of the image that a predicted box, in `source` coordinates, covers, in [0, 1]; None where the image's size
    is not known.
    """
    sizes = {"normalized": (1.0, 1.0), "permille": (1000.0, 1000.0), "absolute": params["image_size"]}
    size = sizes[source]
    if size is None:
        return None
    return iou(box, Box(0.0, 0.0, float(size[0]), float(size[1])))


def _check_eps(params: Mapping[str, Any]) -> None:
    eps, schedule = params["eps"], params["eps_schedule"]
    if not _is_share(eps):
        raise ValueError(f"spec.eps: got {eps!r}, wanted a number in [0, 1]")
    if schedule in (None, False, True):
        return
    pairs = isinstance(schedule, list | tuple) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(_is_share(value) for value in pair)
        for pair in schedule
    )
    if not pairs or not schedule or list(schedule) != sorted(schedule):
        raise ValueError(
            f"spec.eps_schedule: got {schedule!r}, wanted true or rising pairs [until progress, eps]"
        )


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


DEFAULTS = {"solved_threshold": 0.5, "eps": 0.0, "eps_schedule": None, **boxes.DEFAULTS}
VERIFIER = Verifier(prepare, verify, DEFAULTS)
