"""Linear scanning of HTML and SVG text, and the Jaccard similarities both code verifiers use.

The scanner never backtracks and never raises: every character is visited a bounded number of times whatever
the model wrote, and an unfinished construct simply reaches the end of the text. It is not a browser; it knows
exactly what the rewards need: element names, their order, and which text is markup commentary.
"""

import re
from collections import Counter
from typing import NamedTuple

# Words of letters, digits and underscores; a decimal number stays one token. Punctuation is left out because
# "<", ">" and "=" occur in every page and would give any two documents a high similarity.
_TOKEN = re.compile(r"\d+\.\d+|\w+")
_TO_BRACKET = r"[^\"'>]*+(?:(?:\"[^\"]*+\"|'[^']*+')[^\"'>]*+)*+>"  # the first one outside quotes
_TAG = re.compile(r"<(/?+)([A-Za-z_][\w:.-]*+)" + _TO_BRACKET)
_DECLARATION = re.compile("<!" + _TO_BRACKET)
_OPENED = re.compile(r"<(?:!|/?[A-Za-z_])")
_RAW_TEXT_ELEMENTS = frozenset({"script", "style", "textarea", "title"})
_CLOSERS = {"comment": ("<!--", "-->"), "cdata": ("<![CDATA[", "]]>"), "instruction": ("<?", "?>")}


class Piece(NamedTuple):
    """One construct of a markup text.

    kind: `start`, `end`, `empty` (self-closing), `comment`, `cdata`, `instruction`, `declaration` or
    `unfinished` (the text ends inside it). name: the element name as written, "" for the others.
    start, end: offsets into the text, end exclusive.
    """

    kind: str
    name: str
    start: int
    end: int


def scan(text: str, *, html: bool) -> list[Piece]:
    """Markup constructs of `text` in order; plain text lies between them. Linear in len(text).

    html: the content of script, style, textarea and title is text, as in HTML; XML has no such rule.
    """
    pieces: list[Piece] = []
    position = 0
    while (opening := text.find("<", position)) >= 0:
        piece = _piece_at(text, opening)
        if piece is None:  # a lone "<" is text
            position = opening + 1
            continue
        pieces.append(piece)
        position = piece.end
        if html and piece.kind == "start" and piece.name.lower() in _RAW_TEXT_ELEMENTS:
            position = _end_of_raw_text(text, piece)
    return pieces


def _piece_at(text: str, opening: int) -> Piece | None:
    tag = _TAG.match(text, opening)
    if tag is not None:
        end = tag.end()
        kind = "end" if tag[1] else "empty" if text[end - 2] == "/" else "start"
        return Piece(kind, tag[2], opening, end)
    for kind, (head, tail) in _CLOSERS.items():
        if text.startswith(head, opening):
            close = text.find(tail, opening + len(head))
            if close < 0:
                return Piece("unfinished", "", opening, len(text))
            return Piece(kind, "", opening, close + len(tail))
    declaration = _DECLARATION.match(text, opening)
    if declaration is not None:
        return Piece("declaration", "", opening, declaration.end())
    return Piece("unfinished", "", opening, len(text)) if _OPENED.match(text, opening) else None


def _end_of_raw_text(text: str, element: Piece) -> int:
    """Offset of the end tag of a raw-text element, or the end of the text (which ends the scan)."""
    end_tag = re.compile(rf"</{re.escape(element.name)}\b", re.IGNORECASE)
    match = end_tag.search(text, element.end)
    return match.start() if match else len(text)


def without_comments(text: str, pieces: list[Piece]) -> str:
    """The text less its comments: words that no reader sees must not count."""
    kept, position = [], 0
    for piece in pieces:
        if piece.kind == "comment":
            kept.append(text[position : piece.start])
            position = piece.end
    kept.append(text[position:])
    return " ".join(kept)


def tokens(text: str) -> Counter[str]:
    """Case-folded word counts."""
    return Counter(_TOKEN.findall(text.lower()))


def tags(pieces: list[Piece]) -> Counter[str]:
    """Lower-case element counts, one per start (or self-closing) tag."""
    return Counter(piece.name.lower() for piece in pieces if piece.kind in {"start", "empty"})


def jaccard(left: Counter[str], right: Counter[str]) -> float:
    """Set Jaccard |A & B| / |A | B| of the keys, in [0, 1]; two empty sets give 0 (nothing was matched)."""
    shared = len(left.keys() & right.keys())
    union = len(left) + len(right) - shared
    return shared / union if union else 0.0


def multiset_jaccard(left: Counter[str], right: Counter[str]) -> float:
    """Multiset Jaccard sum(min) / sum(max) of the counts, in [0, 1]; two empty multisets give 0."""
    common = left.keys() & right.keys()
    shared = sum(map(min, map(left.__getitem__, common), map(right.__getitem__, common)))
    union = left.total() + right.total() - shared
    return shared / union if union else 0.0
