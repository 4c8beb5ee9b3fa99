"""MMMU (MMMU/MMMU): college questions in 30 subjects, a configuration per subject (`--dataset-config Accounting`).

`image_1` to `image_7` are cited as `<image 1>` in question and options. `options` is a Python list as text. Results are
reported on validation and test; `dev` (5 per subject) is the default.
"""

import ast
import re

from dataset.sources.base import (
    BadRow,
    Context,
    Row,
    Source,
    image_record,
    letter_of,
    make_sample,
    with_options,
)
from utils.sample import IMAGE_MARK, Sample

CITATION = re.compile(r"<image (\d)>")
NUM_IMAGES = 7


def to_sample(row: Row, context: Context) -> Sample:
    """Multiple choice, or exact text for open questions. Images are in the order in which the text cites them."""
    options = _parsed(row["options"], context)
    if row["question_type"] == "multiple-choice":
        text = with_options(row["question"] or "", options)
        answer, answer_type = letter_of(str(row["answer"]), options, context), "multiple-choice"
        plain = [CITATION.sub("", option).strip() for option in options]
        spec = {"params": {"options": options}} if all(plain) else None
    else:
        text, answer_type, spec = row["question"] or "", "any", None
        answer = _parsed(row["answer"], context) if str(row["answer"]).startswith("[") else str(row["answer"])
    cited = [int(number) for number in CITATION.findall(text)]
    text = CITATION.sub(IMAGE_MARK, text)
    if not cited:
        cited = [i for i in range(1, NUM_IMAGES + 1) if row.get(f"image_{i}")]
    return make_sample(
        context,
        source="mmmu",
        images=[image_record(row.get(f"image_{i}"), context) for i in cited],
        problem=text,
        answer=answer,
        problem_type="stem",
        answer_type=answer_type,
        spec=spec,
    )


def _parsed(text: object, context: Context) -> list[str]:
    if isinstance(text, list):
        return [str(item) for item in text]
    try:
        return [str(item) for item in ast.literal_eval(str(text))]
    except (ValueError, SyntaxError, TypeError) as error:
        raise BadRow("bad-reference", f"{context.sample_id}: {str(text)[:80]!r} is not a list") from error


SOURCE = Source(
    name="mmmu",
    path="MMMU/MMMU",
    split="dev",
    config="Accounting",
    columns=("question", "options", "answer", "question_type", "image_1"),
    problem_type="stem",
    answer_type="multiple-choice, any",
    licence="Apache-2.0",
    to_sample=to_sample,
    eval_splits=("validation", "test"),
    note="one subject per run: --dataset-config",
)
