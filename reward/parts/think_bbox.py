"""think_bbox: in spatial reasoning under a thinking prompt, the boxes of relevant objects asked for in the thinking.

The part is only paid for a solved answer (see `reward.score.finish`): a list of numbers in the thinking earns nothing.
"""

import re

from reward.reading.boxes import MAX_CHARS, Box, read_boxes
from reward.spec import Rule
from utils.sample import SPATIAL_PROBLEM_TYPE

MAX_BOXES = 32

_GROUP = re.compile(r"\[[^\[\](){}]{3,200}\]|\((?=[^()]{0,200}\d)[^\[\](){}]{3,200}\)")
_NAME = re.compile(r"[^\W\d_]{3,}")


def applies(problem_type: str | None, prompt_type: str | None, rule: Rule) -> bool:
    """True for spatial problems with a thinking prompt, or where a sample's spec weighs the part."""
    return (
        prompt_type == "think"
        and problem_type == SPATIAL_PROBLEM_TYPE
        and rule.weights.get("think_bbox", 0) > 0
    )


def think_bbox_score(completion: str) -> float:
    """Share of the boxes in the thinking that are well-formed and name an object, in [0, 1].

    A box is well-formed with four finite numbers, x1 < x2 and y1 < y2, all >= 0; an object's name must stand before it
    on its line. Boxes written twice count as malformed; no box, or more than 32, is worth 0.
    """
    start = completion.find("<think>")
    end = completion.find("</think>", max(start, 0))
    if end < 0:
        return 0.0
    thinking = completion[start + len("<think>") if start >= 0 else 0 : end][:MAX_CHARS]
    num_groups, seen = 0, set()
    for match in _GROUP.finditer(thinking):
        reading = read_boxes(match.group())
        numbers = re.findall(r"\d+(?:\.\d+)?", match.group())
        if not reading.boxes and len(numbers) != 4:
            continue  # a remark or a point, not an attempt at a box
        num_groups += 1
        if num_groups > MAX_BOXES:
            return 0.0
        if reading.boxes and _named(thinking, match.start()) and min(reading.boxes[0][:4]) >= 0:
            seen.add(Box(*reading.boxes[0][:4]))
    return len(seen) / num_groups if num_groups else 0.0


def _named(thinking: str, position: int) -> bool:
    line_start = thinking.rfind("\n", 0, position) + 1
    return _NAME.search(thinking, max(line_start, position - 80), position) is not None
