"""DocVQA: questions on scanned documents. Training rows from HuggingFaceM4/the_cauldron, configuration `docvqa`.

Two published layouts are read: the Cauldron's (`images`, `texts`; one sample per turn) and the official one of
lmms-lab/DocVQA (`image`, `question`, `answers`; validation and test, on which results are reported).
"""

from dataset.sources.ai2d import load
from dataset.sources.base import BadRow, Context, Row, Source, image_record, make_sample
from utils.sample import Sample


def to_sample(row: Row, context: Context) -> Sample:
    """Text; the best of the references counts."""
    answers = row.get("answers") or row.get("answer")
    if not answers:
        raise BadRow("empty-answer", f"{context.sample_id}: no reference answer")
    images = row.get("images") or ([row["image"]] if row.get("image") else [])
    return make_sample(
        context,
        source="docvqa",
        images=[image_record(image, context) for image in images],
        problem=(row["question"] or "").removesuffix("Give a very brief answer.").strip(),
        answer=[answers.strip().removesuffix(".")] if isinstance(answers, str) else answers,
        problem_type="ocr",
        answer_type="ocrtext",
    )


SOURCE = Source(
    name="docvqa",
    path="HuggingFaceM4/the_cauldron",
    config="docvqa",
    split="train",
    columns=("question",),
    problem_type="ocr",
    answer_type="ocrtext",
    licence="images and questions of DocVQA: research use",
    to_sample=to_sample,
    eval_splits=("validation", "test"),
    load=load,
    note="lmms-lab/DocVQA with --dataset-config DocVQA is read as well (evaluation splits)",
)
