"""OCRBench (echo840/OCRBench): text recognition and text questions. Its one split is evaluation."""

from dataset.sources.base import Context, Row, Source, image_record, make_sample
from utils.sample import Sample


def to_sample(row: Row, context: Context) -> Sample:
    """Text; `answer` is a list of accepted strings."""
    answer = row["answer"]
    return make_sample(
        context,
        source="ocrbench",
        images=[image_record(row["image"], context)],
        problem=row["question"],
        answer=[answer] if isinstance(answer, str) else (answer or []),
        problem_type="ocr",
        answer_type="ocrtext",
    )


SOURCE = Source(
    name="ocrbench",
    path="echo840/OCRBench",
    split="test",
    columns=("question", "answer", "image"),
    problem_type="ocr",
    answer_type="ocrtext",
    licence="built from sets for research use",
    to_sample=to_sample,
    eval_splits=("test",),
)
