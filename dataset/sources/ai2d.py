"""AI2D: science diagrams with multiple choice. Training rows from HuggingFaceM4/the_cauldron, configuration `ai2d`.

Two published layouts are read: the Cauldron's (`images`, `texts` of user/assistant turns, one row per diagram, here
one sample per turn) and lmms-lab/ai2d's (`image`, `question`, `options`, `answer`; its test split is reported on).
"""

import re
from collections.abc import Iterator

from dataset.sources.base import (
    BadRow,
    Context,
    Location,
    Row,
    Source,
    image_record,
    letter_of,
    make_sample,
    options_in,
    with_options,
)
from dataset.sources.reading import read_rows
from utils.sample import Sample

INSTRUCTION = re.compile(r"\s*Answer with the letter\.?\s*$|^\s*Question:\s*", re.IGNORECASE)


def load(location: Location) -> Iterator[Row]:
    """One row per question: a diagram's turns are spread out, its images shared."""
    for row in read_rows(location):
        if "texts" in row:
            for turn in row["texts"] or []:
                yield {
                    "images": row.get("images"),
                    "question": turn.get("user"),
                    "answer": turn.get("assistant"),
                }
        else:
            yield row


def to_sample(row: Row, context: Context) -> Sample:
    """Multiple choice with a letter as the reference."""
    question = INSTRUCTION.sub("", INSTRUCTION.sub("", row["question"] or ""))
    answer = str(row["answer"] if row["answer"] is not None else "").strip()
    if answer.lower().startswith("answer:"):
        answer = answer[len("answer:") :].strip()
    if row.get("options"):
        options = [str(option) for option in row["options"]]
        question = with_options(question, options)
    else:
        options = list(options_in(question).values())
        if not options:
            raise BadRow("bad-reference", f"{context.sample_id}: no lettered options in the question")
    images = row.get("images") or ([row["image"]] if row.get("image") else [])
    return make_sample(
        context,
        source="ai2d",
        images=[image_record(image, context) for image in images],
        problem=question,
        answer=letter_of(answer, options, context),
        problem_type="stem",
        answer_type="multiple-choice",
        spec={"params": {"options": options}},
    )


SOURCE = Source(
    name="ai2d",
    path="HuggingFaceM4/the_cauldron",
    config="ai2d",
    split="train",
    columns=("question", "answer"),
    problem_type="stem",
    answer_type="multiple-choice",
    licence="AI2D: CC BY-SA; the Cauldron: CC BY 4.0",
    to_sample=to_sample,
    eval_splits=("test",),
    load=load,
    note="lmms-lab/ai2d is read as well (test split: evaluation)",
)
