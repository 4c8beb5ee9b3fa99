"""Draw a checked SVG document at 336x336 on white, straight from the cairo surface to NumPy."""

import base64
import binascii
import io

import cairocffi
import cairosvg.surface
import numpy as np
from cairosvg.parser import Tree
from PIL import Image

SIDE = 336  # pixels
MAX_IMAGE_PIXELS = 4_000_000
_MAGIC = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"RIFF")


class RenderFailed(Exception):
    """The document cannot be drawn; the message says why."""


class _Canvas(cairosvg.surface.Surface):
    """A cairo image surface of the exact size wanted; nothing is encoded or written."""

    device_units_per_user_units = 1

    def _create_surface(self, width: float, height: float) -> tuple[cairocffi.ImageSurface, int, int]:
        surface = cairocffi.ImageSurface(cairocffi.FORMAT_ARGB32, SIDE, SIDE)
        return surface, SIDE, SIDE


def render(source: bytes) -> np.ndarray:
    """uint8 [336, 336, 3] RGB rendering of an SVG on white.

    RenderFailed: whatever the renderer objects to. The renderer is third-party code on untrusted input, hence the
    broad catch around it alone; endless drawing and memory are the worker's business.
    """
    try:
        tree = Tree(bytestring=source, url_fetcher=_embedded_raster, unsafe=False)
        canvas = _Canvas(
            tree, None, 96, parent_width=SIDE, parent_height=SIDE, output_width=SIDE, output_height=SIDE,
            background_color="white",
        )  # fmt: skip
        canvas.cairo.flush()
        pixels = np.frombuffer(canvas.cairo.get_data(), dtype=np.uint8)
        image = pixels.reshape(SIDE, canvas.cairo.get_stride() // 4, 4)[:, :SIDE, 2::-1].copy()
        canvas.finish()
    except MemoryError:
        raise
    except Exception as error:
        raise RenderFailed(f"{type(error).__name__}: {error}"[:200]) from error
    return image


def _embedded_raster(url: str, resource_type: str) -> bytes:
    """The only fetcher the renderer has: base64 raster images inside the document, of bounded size."""
    head, _, body = url.partition(",")
    if (
        resource_type != "image/*"
        or not head.lower().startswith(("data:image/", "data:;"))
        or not head.endswith(";base64")
    ):
        raise RenderFailed(f"{url[:60]!r} is outside the document")
    try:
        data = base64.b64decode(body)
    except binascii.Error as error:
        raise RenderFailed(f"embedded image: {error}") from error
    # CairoSVG reads anything with "<svg" in it as a nested document, past every check made on the outer one.
    if not data.startswith(_MAGIC) or b"<svg" in data:
        raise RenderFailed("embedded image: not a PNG, JPEG, GIF or WebP file")
    with Image.open(io.BytesIO(data)) as image:
        if image.width * image.height > MAX_IMAGE_PIXELS:
            raise RenderFailed(f"embedded image: {image.width}x{image.height} pixels")
    return data
