"""ViGoRL visual search (gsarch/vigorl_datasets, `visual_search/vigorl_SA_RL.jsonl`): letters over large photographs.

Rows have `problem` (with `<image>` marks and lettered options), `answer` and `image_paths` below the data set's folder.
"""

from dataset.sources.base import BadRow, Context, Row, Source, image_record, make_sample, options_in
from utils.sample import Sample

INSTRUCTION = "Answer with the option's letter from the given choices directly."


def to_sample(row: Row, context: Context) -> Sample:
    """Multiple choice; the data set's own answer-format sentence makes room for ours."""
    problem = (row["problem"] or "").replace(INSTRUCTION, "").strip()
    answer = str(row["answer"] or "").strip().strip("().").upper()
    options = options_in(problem)
    if answer not in options:
        raise BadRow("bad-reference", f"{context.sample_id}: {row['answer']!r} is none of {sorted(options)}")
    return make_sample(
        context,
        source="vigorl_sa",
        images=[image_record(path, context) for path in row["image_paths"] or []],
        problem=problem,
        answer=answer,
        problem_type="grounding",
        answer_type="multiple-choice",
        spec={"params": {"options": list(options.values())}},
    )


SOURCE = Source(
    name="vigorl_sa",
    path="",
    split="train",
    columns=("problem", "answer", "image_paths"),
    problem_type="grounding",
    answer_type="multiple-choice",
    licence="MIT; photographs of SA-1B keep their own licence",
    to_sample=to_sample,
    data_files=("visual_search/vigorl_SA_RL.jsonl",),
    note="gsarch/vigorl_datasets: unpack visual_search.tar and give that folder with --dataset-path",
)
