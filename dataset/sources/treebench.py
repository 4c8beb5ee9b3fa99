"""TreeBench (HaochenWang/TreeBench): multiple choice on small targets in crowded scenes.

Published as `TreeBench.tsv` with the image as base64 and the options in columns A to F. The Hub calls its one split
`train`, but it is a benchmark: every split counts as evaluation.
"""

from dataset.sources.base import Context, Row, Source, image_record, letter_of, make_sample, with_options
from utils.sample import Sample

OPTION_COLUMNS = ("A", "B", "C", "D", "E", "F")


def to_sample(row: Row, context: Context) -> Sample:
    """Multiple choice; empty option columns are skipped."""
    options = []
    for name in OPTION_COLUMNS:
        text = str(row.get(name) or "").strip()
        if not text or text.lower() == "nan":
            break
        options.append(text)
    return make_sample(
        context,
        source="treebench",
        images=[image_record(row["image"], context)],
        problem=with_options(row["question"] or "", options),
        answer=letter_of(str(row["answer"]), options, context),
        problem_type="grounding",
        answer_type="multiple-choice",
        spec={"params": {"options": options}},
    )


SOURCE = Source(
    name="treebench",
    path="HaochenWang/TreeBench",
    split="train",
    columns=("question", "A", "B", "answer", "image"),
    problem_type="grounding",
    answer_type="multiple-choice",
    licence="Apache-2.0; images of SA-1B keep their own licence",
    to_sample=to_sample,
    eval_splits=("train", "test", "validation", "val"),
)
