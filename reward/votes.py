"""Rewards that only a whole group can give: rollouts that vote, where nobody knows the answer.

A row whose spec says `{"vote": "frequency"}` needs no label. In training its rollouts are paid for agreeing with each
other; scored one by one (evaluation, audit, curation) a label counts, if there is one.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from reward.parts.shaping import PENALTIES
from reward.score import weighted
from reward.spec import Rule, resolve
from reward.types import RewardOutput
from reward.verifiers.exact import normalized
from utils.sample import Sample


def after_the_vote(sample: Sample, scores: Sequence[RewardOutput]) -> list[RewardOutput]:
    """The scores of a prompt's rollouts, those of a row that votes with the group's judgement as their accuracy.

        frequency  p(y) = (rollouts that answer y) / G            TTRV, Singh et al. 2025, arXiv:2510.06783
        majority   1 for the answer given most often, else 0      TTRL, Zuo et al. 2025, arXiv:2504.16084

    Answers are equal that `reward.verifiers.exact` takes for equal; of several given equally often the first counts. A
    rollout without an answer votes for nothing, has 0, and counts in G. `vote_entropy_weight` a subtracts a H(p), in
    nats, as a part of its own: TTRV's second term, the same for all of a group, so that it cancels in every estimator
    that compares with the group. Format is paid for wherever there is an answer: nobody can be called right.
    """
    rule = resolve(sample.answer_type, sample.spec)
    if rule.params["vote"] is None:
        return list(scores)
    answers = [normalized(score.extracted) if score.extracted else None for score in scores]
    counts = Counter(answer for answer in answers if answer is not None)
    entropy = -sum(n / len(scores) * math.log(n / len(scores)) for n in counts.values())
    best = max(counts, key=counts.get, default=None)
    found = []
    for score, answer in zip(scores, answers, strict=True):
        if answer is None:
            accuracy = 0.0
        elif rule.params["vote"] == "majority":
            accuracy = float(answer == best)
        else:
            accuracy = counts[answer] / len(scores)
        found.append(_judged(score, accuracy, rule, entropy, has_answer=answer is not None))
    return found


def _judged(
    score: RewardOutput, accuracy: float, rule: Rule, entropy: float, *, has_answer: bool
) -> RewardOutput:
    parts = {**score.parts, "accuracy": accuracy}
    total = weighted({k: v for k, v in parts.items() if k not in PENALTIES}, rule, has_answer)
    total += sum(parts[name] for name in PENALTIES if name in parts)
    if rule.params["vote_entropy_weight"]:
        parts["vote_entropy"] = entropy
        total -= rule.params["vote_entropy_weight"] * entropy
    status = "ok" if has_answer else "no_answer"
    trace = (*score.trace, f"voted: {rule.params['vote']} {accuracy:.3f}")
    return replace(score, total=total, parts=parts, status=status, trace=trace)
