"""InfographicVQA: questions on infographics. Training rows from `vidore/infovqa_train`.

Two published layouts are read: `query`/`answer` (training) and the official `question`/`answers` of
`lmms-lab/DocVQA`, configuration InfographicVQA (validation and test, on which results are reported).
"""

from dataset.sources.base import BadRow, Context, Row, Source, image_record, make_sample
from utils.sample import Sample


def to_sample(row: Row, context: Context) -> Sample:
    """Text; several references where the row has several."""
    question = row.get("question") or row.get("query")
    answer = row.get("answers") or row.get("answer")
    if not question or not answer:
        raise BadRow("empty-answer", f"{context.sample_id}: wanted question/answers or query/answer")
    answers = [answer.strip().removesuffix(".")] if isinstance(answer, str) else answer
    return make_sample(
        context,
        source="infovqa",
        images=[image_record(row["image"], context)],
        problem=question,
        answer=answers,
        problem_type="ocr",
        answer_type="ocrtext",
    )


SOURCE = Source(
    name="infovqa",
    path="vidore/infovqa_train",
    split="train",
    columns=("image",),
    problem_type="ocr",
    answer_type="ocrtext",
    licence="images and questions of InfographicVQA: research use",
    to_sample=to_sample,
    eval_splits=("validation", "test"),
    note="lmms-lab/DocVQA with --dataset-config InfographicVQA is read as well (evaluation splits)",
)
