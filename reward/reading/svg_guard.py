"""Checks on an SVG document before anything draws it, and the one repair that truncated output gets.

A document is refused when it declares entities inside its root, reaches outside itself (network, files, style sheets),
embeds anything but a small raster image, or asks for more drawing than a page can need. References (`use`, patterns,
masks, clips, markers) are expanded arithmetically, in time linear in the document: six levels of ten `use` elements
are a million drawings in 500 bytes. What passes here still runs in a worker with a deadline and a memory limit.
"""

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from reward.reading import markup

MAX_ELEMENTS = 5_000
MAX_DEPTH = 64
MAX_DRAWINGS = 20_000  # elements drawn once references are expanded
MAX_CANVAS = 32_768.0  # user units, either side
MAX_IMAGE_CHARS = 1_000_000
MAX_ENTITY_CHARS = 100_000  # that the entities of a document type may add to it

_SVG = "http://www.w3.org/2000/svg"
_LOCAL_URL = re.compile(r"url\(\s*+[\"']?+\s*+#([^)\"']*)", re.IGNORECASE)
_ANY_URL = re.compile(r"url\(\s*+[\"']?+\s*+(?![#\s\"'])", re.IGNORECASE)
_RASTER = re.compile(r"\s*data:(?:image/(?:png|jpe?g|gif|webp))?;base64,", re.IGNORECASE)
# Plain text alone: no markup, and no reference to another entity, so that nothing can grow or recurse.
_ENTITY = re.compile(r"<!ENTITY\s+([A-Za-z_][\w.-]*)\s+(?:\"([^\"<&%]*)\"|'([^'<&%]*)')\s*>")
_NUMBER = re.compile(r"\d+")
_LENGTH = re.compile(r"\s*+([-+]?(?:\d++(?:\.\d++)?+|\.\d++)(?:e[-+]?\d++)?+)", re.IGNORECASE)
# Painted again for every element that inherits them; masks, clips and filters apply once.
_INHERITED = ("fill", "stroke", "marker", "style")


class SvgRejected(Exception):
    """The document is refused; the message says why."""


class SvgUnparseable(Exception):
    """The document is not well-formed XML with an svg root."""


def find_document(text: str) -> str | None:
    """The first `svg` root element in `text` with what belongs to it, or None when there is none.

    Prose before and after is dropped; the first element must be the svg itself, so an HTML page is not an SVG. Entities
    that stand for plain text (drawing programs declare their namespaces so) are replaced by it.
    """
    pieces = markup.scan(text, html=False)
    first = next((i for i, piece in enumerate(pieces) if piece.kind in {"start", "empty", "end"}), None)
    if first is None or pieces[first].kind == "end" or local_name(pieces[first].name) != "svg":
        return None
    start, depth = pieces[first].start, 0
    for piece in pieces[first:]:
        depth += {"start": 1, "end": -1}.get(piece.kind, 0)
        if depth <= 0:
            return _expanded(text[start : piece.end], text[:start])
    return _expanded(text[start:], text[:start])


def _expanded(document: str, prolog: str) -> str:
    """`document` with the plain entities that `prolog` declares; unchanged when they would add too much to it."""
    values: dict[str, str] = {}
    for name, double, single in _ENTITY.findall(prolog):
        if name not in {"amp", "lt", "gt", "quot", "apos"}:
            values.setdefault(name, (double or single).replace('"', "&quot;").replace("'", "&apos;"))
    uses = re.compile(r"&([A-Za-z_][\w.-]*);")
    added = sum(len(values.get(name, "")) for name in uses.findall(document)) if values else 0
    if not added or added > MAX_ENTITY_CHARS:
        return document
    return uses.sub(lambda use: values.get(use.group(1), use.group()), document)


def repair_truncated(document: str) -> str | None:
    """`document` cut back to its last finished construct with the open elements closed; None if it is not truncated.

    Nothing else is mended: crossed or stray tags make the document unparseable, as they do anywhere.
    """
    pieces = markup.scan(document, html=False)
    open_elements: list[str] = []
    end = len(document)
    for piece in pieces:
        if piece.kind == "start":
            open_elements.append(piece.name)
        elif piece.kind == "end":
            if not open_elements or open_elements.pop() != piece.name:
                return None
        elif piece.kind == "unfinished":
            end = piece.start
    if end == len(document) and not open_elements:
        return None
    body = document[:end]
    lone = body.rfind("<")
    if lone > body.rfind(">"):  # "</" or "<" with no name yet
        body = body[:lone]
    partial = body.rfind("&")
    if partial > max(body.rfind(";"), body.rfind(">")):  # half a character reference
        body = body[:partial]
    return body + "".join(f"</{name}>" for name in reversed(open_elements))


def parse(document: str) -> tuple[Element, bytes]:
    """The checked tree and the bytes to draw.

    SvgRejected: a guard refuses it. SvgUnparseable: not well-formed. Undeclared `svg` and `xlink` namespaces, which
    models leave out and browsers assume in HTML, are declared.
    """
    if any(piece.kind == "declaration" for piece in markup.scan(document, html=False)):
        raise SvgRejected("a document type or entity declaration inside the document")
    source = _with_namespaces(document).encode("utf-8", "replace")
    parser = XMLParser(target=_CountingBuilder())
    try:
        parser.feed(source)
        root = parser.close()
    except (ParseError, ValueError) as error:
        raise SvgUnparseable(str(error)) from error
    if local_name(root.tag) != "svg":
        raise SvgUnparseable(f"the root element is {root.tag!r}")
    _check_canvas(root)
    for element in root.iter():
        _check_references(element)
    _check_drawings(root)
    return root, source


def local_name(name: str) -> str:
    """Element name without namespace or prefix, lower case."""
    return name.rpartition("}")[2].rpartition(":")[2].lower()


