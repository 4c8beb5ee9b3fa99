"""Pictures of any folder as rows, for the sources whose answers cost nothing: they change a picture and ask how.

What is done to a picture depends on its path below the folder alone, so a folder always gives the same samples.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from dataset.images import ImageError, decode_image, to_png_bytes
from dataset.sources.base import BadRow, Context, Location, Row, image_record

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
LARGEST_SIDE = 1024  # pixels; what is asked about needs no more
SMALLEST_SIDE = 56  # pixels; two patches of the vision tower, and nothing to be seen below that


def load(location: Location) -> Iterator[Row]:
    """One row a picture, sorted by path: `image`, its path below the folder.

    Raises FileNotFoundError where no folder is given or it holds no picture.
    """
    root = Path(location.path) if location.path else None
    if root is None or not root.is_dir():
        raise FileNotFoundError(f"--dataset-path {location.path!r}: wanted a folder of pictures")
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise FileNotFoundError(f"{root} holds no picture ({', '.join(SUFFIXES)})")
    for path in paths:
        yield {"image": path.relative_to(root).as_posix()}


def picture(row: Row, context: Context) -> tuple[Image.Image, random.Random]:
    """The decoded picture of a row, no side above `LARGEST_SIDE`, and the dice that are thrown for it.

    Raises BadRow for one that is missing, damaged, too small or of one colour, about which nothing could be asked.
    """
    try:
        image = decode_image(image_record(row["image"], context), context.sample_id)
    except ImageError as error:
        raise BadRow("missing-image", str(error)) from error
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.BICUBIC)
    if min(image.size) < SMALLEST_SIDE:
        raise BadRow("too-small", f"{context.sample_id}: {image.size[0]}x{image.size[1]} pixels")
    return image, random.Random(str(row["image"]))


def record(image: Image.Image) -> dict[str, bytes | None]:
    """A changed picture as samples carry it."""
    return {"bytes": to_png_bytes(image), "path": None}


def told_apart(parts: list[Image.Image], context: Context, least: float = 4.0) -> None:
    """Raises BadRow unless every two of these pictures of one size differ by `least` grey levels on average, so that
    the question has one answer and it can be seen.
    """
    small = [list(part.convert("L").resize((16, 16), Image.Resampling.BOX).getdata()) for part in parts]
    for i, one in enumerate(small):
        for other in small[:i]:
            if sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one) < least:
                raise BadRow("alike", f"{context.sample_id}: the pictures to be told apart look the same")
