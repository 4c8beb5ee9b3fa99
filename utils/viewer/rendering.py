"""Drawings and pages that a model wrote, made fit to be shown: nothing in them runs, and nothing asks a host.

An SVG is shown as an image, where browsers run no script and load nothing; what asks for more drawing than a page can
need is refused before (reward/reading/svg_guard.py). HTML is shown in a frame without any right, under a policy that
allows inline style alone.
"""

from __future__ import annotations

import base64
import re

from reward.extract import unwrap
from reward.reading.svg_guard import SvgRejected, SvgUnparseable, find_document, parse, repair_truncated

MAX_CHARS = 100_000
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
# elements of a page's head that can make a browser ask a host even so (prefetch, refresh, base)
ASKING = re.compile(r"<(?=\s*/?\s*(?:meta|link|base|iframe|frame|object|embed)\b)", re.IGNORECASE)


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


def html_source(text: str) -> str:
    """A document for a frame's `srcdoc`; to be escaped like any other attribute."""
    page = ASKING.sub("&lt;", unwrap(text)[:MAX_CHARS])
    return f'<!doctype html><meta http-equiv="Content-Security-Policy" content="{POLICY}">{page}'
