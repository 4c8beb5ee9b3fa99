"""html-code: 0.6 * token Jaccard + 0.4 * tag Jaccard of the predicted and the reference page (project page).

Words and element names are compared as sets by default, so a page with the right vocabulary in any order scores high.
`multiset: true` counts repetitions, `validity_gate: true` gives 0 to text that does not nest as HTML; both readings
are reported as parts of every score so that the gap between them is seen in training.
"""

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from reward.reading import markup
from reward.types import Verdict, Verifier

MAX_CHARS = 200_000
QUICK_CHARS = 20_000  # shorter pages take under a millisecond and are judged in the caller's process

# Elements without content, and those whose end tag HTML lets authors leave out.
# fmt: off
_VOID = frozenset((
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr",
))
_OPTIONAL_END = frozenset((
    "html", "head", "body", "p", "li", "dt", "dd", "option", "optgroup", "tr", "td", "th", "thead", "tbody", "tfoot",
    "colgroup", "caption", "rp", "rt",
))
# fmt: on


class Page(NamedTuple):
    """What is compared: counts of words and elements, and whether the page nests as HTML."""

    tokens: Counter[str]
    tags: Counter[str]
    valid: bool


def read_page(text: str) -> Page:
    """Counts of a page without its comments. Linear in len(text)."""
    pieces = markup.scan(text, html=True)
    visible = markup.without_comments(text, pieces)
    return Page(markup.tokens(visible), markup.tags(pieces), nests(pieces))


def nests(pieces: list[markup.Piece]) -> bool:
    """True when there is at least one element and every end tag closes an open one.

    End tags that HTML makes optional may be missing; any other unclosed, crossed or stray element is invalid.
    """
    open_elements: list[str] = []
    counts: Counter[str] = Counter()
    has_element = False
    for piece in pieces:
        name = piece.name.lower()
        if piece.kind == "unfinished":
            return False
        if piece.kind in {"start", "empty"}:
            has_element = True
        if piece.kind == "start" and name not in _VOID:
            open_elements.append(name)
            counts[name] += 1
        elif piece.kind == "end" and name not in _VOID:
            if not counts[name]:
                return False
            while (closed := open_elements.pop()) != name:
                counts[closed] -= 1
                if closed not in _OPTIONAL_END:
                    return False
            counts[name] -= 1
    return has_element and all(name in _OPTIONAL_END for name in open_elements)


def prepare(reference: str, params: Mapping[str, Any]) -> Page:
    """Counts of the reference page. ValueError: it is too long or holds no element."""
    return _reference_page(reference)


@lru_cache(maxsize=256)  # `quick` comes past the cache of prepared references
def _reference_page(reference: str) -> Page:
    if len(reference) > MAX_CHARS:
        raise ValueError(f"the page has {len(reference)} characters, the limit is {MAX_CHARS}")
    page = read_page(reference)
    if not page.tags:
        raise ValueError("the page has no HTML element")
    return page


def verify(extracted: str, prepared: Page, params: Mapping[str, Any]) -> Verdict:
    """Similarity of the extracted page in [0, 1]; both readings and the validity are parts."""
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
        "valid": float(page.valid),
    }
    accuracy = parts["multiset_similarity" if params["multiset"] else "set_similarity"]
    trace = [
        f"0.6 * tokens {token:.4f} + 0.4 * tags {tag:.4f} as sets = {parts['set_similarity']:.4f}",
        f"0.6 * tokens {token_multi:.4f} + 0.4 * tags {tag_multi:.4f} as multisets = "
        f"{parts['multiset_similarity']:.4f}",
        f"the page {'nests' if page.valid else 'does not nest'} as HTML",
    ]
    if params["validity_gate"] and not page.valid:
        trace.append("validity_gate: invalid markup scores 0")
        return Verdict(0.0, "unparseable", parts, tuple(trace))
    return Verdict(accuracy, "ok", parts, tuple(trace))


def quick(extracted: str, references: tuple[str, ...], params: Mapping[str, Any]) -> Verdict | None:
    """Short pages are judged where they are; long ones go to a worker."""
    if len(extracted) + sum(len(reference) for reference in references) > QUICK_CHARS:
        return None
    verdicts = [verify(extracted, prepare(reference, params), params) for reference in references]
    return max(verdicts, key=lambda verdict: verdict.accuracy)


DEFAULTS = {"solved_threshold": 0.5, "code_block": True, "multiset": False, "validity_gate": False}
VERIFIER = Verifier(prepare, verify, DEFAULTS, isolated=True, deadline_seconds=5.0, quick=quick)
