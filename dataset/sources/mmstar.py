"""MMStar (Lin-Chen/MMStar): vision-indispensable multiple choice. Its one split is evaluation."""

from dataset.sources.base import BadRow, Context, Row, Source, image_record, make_sample, options_in
from utils.sample import Sample


def to_sample(row: Row, context: Context) -> Sample:
    """Multiple choice; the options stand in the question (`Options: A: ..., B: ...`)."""
    question = (row["question"] or "").strip()
    answer = str(row["answer"] or "").strip().upper()
    if len(answer) != 1 or answer not in "ABCD":
        raise BadRow("bad-reference", f"{context.sample_id}: answer {row['answer']!r} is not a letter A to D")
    options = options_in(question)
    return make_sample(
        context,
        source="mmstar",
        images=[image_record(row["image"], context)],
        problem=question,
        answer=answer,
        problem_type="general",
        answer_type="multiple-choice",
        spec={"params": {"options": [o.rstrip(",") for o in options.values()]}}
        if answer in options
        else None,
    )


SOURCE = Source(
    name="mmstar",
    path="Lin-Chen/MMStar",
    split="val",
    columns=("question", "answer", "image"),
    problem_type="general",
    answer_type="multiple-choice",
    licence="none stated; built from public benchmarks",
    to_sample=to_sample,
    eval_splits=("val",),
)
