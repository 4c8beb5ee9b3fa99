"""`python -m reward explain`: how one completion comes to its score, step by step."""

from collections.abc import Mapping, Sequence
from typing import Any

from reward import score
from reward.score import extracted_answer
from reward.spec import resolve


def explain(
    completion: str,
    answer: str | Sequence[str],
    answer_type: str,
    *,
    problem_type: str | None = None,
    prompt_type: str | None = None,
    spec: Mapping[str, Any] | None = None,
) -> str:
    """The trace of one score as text: extraction, normalisation, the rule applied, every part, the sum.

    Raises what `reward.score` raises.
    """
    rule = resolve(answer_type, spec)
    output = score(
        completion, answer, answer_type, problem_type=problem_type, prompt_type=prompt_type, spec=spec
    )
    found = extracted_answer(completion, rule)
    lines = [f"answer type   {answer_type} (verifier {rule.verifier})", f"reference     {answer!r}"]
    if found is None:
        lines.append("extraction    no answer after the thinking")
    else:
        lines.append(
            f"extraction    {found.convention} at characters {found.start} to {found.end}: {_short(found.raw)}"
        )
        lines.append(f"unwrapped     {_short(found.text)}")
    lines += [f"rule          {step}" for step in output.trace]
    lines.append(f"status        {output.status}")
    for name, value in output.parts.items():
        weight = rule.weights.get(name)
        note = "reported" if weight is None else f"weight {weight:g}"
        lines.append(f"part          {name:<20} {value:8.4f}   {note}")
    solved = output.parts["accuracy"] >= rule.params["solved_threshold"]
    lines.append(f"solved        {solved} (threshold {rule.params['solved_threshold']:g})")
    lines.append(f"total         {output.total:.4f}")
    return "\n".join(lines)


def _short(text: str) -> str:
    return repr(text if len(text) <= 300 else text[:300] + "...")
