"""ViRL39K (TIGER-Lab): 38,870 verifiable questions, STEM to charts and spatial relations.

Published as `39Krelease.parquet` beside `images.zip`; `image` lists paths within the unpacked archive, `answer`
is boxed LaTeX, `question` holds its `<image>` marks.
"""

from dataset.sources.base import (
    BadRow,
    Context,
    Row,
    Source,
    image_record,
    is_number,
    make_sample,
    options_in,
)
from utils.sample import Sample

BOXED = "\\boxed{"


def to_sample(row: Row, context: Context) -> Sample:
    """Multiple choice when the reference is a letter among written options, else boolean, number or mathematics."""
    question, answer = row["question"] or "", _unboxed(row["answer"] or "", context)
    options = options_in(question)
    spec = None
    if len(answer) == 1 and answer.upper() in "ABCDEFGH" and (options or "choices" in question.lower()):
        answer_type, answer = "multiple-choice", answer.upper()
        spec = {"params": {"options": list(options.values())}} if answer in options else None
    elif answer.lower() in ("yes", "no", "true", "false"):
        answer_type, answer = "boolean", answer.lower()
    else:
        answer_type = "number" if is_number(answer) else "math-expressions"
    images = row["image"] or []
    images = [images] if isinstance(images, str | dict) else images
    return make_sample(
        context,
        source="virl39k",
        images=[image_record(image, context) for image in images],
        problem=question,
        answer=answer,
        problem_type="spatial" if "spatial" in str(row.get("category", "")).lower() else "math",
        answer_type=answer_type,
        spec=spec,
    )


def _unboxed(answer: str, context: Context) -> str:
    """The content of the outermost box; the text itself where there is none."""
    answer = answer.strip()
    if not answer.startswith(BOXED):
        return answer
    depth = 0
    for position in range(len(BOXED) - 1, len(answer)):
        depth += {"{": 1, "}": -1}.get(answer[position], 0)
        if depth == 0:
            return answer[len(BOXED) : position].strip()
    raise BadRow("bad-reference", f"{context.sample_id}: unbalanced box in {answer[:80]!r}")


SOURCE = Source(
    name="virl39k",
    path="TIGER-Lab/ViRL39K",
    split="train",
    columns=("question", "answer", "image"),
    problem_type="math, spatial",
    answer_type="by row",
    licence="MIT; images keep the licences of the sets it was built from",
    to_sample=to_sample,
    note="unpack images.zip and give its folder with --image-root",
)
