"""Rule-based rewards: one completion in, one explained score out, for every answer type of the recipe.

    >>> from reward import score
    >>> score("<answer>3/4</answer>", "0.75", "number").total
    1.0

`score` is synchronous. Rollout workflows use `reward.pool.RewardPool` and `await pool.score(...)` with the same
arguments. The rules of every type, with examples that pay and that do not, are in docs/rewards.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from reward.score import score_quick
from reward.types import STATUSES, RewardOutput, Status, Verdict, Verifier

__all__ = ["STATUSES", "RewardOutput", "Status", "Verdict", "Verifier", "score"]


def score(
    completion: str,
    answer: str | Sequence[str],
    answer_type: str,
    *,
    problem_type: str | None = None,
    prompt_type: str | None = None,
    spec: Mapping[str, Any] | None = None,
    progress: float | None = None,
    num_tokens: int | None = None,
) -> RewardOutput:
    """Score one completion against its reference answers; the best of several references counts.

    completion: what the model wrote; it may be anything.
    answer: one reference answer or several alternatives.
    answer_type: a key of `reward.registry.ANSWER_TYPES`.
    prompt_type: "answer", "think" or None; None leaves the format part out.
    spec: the sample's own specification, see `reward.spec`.
    progress: share of training done, in [0, 1]; moves the eps of a bbox schedule.
    num_tokens: length of the completion in tokens; needed by the overlong penalty alone.

    Costly verifiers run in a small pool of worker processes with a hard deadline, cheap ones in this process.
    Raises ValueError naming the sample's field for an unknown type, a bad spec, an empty list of references or a
    reference that cannot be read: those are errors of the data, never a score of 0.
    """
    options = {
        "problem_type": problem_type,
        "prompt_type": prompt_type,
        "spec": spec,
        "progress": progress,
        "num_tokens": num_tokens,
    }
    output = score_quick(completion, answer, answer_type, **options)
    if output is not None:
        return output
    from reward.pool import score_blocking

    return score_blocking(completion, answer, answer_type, **options)
