"""UniSVG (lili24/UniSVG): vector graphics to write from their picture. Only image-to-SVG rows (`ISVGEN`) are used.

Published as `train.json` and `test.json` beside `png.zip`: `q_text`, `a_text`, `type`, and `image_path` within the
unpacked archive.
"""

from collections.abc import Iterator

from dataset.sources.base import (
    BadRow,
    Context,
    Location,
    Row,
    Source,
    SourceError,
    image_record,
    make_sample,
)
from dataset.sources.reading import read_rows
from utils.sample import Sample

TASK = "ISVGEN"
PROBLEM = "Write the SVG document that renders as this image."


def load(location: Location) -> Iterator[Row]:
    """Rows whose `type` is image-to-SVG; the others need no image or no SVG."""
    for row in read_rows(location):
        if "type" not in row:
            raise SourceError(
                f"source 'unisvg': {location.path} lacks the column 'type'; got {', '.join(row)}"
            )
        if row["type"] == TASK:
            yield row


def to_sample(row: Row, context: Context) -> Sample:
    """SVG; the published question is kept where there is one."""
    code = (row["a_text"] or "").strip()
    if "<svg" not in code:
        raise BadRow("bad-reference", f"{context.sample_id}: the reference has no <svg> element")
    return make_sample(
        context,
        source="unisvg",
        images=[image_record(row.get("image") or row["image_path"], context)],
        problem=row["q_text"] or PROBLEM,
        answer=code[code.index("<svg") :],
        problem_type="coding",
        answer_type="svg-code",
    )


SOURCE = Source(
    name="unisvg",
    path="lili24/UniSVG",
    split="train",
    columns=("type", "q_text", "a_text", "image_path"),
    problem_type="coding",
    answer_type="svg-code",
    licence="CC BY 4.0",
    to_sample=to_sample,
    eval_splits=("test",),
    load=load,
    note="unpack png.zip and give its folder with --image-root",
)
