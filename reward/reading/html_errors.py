"""Parse errors of a page as the HTML 5 standard defines them (WHATWG HTML, section 13.2.2), counted by html5lib."""

from collections import Counter

import html5lib

# A missing or an old document type asks for quirks mode; the page is read all the same.
_HARMLESS = frozenset((
    "expected-doctype-but-got-start-tag", "expected-doctype-but-got-end-tag", "expected-doctype-but-got-chars",
    "expected-doctype-but-got-eof", "unknown-doctype",
))  # fmt: skip


def parse_errors(page: str) -> Counter[str]:
    """Kind of error (html5lib's name, such as `unexpected-end-tag`) -> how often; empty for a flawless page.

    The parser can take long for hostile pages (nesting is quadratic in it): for workers alone.
    """
    parser = html5lib.HTMLParser()
    parser.parse(page)
    return Counter(kind for _, kind, _ in parser.errors if kind not in _HARMLESS)
