"""PixMo-Count (Allen AI): how many objects of a kind a web photograph shows.

Published without pixels: `image_url` and `image_sha256`. The image is taken from `image` if a mirror has filled it in,
else from a file named after the hash below the image root (as `img2dataset` and friends lay it out), else downloaded.
A download whose hash differs is a missing image, never another picture.
"""

import hashlib
import urllib.error
import urllib.request

from dataset.sources.base import BadRow, Context, Row, Source, image_record, make_sample
from utils.sample import Sample

TIMEOUT_SECONDS = 20.0
MAX_IMAGE_BYTES = 50_000_000
SUFFIXES = ("", ".jpg", ".jpeg", ".png", ".webp")


def to_sample(row: Row, context: Context) -> Sample:
    """A number; the label is a plural noun phrase such as "dogs"."""
    count, label = row["count"], (row["label"] or "").strip()
    if not isinstance(count, int) or count < 0:
        raise BadRow("bad-reference", f"{context.sample_id}: count {count!r} is not a whole number")
    if not label:
        raise BadRow("empty-problem", f"{context.sample_id}: the label is empty")
    image = image_record(row["image"], context) if row.get("image") else _image_by_hash(row, context)
    return make_sample(
        context,
        source="pixmo_count",
        images=[image],
        problem=f"How many {label} are there in the image?",
        answer=str(count),
        problem_type="counting",
        answer_type="number",
    )


def _image_by_hash(row: Row, context: Context) -> dict:
    digest = str(row["image_sha256"] or "")
    for suffix in SUFFIXES:
        path = context.image_root / f"{digest}{suffix}" if context.image_root and digest else None
        if path is not None and path.is_file():
            return image_record(str(path), context)
    if not str(row["image_url"]).startswith(("http://", "https://")):  # urllib would read local files
        raise BadRow("missing-image", f"{context.sample_id}: {row['image_url']}: not an address of the web")
    try:
        request = urllib.request.Request(row["image_url"], headers={"User-Agent": "Mozilla/5.0"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as reply:
            content = reply.read(MAX_IMAGE_BYTES)
    except (OSError, ValueError, TypeError, urllib.error.URLError) as error:
        raise BadRow("missing-image", f"{context.sample_id}: {row['image_url']}: {error}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise BadRow(
            "missing-image", f"{context.sample_id}: {row['image_url']} no longer has the published hash"
        )
    return {"bytes": content, "path": None}


SOURCE = Source(
    name="pixmo_count",
    path="allenai/pixmo-count",
    split="train",
    columns=("image_url", "image_sha256", "count", "label"),
    problem_type="counting",
    answer_type="number",
    licence="ODC-BY 1.0; images keep their owners' licences",
    to_sample=to_sample,
    eval_splits=("validation", "test"),
    note="pixels come from --image-root/<sha256>[.jpg], else from the published addresses",
)