class _CountingBuilder(TreeBuilder):
    """Builds the tree and stops at the caps, so that no tree larger than them ever exists."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0
        self.num_elements = 0

    def start(self, tag: str, attrs: dict[str, str]) -> Element:
        self.depth += 1
        self.num_elements += 1
        if self.depth > MAX_DEPTH:
            raise SvgRejected(f"elements nest deeper than {MAX_DEPTH}")
        if self.num_elements > MAX_ELEMENTS:
            raise SvgRejected(f"more than {MAX_ELEMENTS} elements")
        return super().start(tag, attrs)

    def end(self, tag: str) -> Element:
        self.depth -= 1
        return super().end(tag)


def _with_namespaces(document: str) -> str:
    root = markup.scan(document[: 1 << 16], html=False)[0]
    head = document[root.start : root.end]
    insertion = root.start + 1 + len(root.name)
    missing = ""
    if root.name == "svg" and not re.search(r"\sxmlns\s*=", head):
        missing += f' xmlns="{_SVG}"'
    if "xlink:" in document and "xmlns:xlink" not in document:
        missing += ' xmlns:xlink="http://www.w3.org/1999/xlink"'
    return document[:insertion] + missing + document[insertion:]


def _check_canvas(root: Element) -> None:
    sides = [root.get("width", ""), root.get("height", ""), *re.split(r"[\s,]+", root.get("viewBox", ""))[2:]]
    for side in sides:
        match = _LENGTH.match(side)
        if match and not float(match.group(1)) <= MAX_CANVAS:
            raise SvgRejected(f"a canvas side of {side[:40]!r}, the limit is {MAX_CANVAS:g}")


def _check_references(element: Element) -> None:
    """Refuse anything that names a resource outside the document."""
    kind = local_name(element.tag)
    if kind == "script":
        raise SvgRejected("a script element")
    for name, value in element.attrib.items():
        if _ANY_URL.search(value):
            raise SvgRejected(f"{name} refers to {value[:60]!r}, outside the document")
        if local_name(name) != "href" or kind == "a" or value.strip().startswith("#") or not value.strip():
            continue
        raster = kind == "image" and _RASTER.match(value) and len(value) <= MAX_IMAGE_CHARS
        if not raster:
            raise SvgRejected(f"{kind} refers to {value[:60]!r}, outside the document")
    if kind == "style":
        text = "".join(element.itertext())
        if "@import" in text.lower() or "\\" in text or _ANY_URL.search(text):
            raise SvgRejected("a style sheet that reaches outside the document")


def _check_drawings(root: Element) -> None:
    """Refuse reference cycles and documents whose expansion exceeds MAX_DRAWINGS elements or MAX_DEPTH levels."""
    by_id = {element.get("id"): element for element in root.iter() if element.get("id")}
    has_markers = any(local_name(element.tag) == "marker" for element in by_id.values())
    expansion = _Expansion(by_id, has_markers)
    cost, _ = expansion.measure(root)
    sheet_urls = [
        match
        for element in root.iter()
        if local_name(element.tag) == "style"
        for match in _LOCAL_URL.findall("".join(element.itertext()))
    ]
    sheet_cost = sum(
        expansion.measure(by_id[name.strip()])[0] for name in sheet_urls if name.strip() in by_id
    )
    if cost * (1 + sheet_cost) > MAX_DRAWINGS:
        raise SvgRejected(f"more than {MAX_DRAWINGS} elements once references are expanded")


class _Expansion:
    """Number of drawings and nesting depth of each element with its references expanded; each is visited once."""

    def __init__(self, by_id: dict[str, Element], has_markers: bool) -> None:
        self.by_id = by_id
        self.has_markers = has_markers
        self.known: dict[Element, tuple[int, int]] = {}
        self.active: set[Element] = set()

    def measure(self, element: Element) -> tuple[int, int]:
        if element in self.known:
            return self.known[element]
        if element in self.active:
            raise SvgRejected("elements that refer to each other in a circle")
        if len(self.active) > 2 * MAX_DEPTH:
            raise SvgRejected(f"references nest deeper than {2 * MAX_DEPTH}")
        if local_name(element.tag) in {"lineargradient", "radialgradient"}:
            return 1, 1  # one paint, whatever its stops; circular gradients are resolved by the renderer
        self.active.add(element)
        cost, depth = 1 + self._vertices(element), 0
        for child in element:
            child_cost, child_depth = self.measure(child)
            cost, depth = cost + child_cost, max(depth, child_depth)
        repeated = 0
        for name, target in self._references(element):
            target_cost, target_depth = self.measure(target)
            depth = max(depth, target_depth)
            if local_name(name).startswith(_INHERITED):
                repeated += target_cost
            else:
                cost += target_cost
        cost *= 1 + repeated
        if cost > MAX_DRAWINGS or depth >= 2 * MAX_DEPTH:
            raise SvgRejected(f"more than {MAX_DRAWINGS} elements or {2 * MAX_DEPTH} levels once expanded")
        self.active.discard(element)
        self.known[element] = (cost, depth + 1)
        return self.known[element]

    def _vertices(self, element: Element) -> int:
        """Places where a marker may be drawn: at most one per pair of numbers of a path."""
        if not self.has_markers:
            return 0
        return len(_NUMBER.findall(element.get("d", "") + " " + element.get("points", ""))) // 2

    def _references(self, element: Element) -> Iterator[tuple[str, Element]]:
        for name, value in element.attrib.items():
            if local_name(name) == "href" and local_name(element.tag) != "a":
                names = [value.strip().removeprefix("#")]
            else:
                names = _LOCAL_URL.findall(value)
            for target in names:
                if target.strip() in self.by_id:
                    yield name, self.by_id[target.strip()]
