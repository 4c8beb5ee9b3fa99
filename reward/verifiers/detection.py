"""detection: several boxes against several, by optimal one-to-one matching or by AP, with a penalty on spamming boxes.

F1 here is soft: F1 = 2 * sum of the matched IoUs / (boxes written + boxes wanted), where a pair below the IoU threshold
counts 0. The length penalty of VLM-R1, wanted / written for more boxes than wanted, multiplies either metric.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from reward.extract import unwrap
from reward.reading import boxes
from reward.reading.boxes import (
    MAX_CHARS,
    Box,
    Reading,
    check_box_params,
    iou,
    meant,
    read_boxes,
    to_reference_frame,
)
from reward.types import Verdict, Verifier

METRICS = ("f1", "map")
MAP_THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))


def prepare(reference: str, params: Mapping[str, Any]) -> tuple[Box, ...]:
    """Read the reference boxes. Raises ValueError when there is none, one is malformed, or a parameter is unusable."""
    check_box_params(params)
    if params["metric"] not in METRICS:
        raise ValueError(f"spec.metric: got {params['metric']!r}, wanted one of {METRICS}")
    threshold, max_boxes = params["iou_threshold"], params["max_boxes"]
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        raise ValueError(f"spec.iou_threshold: got {threshold!r}, wanted a number in (0, 1]")
    if isinstance(max_boxes, bool) or not isinstance(max_boxes, int) or not 0 < max_boxes <= 1000:
        raise ValueError(f"spec.max_boxes: got {max_boxes!r}, wanted an integer in [1, 1000]")
    reading = read_boxes(unwrap(reference), params["reference_format"])
    if not reading.boxes or reading.num_malformed:
        raise ValueError("wanted boxes of four finite numbers with x1 < x2 and y1 < y2")
    return reading.boxes


def verify(extracted: str, prepared: tuple[Box, ...], params: Mapping[str, Any]) -> Verdict:
    """The chosen metric times the length penalty; the other numbers are reported as parts."""
    if len(extracted) > MAX_CHARS:
        return Verdict(0.0, "rejected", trace=(f"detection: longer than {MAX_CHARS} characters",))
    reading = read_boxes(extracted, params["box_format"])
    num_written = len(reading.boxes) + reading.num_malformed
    if not reading.boxes:
        return Verdict(0.0, "unparseable", trace=("detection: no well-formed box",))
    if num_written > params["max_boxes"]:
        return Verdict(0.0, "rejected", trace=(f"detection: {num_written} boxes, cap {params['max_boxes']}",))
    parts = measures(reading, prepared, params)
    step = "detection: " + ", ".join(f"{name} {value:.4f}" for name, value in parts.items())
    return Verdict(parts[params["metric"]] * parts["length_penalty"], parts=parts, trace=(step,))


def measures(reading: Reading, gold: tuple[Box, ...], params: Mapping[str, Any]) -> dict[str, float]:
    """f1, map, precision, recall and length_penalty, each in [0, 1]."""
    source = meant(params, gold)
    predicted = [to_reference_frame(box, source, params) for box in reading.boxes]
    overlaps = [
        [iou(box, wanted) if _same_class(box, wanted, gold) else 0.0 for wanted in gold] for box in predicted
    ]
    matched = [value for value in matched_overlaps(overlaps) if value >= params["iou_threshold"]]
    num_written = len(reading.boxes) + reading.num_malformed
    return {
        "f1": 2.0 * sum(matched) / (num_written + len(gold)),
        "map": mean_average_precision(predicted, overlaps, gold, num_written),
        "precision": len(matched) / num_written,
        "recall": len(matched) / len(gold),
        "length_penalty": min(1.0, len(gold) / num_written),
    }


def matched_overlaps(overlaps: Sequence[Sequence[float]]) -> list[float]:
    """IoUs of the one-to-one matching with the largest sum; `overlaps` is [predicted, wanted]."""
    if len(overlaps) == 1 or len(overlaps[0]) == 1:
        return [max(value for row in overlaps for value in row)]
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    matrix = np.asarray(overlaps)
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    return matrix[rows, columns].tolist()


def mean_average_precision(
    predicted: Sequence[Box], overlaps: Sequence[Sequence[float]], gold: Sequence[Box], num_written: int
) -> float:
    """AP averaged over classes and the IoU thresholds 0.50:0.05:0.95.

    AP is the integral over recall of the best precision at that recall or above (V-Triune).

    Boxes rank in the order they were written (a model gives no confidences). Malformed boxes rank last.
    """
    classes = sorted({box.label or "" for box in gold})
    scores = []
    for name in classes:
        columns = [index for index, box in enumerate(gold) if (box.label or "") == name]
        rows = [i for i, box in enumerate(predicted) if len(classes) == 1 or (box.label or "") == name]
        block = [[overlaps[row][column] for column in columns] for row in rows]
        scores += [average_precision(block, len(columns), threshold) for threshold in MAP_THRESHOLDS]
    return sum(scores) / len(scores)


def average_precision(overlaps: Sequence[Sequence[float]], num_gold: int, threshold: float) -> float:
    """AP of one class at one IoU threshold; each wanted box is claimed by the first box that fits it best."""
    free, hits, points = set(range(num_gold)), 0, []
    for rank, row in enumerate(overlaps, 1):
        best = max(free, key=lambda column: row[column], default=None)
        if best is not None and row[best] >= threshold - 1e-12:
            free.discard(best)
            hits += 1
        points.append((hits / num_gold, hits / rank))
    area, previous, ceiling = 0.0, 0.0, 0.0
    envelope = []
    for recall, precision in reversed(points):
        ceiling = max(ceiling, precision)
        envelope.append((recall, ceiling))
    for recall, precision in reversed(envelope):
        area += (recall - previous) * precision
        previous = recall
    return area


def _same_class(box: Box, wanted: Box, gold: Sequence[Box]) -> bool:
    """Labels must agree where the references carry them; with one class only a missing label is forgiven."""
    if wanted.label is None:
        return True
    if box.label is None:
        return len({other.label for other in gold}) == 1
    return box.label == wanted.label


DEFAULTS = {"solved_threshold": 0.5, "metric": "f1", "iou_threshold": 0.5, "max_boxes": 256, **boxes.DEFAULTS}
VERIFIER = Verifier(prepare, verify, DEFAULTS)
