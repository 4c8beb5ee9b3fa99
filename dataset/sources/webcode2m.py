"""WebCode2M (xcodemind/webcode2m): screenshots of web pages with their HTML."""

from dataset.sources.base import BadRow, Context, Row, Source, image_record, make_sample
from utils.sample import Sample

PROBLEM = "Write the HTML document, with its CSS inline, that renders as this screenshot."


def to_sample(row: Row, context: Context) -> Sample:
    """HTML; `text` is the page's source."""
    code = (row["text"] or "").strip()
    if "<" not in code or ">" not in code:
        raise BadRow("bad-reference", f"{context.sample_id}: the reference holds no HTML element")
    return make_sample(
        context,
        source="webcode2m",
        images=[image_record(row["image"], context)],
        problem=PROBLEM,
        answer=code,
        problem_type="coding",
        answer_type="html-code",
    )


SOURCE = Source(
    name="webcode2m",
    path="xcodemind/webcode2m",
    split="train",
    columns=("image", "text"),
    problem_type="coding",
    answer_type="html-code",
    licence="CC BY 4.0",
    to_sample=to_sample,
    note="columns lang, tokens, score, bbox, scale, hash are published too and not needed",
)
