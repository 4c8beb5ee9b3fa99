"""Images from stored bytes to the exact pixels that the vision tower sees.

An image is decoded, turned upright, made RGB and resized here, once. What leaves is already of the size that
the processor wants, so the trainer's processor and the server's both leave it as it is and see identical
patches.
"""

import base64
import io
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from utils.files import read_named_file

MAX_ASPECT_RATIO = 200  # the Qwen2-VL image processor refuses more
MAX_IMAGE_BYTES = 100_000_000  # encoded
END_BYTES = 64  # within which the end mark of a JPEG is looked for
MAX_DECODED_PIXELS = 1 << 28  # a decompression bomb, not a photograph

# What Pillow raises for broken files, text chunks that unpack to megabytes (ValueError) and lying headers.
FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    struct.error,
    zlib.error,
    EOFError,
    MemoryError,
    Image.DecompressionBombError,
)
UNPACKED_AT_END = {b"zTXt", b"iTXt"}  # PNG chunks that may stand behind the pixels
TEXT_CHUNKS = {b"tEXt", *UNPACKED_AT_END}  # in which old programs keep EXIF data


class ImageError(ValueError):
    """An image of our data cannot be used; the message names the sample."""


def open_image(record: Any, sample_id: str = "?") -> Image.Image:
    """An opened, not yet decoded image from a ``{"bytes", "path"}`` record, encoded bytes, a path or a PIL
    image.

    Raises ``ImageError`` when there is nothing to open or the header cannot be read.
    """
    if isinstance(record, Image.Image):
        return record
    if isinstance(record, Mapping):
        record = record.get("bytes") or record.get("path")
    try:
        if isinstance(record, bytes | bytearray | memoryview):
            image = Image.open(io.BytesIO(record))
        elif isinstance(record, str) and record:
            image = Image.open(io.BytesIO(read_named_file(record, MAX_IMAGE_BYTES)))
        else:
            raise ImageError(
                f"sample {sample_id}: image has neither bytes nor path (got {type(record).__name__})"
            )
    except ImageError:
        raise
    except UnidentifiedImageError as error:  # whose message names an address in memory
        raise ImageError(f"sample {sample_id}: image cannot be opened: its format is not known") from error
    except FAULTS as error:
        raise ImageError(f"sample {sample_id}: image cannot be opened: {error}") from error
    width, height = image.size
    if width * height > MAX_DECODED_PIXELS:
        raise ImageError(f"sample {sample_id}: image of {width}x{height} exceeds {MAX_DECODED_PIXELS} pixels")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ImageError(f"sample {sample_id}: aspect ratio of {width}x{height} exceeds {MAX_ASPECT_RATIO}")
    return image


def decode_image(record: Any, sample_id: str = "?") -> Image.Image:
    """The decoded image: upright by its EXIF orientation, RGB, transparency over white.

    Raises ``ImageError`` for corrupt or truncated data, naming the sample.
    """
    image = open_image(record, sample_id)
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
    except FAULTS as error:
        raise ImageError(f"sample {sample_id}: image cannot be decoded: {error}") from error
    return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB. Transparent pixels become white; 16-bit grey keeps its whole range."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow's own conversion clips at 255; 16-bit scans need scaling.
        low, high = image.convert("F").getextrema()
        scale = 1.0 if high <= 255 and low >= 0 else 255.0 / max(high, 65535.0)
        return image.convert("F").point(lambda value: value * scale).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def upright_size(record: Any, sample_id: str = "?") -> tuple[int, int]:
    """(width, height) in pixels after EXIF orientation, read from the header without decoding the pixels."""
    return _upright_size(open_image(record, sample_id), sample_id)


def _upright_size(image: Image.Image, sample_id: str) -> tuple[int, int]:
    width, height = image.size
    if _orientation(image, sample_id) in (5, 6, 7, 8):  # the orientations that lie on their side
        width, height = height, width
    return width, height


