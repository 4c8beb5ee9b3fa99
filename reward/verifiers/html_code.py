"""html-code: 0.6 * token Jaccard + 0.4 * tag Jaccard of the predicted and the reference page (project page).

Words and element names are compared as sets by default, so a page with the right vocabulary in any order scores high;
both readings, sets and multisets, are parts of every score so that the gap between them is seen in training.

`multiset: true` counts repetitions. `validity_gate: true` gives 0 to a page that has any parse error of the HTML 5
standard more often than its reference has. `render: true` draws both pages in Chromium and pays what they look like
instead: 0.5 * (SSIM above a blank page + words that stand where the reference has them).
"""

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from reward.extract import unwrap
from reward.reading import markup
from reward.reading.browser import BrowserFailed, BrowserTimeout, draw
from reward.reading.html_errors import parse_errors
from reward.reading.page_match import DrawnPage, drawn_page, picture_above_blank, text_position, words
from reward.types import Verdict, Verifier

MAX_CHARS = 800_000
QUICK_CHARS = 20_000  # shorter pages take under a millisecond and are judged in the caller's process


class Page(NamedTuple):
    """What is compared: counts of words and elements; of a reference, also its text, for what is drawn or parsed."""

    tokens: Counter[str]
    tags: Counter[str]
    source: str


def read_page(text: str) -> Page:
    """Counts of a page without its comments. Linear in len(text)."""
    pieces = markup.scan(text, html=True)
    return Page(markup.tokens(markup.without_comments(text, pieces)), markup.tags(pieces), text)


def prepare(reference: str, params: Mapping[str, Any]) -> Page:
    """Counts of the reference page; with `render`, it is drawn once.

    ValueError: it is too long, holds no element, or draws nothing. BrowserUnavailable: there is nothing to draw with.
    """
    page = _reference_page(reference)
    if params["render"]:
        try:
            _reference_drawing(page.source)
        except BrowserFailed as error:
            raise ValueError(f"the page cannot be drawn: {error}") from error
    return page


@lru_cache(maxsize=256)  # `quick` comes past the cache of prepared references
def _reference_page(reference: str) -> Page:
    if len(reference) > MAX_CHARS:
        raise ValueError(f"the page has {len(reference)} characters, the limit is {MAX_CHARS}")
    page = read_page(unwrap(reference))  # as an answer is
    if not page.tags:
        raise ValueError("the page has no HTML element")
    return page


@lru_cache(maxsize=256)
def _reference_errors(reference: str) -> Counter[str]:
    return parse_errors(reference)


@lru_cache(maxsize=32)  # 5 MB each
def _reference_drawing(reference: str) -> DrawnPage:
    return drawn_page(draw(reference))


def is_valid(page: Page, reference: Page) -> bool:
    """Whether a page has an element, and no kind of HTML 5 parse error more often than the reference."""
    return bool(page.tags) and parse_errors(page.source) <= _reference_errors(reference.source)


def verify(extracted: str, prepared: Page, params: Mapping[str, Any]) -> Verdict:
    """Similarity of the extracted page in [0, 1]; whatever is not paid is still a part."""
    if len(extracted) > MAX_CHARS:
        return Verdict(0.0, "rejected", trace=(f"the page is longer than {MAX_CHARS} characters",))
    page = read_page(extracted)
    token, tag = markup.jaccard(page.tokens, prepared.tokens), markup.jaccard(page.tags, prepared.tags)
    token_multi = markup.multiset_jaccard(page.tokens, prepared.tokens)
    tag_multi = markup.multiset_jaccard(page.tags, prepared.tags)
    parts = {
        "token_jaccard": token,
        "tag_jaccard": tag,
        "set_similarity": 0.6 * token + 0.4 * tag,
        "multiset_similarity": 0.6 * token_multi + 0.4 * tag_multi,
    }
    accuracy = parts["multiset_similarity" if params["multiset"] else "set_similarity"]
    trace = [
        f"0.6 * tokens {token:.4f} + 0.4 * tags {tag:.4f} as sets = {parts['set_similarity']:.4f}",
        f"0.6 * tokens {token_multi:.4f} + 0.4 * tags {tag_multi:.4f} as multisets = "
        f"{parts['multiset_similarity']:.4f}",
    ]
    if params["validity_gate"]:
        parts["valid"] = float(is_valid(page, prepared))
        if not parts["valid"]:
            trace.append("validity_gate: more parse errors than the reference has, or no element, scores 0")
            return Verdict(0.0, "unparseable", parts, tuple(trace))
    if params["render"]:
        return _rendered(page, prepared, parts, trace)
    return Verdict(accuracy, "ok", parts, tuple(trace))


def _rendered(page: Page, prepared: Page, parts: dict[str, float], trace: list[str]) -> Verdict:
    """The verdict by what the pages look like."""
    if not page.tags:
        return Verdict(0.0, "unparseable", parts, (*trace, "render: no HTML element"))
    reference = _reference_drawing(prepared.source)
    try:
        rendering = draw(page.source)
    except BrowserFailed as error:
        status = "timeout" if isinstance(error, BrowserTimeout) else "crash"
        return Verdict(0.0, status, parts, (*trace, f"render: {error}"))
    similarity, above = picture_above_blank(rendering, reference)
    parts |= {"ssim": similarity, "blank_ssim": reference.blank_ssim, "ssim_above_blank": above}
    matched = text_position(words(rendering), reference.words)
    if matched is None:
        trace.append(f"render: neither page has words; SSIM above blank {above:.4f}")
        return Verdict(above, "ok", parts, tuple(trace))
    parts["text_position"] = matched
    trace.append(f"render: 0.5 * (SSIM above blank {above:.4f} + words in their places {matched:.4f})")
    return Verdict(0.5 * (above + matched), "ok", parts, tuple(trace))


def quick(extracted: str, references: tuple[str, ...], params: Mapping[str, Any]) -> Verdict | None:
    """Short pages are judged where they are; long ones, and those to parse or draw, go to a worker."""
    slow = params["validity_gate"] or params["render"]
    if slow or len(extracted) + sum(len(reference) for reference in references) > QUICK_CHARS:
        return None
    verdicts = [verify(extracted, prepare(reference, params), params) for reference in references]
    return max(verdicts, key=lambda verdict: verdict.accuracy)


DEFAULTS = {
    "solved_threshold": 0.5,
    "code_block": True,
    "multiset": False,
    "validity_gate": False,
    "render": False,
}
# A browser starts in a second or two and draws in a fifth of one; its own limits are shorter.
VERIFIER = Verifier(prepare, verify, DEFAULTS, isolated=True, deadline_seconds=30.0, quick=quick)
