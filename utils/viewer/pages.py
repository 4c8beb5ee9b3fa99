"""Pages from templates: every text is escaped by Jinja, what is seldom opened is packed, none is over its limit."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from utils.files import replacing
from utils.viewer.groups import LIMITS, shortened

HERE = Path(__file__).parent
MAX_PAGE_BYTES = 1_900_000
ASSETS = ("style.css", "viewer.js")
BOKEH = ("bokeh.min.js", "bokeh-api.min.js")


def render(template: str, **values: Any) -> str:
    """A template filled in. Whatever is not marked as markup is escaped."""
    return ENVIRONMENT.get_template(template).render(**values)


def packed(markup: str) -> str:
    """Markup for the page to unfold when it is wanted (assets/viewer.js): deflated, as base64."""
    return base64.b64encode(zlib.compress(markup.encode("utf-8", "replace"), 6)).decode()


def within_limit(build: Callable[[int], str]) -> str:
    """The page that `build` makes with the longest texts that fit; it gets the number of characters of a text."""
    for limit in LIMITS:
        page = build(limit)
        if len(page.encode("utf-8", "replace")) <= MAX_PAGE_BYTES:
            return page
    return page


def write(path: Path, page: str) -> None:
    """Whole or not at all: a browser may be looking."""
    with replacing(path) as file:
        file.write(page.encode("utf-8", "replace"))


def write_assets(output: Path) -> None:
    """Style and scripts, and Bokeh's own from its package."""
    folder = output / "assets"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ASSETS:
        (folder / name).write_bytes((HERE / "assets" / name).read_bytes())
    package = Path(importlib.util.find_spec("bokeh").origin).parent  # importing it would take a second
    for name in BOKEH:
        source, target = package / "server/static/js" / name, folder / name
        if not target.exists() or target.stat().st_size != source.stat().st_size:
            target.write_bytes(source.read_bytes())


def linker(page: Path) -> Callable[[Path], str]:
    """Addresses relative to a page; quoted, so that a name cannot leave its attribute or become a scheme."""
    start = page.parent.resolve()

    def link(path: Path) -> str:
        return quote(os.path.relpath(path.resolve(), start))

    return link


def script_json(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def number(value: Any, digits: int = 3) -> str:
    """A number for people: whole ones as they are, others with `digits` places."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}f}" if abs(value) >= 10**-digits or value == 0 else f"{value:.1e}"


def slug(text: str) -> str:
    """A file name."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in text)
    return kept.strip(".-")[:80] or "run"


def nearest(numbers: Sequence[int], wanted: int, before: bool) -> int | None:
    """The neighbour of `wanted` among sorted numbers."""
    side = [n for n in numbers if (n < wanted if before else n > wanted)]
    return (side[-1] if before else side[0]) if side else None


def environment() -> jinja2.Environment:
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"short": shortened, "json": script_json, "number": number, "slug": slug}
    return env


ENVIRONMENT = environment()