def _orientation(image: Image.Image, sample_id: str) -> int | None:
    stream = getattr(image, "fp", None)
    # Pillow decodes the whole of a PNG in search of EXIF data
    is_png = image.format == "PNG" and isinstance(stream, io.BytesIO)
    if is_png and not png_chunks(stream.getvalue()) & {b"eXIf", *TEXT_CHUNKS}:
        return None
    try:
        return image.getexif().get(0x0112)
    except FAULTS as error:
        raise ImageError(f"sample {sample_id}: image cannot be decoded: {error}") from error


def png_chunks(data: bytes) -> set[bytes]:
    """The kinds of chunks of a PNG up to its end, or to where its lengths lead out of the data."""
    kinds, place = set(), 8
    while place + 8 <= len(data) and b"IEND" not in kinds:
        length, kind = struct.unpack_from(">I4s", data, place)
        kinds.add(kind)
        place += 12 + length
    return kinds


def checked_size(record: Any, sample_id: str = "?") -> tuple[int, int]:
    """`upright_size` of an image that is there to its end. PNG by its checksums and JPEG by its end mark, which costs
    little; any other format, and what is in doubt, by decoding it.

    Raises ``ImageError`` for an image that cannot be opened, is truncated or damaged.
    """
    image = open_image(record, sample_id)
    size, stream = _upright_size(image, sample_id), getattr(image, "fp", None)
    if not isinstance(stream, io.BytesIO):
        return size
    data = stream.getbuffer()
    end = bytes(data[-END_BYTES:])
    try:
        if image.format == "PNG" and not png_chunks(stream.getvalue()) & UNPACKED_AT_END:
            image.verify()
        elif image.format != "JPEG" or b"\xff\xd9" not in end:
            image.load()
    except FAULTS as error:
        raise ImageError(f"sample {sample_id}: image cannot be decoded: {error}") from error
    return size


def smart_size(
    width: int, height: int, *, factor: int = 28, min_pixels: int = 56 * 56, max_pixels: int = 3_240_000
) -> tuple[int, int]:
    """(width, height) in multiples of `factor`, area within [min_pixels, max_pixels], aspect ratio nearly
    kept.

    The rule of the Qwen2-VL image processor, repeated until it no longer moves: very long images need a
    second pass, and only a fixed point is left alone by the processors downstream.
    Raises ``ValueError`` when no multiple of `factor` fits the limits.
    """
    if max_pixels < max(min_pixels, factor * factor):
        raise ValueError(f"max_pixels: got {max_pixels}, wanted at least {max(min_pixels, factor * factor)}")
    seen: set[tuple[int, int]] = set()
    while (width, height) not in seen:
        seen.add((width, height))
        new_width, new_height = round(width / factor) * factor, round(height / factor) * factor
        if new_width * new_height > max_pixels:
            shrink = math.sqrt(width * height / max_pixels)
            new_width = max(factor, math.floor(width / shrink / factor) * factor)
            new_height = max(factor, math.floor(height / shrink / factor) * factor)
        elif new_width * new_height < min_pixels:
            grow = math.sqrt(min_pixels / (width * height))
            new_width = math.ceil(width * grow / factor) * factor
            new_height = math.ceil(height * grow / factor) * factor
        if (new_width, new_height) == (width, height):
            return width, height
        width, height = new_width, new_height
    raise ValueError(
        f"no multiple of {factor} keeps this aspect ratio within {min_pixels} to {max_pixels} pixels"
    )


def resize_to_limits(image: Image.Image, *, factor: int, min_pixels: int, max_pixels: int) -> Image.Image:
    """The RGB image at its `smart_size`, bicubic; the same object when nothing changes."""
    size = smart_size(*image.size, factor=factor, min_pixels=min_pixels, max_pixels=max_pixels)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def to_png_bytes(image: Image.Image) -> bytes:
    """The image as PNG. Lossless; the lowest compression level, since it is decoded again at once."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def to_base64_png(image: Image.Image) -> str:
    """The image as base64 text of its PNG, as SGLang's `image_data` takes it."""
    return base64.b64encode(to_png_bytes(image)).decode("ascii")
