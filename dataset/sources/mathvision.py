"""MATH-Vision (MathLLMs/MathVision): competition mathematics with figures. Both published splits are evaluation."""

import re

from dataset.sources.base import (
    Context,
    Row,
    Source,
    image_record,
    is_number,
    letter_of,
    make_sample,
    with_options,
)
from utils.sample import Sample

MARK = re.compile(r"<image\d+>")


def to_sample(row: Row, context: Context) -> Sample:
    """Multiple choice when there are options, else number or mathematics. `<image1>` marks name the one figure."""
    question = MARK.sub("", row["question"] or "").strip()
    options = [str(option) for option in row["options"] or []]
    answer = str(row["answer"] or "").strip()
    spec = None
    if options:
        lettered = [option for i, option in enumerate(options) if option.strip() == "ABCDEFGH"[i : i + 1]]
        if len(lettered) != len(options):  # options that are bare letters stand in the figure
            question = with_options(question, options)
            spec = {"params": {"options": options}}
        answer, answer_type = letter_of(answer, options, context), "multiple-choice"
    else:
        answer_type = "number" if is_number(answer) else "math-expressions"
    return make_sample(
        context,
        source="mathvision",
        images=[image_record(row.get("decoded_image") or row["image"], context)],
        problem=question,
        answer=answer,
        problem_type="math",
        answer_type=answer_type,
        spec=spec,
    )


SOURCE = Source(
    name="mathvision",
    path="MathLLMs/MathVision",
    split="test",
    columns=("question", "options", "image", "answer"),
    problem_type="math",
    answer_type="by row",
    licence="MIT",
    to_sample=to_sample,
    eval_splits=("test", "testmini"),
)
