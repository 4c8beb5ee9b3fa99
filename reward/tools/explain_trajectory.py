"""`python -m reward explain --trajectory`: how a conversation with tools comes to its score, turn by turn."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from reward import score
from reward.spec import resolve
from reward.tools.explain import explain
from reward.trajectory import TrajectoryWeights, facts, score_trajectory

SHOWN_CHARS = 200


def read_record(text: str) -> Mapping[str, Any]:
    """A conversation as `rollouts.jsonl` holds it: {"completion", "turns", "faults"}. ValueError: it is none."""
    try:
        record = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the trajectory is not JSON: {error}") from error
    if not isinstance(record, Mapping) or not isinstance(record.get("turns"), list) or not record["turns"]:
        raise ValueError('the trajectory: wanted {"completion": ..., "turns": [...], "faults": [...]}')
    blank = {"call": None, "fault": None, "reply": None, "num_images": 0, "without_effect": False}
    turns = [{**blank, **turn} for turn in record["turns"]]
    return {"completion": turns[-1]["text"], "faults": [], **record, "turns": turns}


def explain_trajectory(
    record: Mapping[str, Any],
    answer: str | Sequence[str],
    answer_type: str,
    weights: Mapping[str, float],
    **options: Any,
) -> str:
    """The turns, the trace of the answer's score, and what the trajectory adds. Raises what `reward.score` raises, and
    ValueError for a weight that there is not.
    """
    try:
        given = TrajectoryWeights(**weights)
    except TypeError as error:
        raise ValueError(
            f"weights: got {sorted(weights)}, wanted some of tool_bonus, turn_format, call_cost"
        ) from error
    lines = []
    for number, turn in enumerate(record["turns"], start=1):
        lines.append(f"turn {number}        {_short(turn['text'])}")
        if turn["call"] is not None:
            lines.append(
                f"  call        {turn['call']['name']} {json.dumps(turn['call']['arguments'])[:SHOWN_CHARS]}"
            )
        if turn["fault"] is not None:
            lines.append(f"  fault       {turn['fault']}")
        if turn["reply"] is not None:
            images = f" and {turn['num_images']} image(s)" if turn["num_images"] else ""
            effect = ", which told nothing new" if turn["without_effect"] else ""
            lines.append(f"  reply       {_short(turn['reply'])}{images}{effect}")
    lines.append(explain(record["completion"], answer, answer_type, **options))
    output = score(record["completion"], answer, answer_type, **options)
    threshold = resolve(answer_type, options.get("spec")).params["solved_threshold"]
    whole = score_trajectory(output, record["turns"], record["faults"], given, threshold)
    lines += [
        f"of the turns  {name:<20} {value:8.4f}"
        for name, value in facts(record["turns"], record["faults"]).items()
    ]
    lines += [f"rule          {step}" for step in whole.trace[len(output.trace) :]]
    lines.append(f"in all        {whole.total:.4f}")
    return "\n".join(lines)


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "...")
