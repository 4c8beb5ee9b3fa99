"""How alike two drawn pages are: their pictures by SSIM above a blank page, their words by what stands where.

A picture alone is lenient (most of a page is white), words alone forget where they stand. Both are 1 for a page and
itself; neither pays for a blank page.
"""

import re
from collections import defaultdict
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from reward.reading.browser import HEIGHT, WIDTH, Rendering
from reward.reading.ssim import ReferenceImage, reference_image, ssim

REACH = 0.1 * WIDTH  # CSS pixels: a word this far from its place is worth nothing, half as far a half
MAX_OCCURRENCES = 200  # of one word that are matched optimally; more are matched in reading order

# A run of letters and digits, or one character of a script that does not put spaces between words.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)


class DrawnPage(NamedTuple):
    """A reference: its picture's statistics, the SSIM of a blank page with it, and the places of each of its words."""

    picture: ReferenceImage
    blank_ssim: float
    words: dict[str, np.ndarray]


def drawn_page(rendering: Rendering) -> DrawnPage:
    """What is kept of a reference to compare pages with. ValueError: it shows nothing."""
    white = np.full_like(rendering.image, 255)
    picture = reference_image(rendering.image)
    blank = max(ssim(white, picture), 0.0)
    if blank >= 1.0:
        raise ValueError("the page draws nothing")
    return DrawnPage(picture, blank, words(rendering))


def picture_above_blank(rendering: Rendering, reference: DrawnPage) -> tuple[float, float]:
    """SSIM in [0, 1], and its share above that of a blank page: (s - b) / (1 - b), at least 0."""
    similarity = max(ssim(rendering.image, reference.picture), 0.0)
    return similarity, max((similarity - reference.blank_ssim) / (1.0 - reference.blank_ssim), 0.0)


def words(rendering: Rendering) -> dict[str, np.ndarray]:
    """Case-folded words of the part that is looked at -> their centres (y, x), float [count, 2], in reading order."""
    places: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for text, left, top, width, height in rendering.runs:
        y = top + height / 2
        for match in _WORD.finditer(text):
            x = left + width * (match.start() + match.end()) / (2 * len(text))
            if 0 <= x < WIDTH and 0 <= y < HEIGHT:
                places[match.group().casefold()].append((y, x))
    return {word: np.array(sorted(found)) for word, found in places.items()}


def text_position(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> float | None:
    """2 * sum(credit of matched words) / (words left + words right), in [0, 1]; None when neither page has words.

    A word is matched one to one with the same word of the other page; credit is 1 at the same place, falling linearly
    to 0 at REACH.
    """
    total = sum(map(len, left.values())) + sum(map(len, right.values()))
    if not total:
        return None
    return 2.0 * sum(_credit(left[word], right[word]) for word in left.keys() & right.keys()) / total


def _credit(left: np.ndarray, right: np.ndarray) -> float:
    if max(len(left), len(right)) > MAX_OCCURRENCES:
        count = min(len(left), len(right))
        distances = np.linalg.norm(left[:count] - right[:count], axis=1)
        return float(np.maximum(1.0 - distances / REACH, 0.0).sum())
    credit = np.maximum(1.0 - np.linalg.norm(left[:, None] - right[None], axis=2) / REACH, 0.0)
    return float(credit[linear_sum_assignment(credit, maximize=True)].sum())
