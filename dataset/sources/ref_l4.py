"""Ref-L4 (Chen et al., 2024): referring expressions with one box, images of COCO and Objects365.

Published as `ref-l4-val.parquet` and `ref-l4-test.parquet` beside `images.tar.gz`; `bbox` is [x, y, width, height]
in pixels of the stored image. Results are reported on the test split.
"""

from dataset.sources.base import BadRow, Context, Row, Source, image_record, make_sample
from dataset.sources.boxes import box_text, fit_boxes, from_xywh
from utils.sample import Sample


def to_sample(row: Row, context: Context) -> Sample:
    """One box; the image is stored at the size that the model will see, so that its pixels are the answer's."""
    caption = (row["caption"] or "").strip()
    if not caption:
        raise BadRow("empty-problem", f"{context.sample_id}: the expression is empty")
    image = image_record(row.get("image") or row["file_name"], context)
    image, boxes = fit_boxes(image, [from_xywh(row["bbox"], context)], context)
    return make_sample(
        context,
        source="ref_l4",
        images=[image],
        problem=(
            "Find the one object that this expression refers to and give its bounding box as [x1, y1, x2, y2] "
            f"in pixels: {caption}"
        ),
        answer=box_text(boxes[0]),
        problem_type="grounding",
        answer_type="bbox",
    )


SOURCE = Source(
    name="ref_l4",
    path="JierunChen/Ref-L4",
    split="val",
    columns=("caption", "bbox", "file_name"),
    problem_type="grounding",
    answer_type="bbox",
    licence="CC BY-NC 4.0",
    to_sample=to_sample,
    eval_splits=("test",),
    data_files=("ref-l4-val.parquet",),
    note="unpack images.tar.gz and give its folder with --image-root; --dataset-split chooses ref-l4-<split>.parquet",
)
