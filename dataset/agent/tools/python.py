"""python: runs a program in the sandbox of the code rewards; what it prints comes back, and one figure.

The sandbox has the standard library alone, no network and no files of ours (docs/rewards_code_sandbox.md). A figure is
what the program leaves in the variable `figure`: the text of an SVG document, the bytes of a PNG, or rows of numbers
from 0 to 255 (grey) or of triples of them (RGB).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from dataset.agent.types import Tool, ToolError

MAX_CODE_CHARS = 20_000
MAX_FIGURE_PIXELS = 4_000_000
GRACE_SECONDS = 0.75  # of the call's deadline, for starting the sandbox and drawing the figure

_PROGRAM = """
import sys as _sys
_names = {{"__name__": "__main__"}}
try:
    exec(compile({source!r}, "<call>", "exec"), _names)
except SystemExit:
    pass
except BaseException as _error:
    import traceback as _traceback
    _lines = _traceback.format_exception_only(type(_error), _error)
    _place = [f.lineno for f in _traceback.extract_tb(_error.__traceback__) if f.filename == "<call>"]
    print((f"line {{_place[-1]}}: " if _place else "") + "".join(_lines).strip()[:500])
figure = _names.get("figure")
"""


def run(arguments: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Printed text and figure. `context` has `seconds` and `limits`, see the zoom."""
    from reward.sandbox.session import SandboxDied, open_session

    code = arguments.get("code")
    if not isinstance(code, str) or not code.strip():
        raise ToolError("python: wanted {'code': TEXT}")
    if len(code) > MAX_CODE_CHARS:
        raise ToolError(f"python: the program has {len(code)} characters; at most {MAX_CODE_CHARS} are run")
    seconds = max(context["seconds"] - GRACE_SECONDS, 0.1)
    try:
        with open_session(_PROGRAM.format(source=code)) as session:
            outcome = session.run({"expression": "figure"}, seconds)
    except SandboxDied as error:
        raise ToolError("python: the program ended its interpreter") from error
    if outcome.end == "timeout":
        raise ToolError(f"python: the program did not end within {seconds:.1f} seconds")
    if outcome.end == "output":
        raise ToolError("python: the program printed too much")
    if outcome.end != "done":
        return {"text": (outcome.stdout + "\nThe program ended early.").strip()}
    reply: dict[str, Any] = {"text": outcome.stdout.strip()}
    value = json.loads(outcome.record or "null")
    figure = _plain(value["value"]) if isinstance(value, Mapping) else None
    if figure is not None:
        from dataset.images import resize_to_limits, to_base64_png

        image = resize_to_limits(_drawn(figure), **context["limits"])
        reply["images"] = [{"png": to_base64_png(image), "region": None, "size": image.size}]
    if not reply["text"] and figure is None:
        reply |= {"text": "The program printed nothing.", "without_effect": True}
    return reply


def _plain(value: Any) -> Any:
    """The record's `[type, content]` as text, bytes, numbers and lists; None for anything else."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    kind, content = value
    if kind in ("list", "tuple"):
        return [_plain(item) for item in content]
    read = {"str": str, "bytes": bytes.fromhex, "int": lambda text: int(text, 16), "float": float.fromhex}
    return read[kind](content) if kind in read else None


def _drawn(figure: Any) -> Any:
    """The figure as an RGB image. Raises ToolError for what is none."""
    from PIL import Image

    from dataset.images import ImageError, decode_image

    if isinstance(figure, str):
        return Image.fromarray(_svg(figure))
    if isinstance(figure, bytes):
        try:
            with Image.open(io.BytesIO(figure)) as opened:
                if opened.width * opened.height > MAX_FIGURE_PIXELS:
                    raise ToolError(f"python: a figure of {opened.width}x{opened.height} pixels is too large")
            return decode_image(figure, "figure")
        except (ImageError, OSError, ValueError) as error:
            raise ToolError(f"python: the figure is no image: {str(error)[:200]}") from error
    import numpy as np

    try:
        pixels = np.asarray(figure, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ToolError("python: the figure's rows differ in length or hold no numbers") from error
    is_grey, is_rgb = pixels.ndim == 2, pixels.ndim == 3 and pixels.shape[-1] == 3
    if not (is_grey or is_rgb) or 0 in pixels.shape or pixels.shape[0] * pixels.shape[1] > MAX_FIGURE_PIXELS:
        raise ToolError(f"python: a figure of shape {pixels.shape} cannot be shown; wanted rows of pixels")
    return Image.fromarray(np.nan_to_num(pixels).clip(0, 255).astype(np.uint8)).convert("RGB")


def _svg(text: str) -> Any:
    from reward.reading.svg_guard import SvgRejected, SvgUnparseable, find_document, parse
    from reward.reading.svg_render import RenderFailed, render

    document = find_document(text)
    if document is None:
        raise ToolError("python: the figure is text, but no SVG document")
    try:
        return render(parse(document)[1])
    except (SvgRejected, SvgUnparseable, RenderFailed) as error:
        raise ToolError(f"python: the figure cannot be drawn: {str(error)[:200]}") from error


TOOL = Tool(
    description='python: {"code": TEXT} runs a program (standard library only) and returns what it prints; an SVG '
    "text, PNG bytes or rows of pixels left in the variable `figure` come back as an image.",
    run=run,
    other_names=("code_interpreter", "execute_python"),
)
