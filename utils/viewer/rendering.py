"""Drawings and pages that a model wrote, made fit to be shown: nothing in them runs, and nothing asks a host.

An SVG is shown as an image, where browsers run no script and load nothing; what asks for more drawing than a page can
need is refused before (reward/reading/svg_guard.py). HTML is parsed as browsers do, left with what can be seen alone,
and shown in a frame without any right, under a policy that allows inline style.
"""

from __future__ import annotations

import base64
import re
from functools import lru_cache

from reward.extract import unwrap
from reward.reading.svg_guard import SvgRejected, SvgUnparseable, find_document, parse, repair_truncated

MAX_CHARS = 60_000
MAX_TAGS = 2_000  # html5lib takes the square of the depth
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_UNSEEN = "script noscript template meta link base iframe frame frameset object embed applet audio video source track"
UNSEEN = frozenset(_UNSEEN.split())
# attributes that are kept: everything else may run, ask for something or lead away
_KEPT = (
    "style class id title alt lang dir width height align valign border cellpadding cellspacing colspan rowspan "
    "bgcolor color face size type value placeholder checked selected disabled rows cols start viewbox d fill stroke "
    "cx cy r x y x1 y1 x2 y2 rx ry points transform opacity stroke-width text-anchor font-size font-family"
)
KEPT = frozenset(_KEPT.split())
OUTWARD = re.compile(
    r"@import[^;]*;?|url\s*\([^)]*\)?|image-set\s*\([^)]*\)?|expression\s*\(|\\", re.IGNORECASE
)


def svg_source(text: str) -> tuple[str | None, str]:
    """(data: address of the drawing in a text, "") or (None, why it is not drawn)."""
    document = find_document(text[:MAX_CHARS])
    if document is None:
        return None, "no svg element"
    try:
        source = parse(repair_truncated(document) or document)[1]
    except (SvgRejected, SvgUnparseable) as error:
        return None, f"not drawn: {error}"
    return "data:image/svg+xml;base64," + base64.b64encode(source).decode(), ""


@lru_cache(maxsize=512)  # a reference is shown beside each of its rollouts
def html_source(text: str) -> tuple[str | None, str]:
    """(document for a frame's `srcdoc`, to be escaped like any other attribute; "") or (None, why it is not drawn)."""
    import html5lib

    page = unwrap(text)
    if not page.strip():
        return None, "no page"
    if len(page) > MAX_CHARS or page.count("<") > MAX_TAGS:
        return None, f"not drawn: more than {MAX_CHARS:,} characters or {MAX_TAGS:,} tags"
    try:
        tree = html5lib.parse(page, treebuilder="etree", namespaceHTMLElements=False)
        _reduce(tree)
        body = html5lib.serialize(tree, tree="etree", omit_optional_tags=False, quote_attr_values="always")
    except (RecursionError, ValueError) as error:
        return None, f"not drawn: {type(error).__name__}"
    return f'<!doctype html><meta http-equiv="Content-Security-Policy" content="{POLICY}">{body}', ""


def _reduce(tree) -> None:
    for parent in list(tree.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or _local(child.tag) in UNSEEN:
                _remove(parent, child)
        kept = {name: value for name, value in parent.attrib.items() if _is_kept(name)}
        parent.attrib.clear()
        parent.attrib.update(
            {name: OUTWARD.sub("", value) if name == "style" else value for name, value in kept.items()}
        )
        if isinstance(parent.tag, str) and _local(parent.tag) == "style":
            parent.text = OUTWARD.sub("", parent.text or "").replace("<", "")


def _remove(parent, child) -> None:
    """A child without the text behind it, which stays."""
    if child.tail:
        before = list(parent)[: list(parent).index(child)]
        if before:
            before[-1].tail = (before[-1].tail or "") + child.tail
        else:
            parent.text = (parent.text or "") + child.tail
    parent.remove(child)


def _is_kept(name) -> bool:
    return isinstance(name, str) and _local(name) in KEPT


def _local(name: str) -> str:
    return name.rpartition("}")[2].lower()
