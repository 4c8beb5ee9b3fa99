"""svg-code: 0.5 * SSIM of the 336x336 renderings on white + 0.25 * (token Jaccard + tag Jaccard) (project page).

A blank canvas already has a high SSIM with a sparse drawing. `ssim_above_blank` = (SSIM - blank) / (1 - blank), with
blank = SSIM(white, reference), is therefore reported with every score and takes SSIM's place when the sample's spec
sets `ssim_above_blank: true`. Without an svg root the score is 0; a document that cannot be drawn keeps the text
half and gets 0 for the image.
"""

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from reward.reading import markup
from reward.reading.ssim import ReferenceImage, reference_image, ssim
from reward.reading.svg_guard import SvgRejected, SvgUnparseable, find_document, parse, repair_truncated
from reward.reading.svg_render import SIDE, RenderFailed, render
from reward.types import Status, Verdict, Verifier

MAX_CHARS = 800_000


class Drawing(NamedTuple):
    """A reference: its words and elements, its source for `_statistics`, and the SSIM that a blank canvas reaches."""

    tokens: Counter[str]
    tags: Counter[str]
    source: bytes
    blank_ssim: float


def prepare(reference: str, params: Mapping[str, Any]) -> Drawing:
    """Render and measure a reference. ValueError: it is no drawable SVG document."""
    document = find_document(reference)
    if document is None or len(reference) > MAX_CHARS:
        raise ValueError(f"no svg root, or more than {MAX_CHARS} characters")
    try:
        source = parse(document)[1]
        image = _statistics(source)
    except (SvgRejected, SvgUnparseable, RenderFailed) as error:
        raise ValueError(f"the drawing cannot be rendered: {error}") from error
    white = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    return Drawing(*_counts(document), source, max(ssim(white, image), 0.0))


def verify(extracted: str, prepared: Drawing, params: Mapping[str, Any]) -> Verdict:
    """Similarity of the extracted drawing in [0, 1] with all its parts."""
    if len(extracted) > MAX_CHARS:
        return Verdict(0.0, "rejected", trace=(f"the document is longer than {MAX_CHARS} characters",))
    document = find_document(extracted)
    if document is None:
        return Verdict(0.0, "unparseable", trace=("no svg root element",))
    image_ssim, status, trace, repaired = _image_similarity(document, prepared)
    above = _above_blank(image_ssim, prepared.blank_ssim)
    counts = _counts(document)
    token, tag = markup.jaccard(counts[0], prepared.tokens), markup.jaccard(counts[1], prepared.tags)
    image_part = above if params["ssim_above_blank"] else image_ssim
    accuracy = 0.5 * image_part + 0.25 * (token + tag)
    parts = {
        "ssim": image_ssim,
        "blank_ssim": prepared.blank_ssim,
        "ssim_above_blank": above,
        "token_jaccard": token,
        "tag_jaccard": tag,
        "repaired": float(repaired),
    }
    rule = f"0.5 * image {image_part:.4f} + 0.25 * (tokens {token:.4f} + tags {tag:.4f}) = {accuracy:.4f}"
    return Verdict(accuracy, status, parts, (*trace, rule))


def _image_similarity(document: str, prepared: Drawing) -> tuple[float, Status, tuple[str, ...], bool]:
    """SSIM in [0, 1] (0 when nothing can be drawn), the status, the trace, and whether truncation was repaired."""
    repaired = repair_truncated(document)
    try:
        _, source = parse(document if repaired is None else repaired)
        similarity = max(ssim(render(source), _statistics(prepared.source)), 0.0)
    except SvgRejected as error:
        return 0.0, "rejected", (f"refused before drawing: {error}",), repaired is not None
    except (SvgUnparseable, RenderFailed) as error:
        return 0.0, "unparseable", (f"cannot be drawn: {error}",), repaired is not None
    note = "truncated output was closed; " if repaired is not None else ""
    trace = f"{note}SSIM {similarity:.4f}; a blank canvas reaches {prepared.blank_ssim:.4f}"
    return similarity, "ok", (trace,), repaired is not None


@lru_cache(maxsize=64)  # 2.3 MB each; prepared references themselves are cached in far larger numbers
def _statistics(source: bytes) -> ReferenceImage:
    """Window statistics of a reference's rendering."""
    return reference_image(render(source))


def _above_blank(similarity: float, blank: float) -> float:
    """(s - b) / (1 - b) clipped to [0, 1]; a reference that is itself blank has nothing above it but identity."""
    if blank >= 1.0:
        return float(similarity >= 1.0)
    return min(max((similarity - blank) / (1.0 - blank), 0.0), 1.0)


def _counts(document: str) -> tuple[Counter[str], Counter[str]]:
    pieces = markup.scan(document, html=False)
    return markup.tokens(markup.without_comments(document, pieces)), markup.tags(pieces)


DEFAULTS = {"solved_threshold": 0.5, "code_block": True, "unclosed_answer": True, "ssim_above_blank": False}
VERIFIER = Verifier(prepare, verify, DEFAULTS, isolated=True, deadline_seconds=5.0, remembers=True)
