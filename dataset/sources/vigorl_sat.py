"""ViGoRL spatial reasoning (gsarch/vigorl_datasets, `spatial_reasoning/vigorl_sat2_train_RL.jsonl`): SAT-2 questions.

Rows have `problem`, `answer` (the text of the right option) and `image_paths`: one or two views of a scene.
"""

from dataset.sources.base import Context, Row, Source, image_record, is_number, make_sample, options_in
from utils.sample import SPATIAL_PROBLEM_TYPE, Sample

INSTRUCTIONS = ("Question: ", "Answer with the text of the option.")


def to_sample(row: Row, context: Context) -> Sample:
    """A letter stays a letter (multiple choice); a text answer is compared as yes/no, number or exact text."""
    problem, answer = row["problem"] or "", str(row["answer"] or "").strip()
    for instruction in INSTRUCTIONS:
        problem = problem.replace(instruction, "")
    options = options_in(problem)
    spec = None
    if answer.strip("()").upper() in options:
        answer_type, answer = "multiple-choice", answer.strip("()").upper()
        spec = {"params": {"options": list(options.values())}}
    elif answer.lower() in ("yes", "no", "true", "false"):
        answer_type, answer = "boolean", answer.lower()
    else:
        answer_type = "number" if is_number(answer) else "any"
    return make_sample(
        context,
        source="vigorl_sat",
        images=[image_record(path, context) for path in row["image_paths"] or []],
        problem=problem,
        answer=answer,
        problem_type=SPATIAL_PROBLEM_TYPE,
        answer_type=answer_type,
        spec=spec,
    )


SOURCE = Source(
    name="vigorl_sat",
    path="",
    split="train",
    columns=("problem", "answer", "image_paths"),
    problem_type=SPATIAL_PROBLEM_TYPE,
    answer_type="by row",
    licence="MIT",
    to_sample=to_sample,
    eval_splits=("val", "validation", "test"),
    data_files=("spatial_reasoning/vigorl_sat2_train_RL.jsonl",),
    note="gsarch/vigorl_datasets: unpack spatial_reasoning.tar and give that folder with --dataset-path",
)
