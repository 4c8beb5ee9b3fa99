"""From one completion to one explained score: extract, compare with every reference, add the other parts, weigh.

`score_local` is the whole of it as a plain function: workers call it. `score_quick` is the share of it that is safe
in the caller's own process. `reward.score` and `reward.pool.RewardPool.score` choose between the two.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from reward.extract import MAX_COMPLETION_CHARS, Extraction, extract
from reward.parts import format as format_part
from reward.parts import shaping, think_bbox
from reward.reading.references import reference_texts
from reward.registry import VERIFIERS
from reward.spec import Rule, resolve
from reward.types import RewardOutput, Status, Verdict

logger = logging.getLogger(__name__)

MAX_REMEMBERED_CHARS = 20_000

NO_ANSWER = Verdict(
    0.0, "no_answer", trace=("no <answer>...</answer> and no \\boxed{...} after the thinking",)
)
TOO_LONG = Verdict(
    0.0, "rejected", trace=(f"the completion is longer than {MAX_COMPLETION_CHARS} characters",)
)


def score_local(
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
    """Score one completion in this process, whatever it costs.

    progress: share of training done, in [0, 1]; moves the eps of a bbox schedule.
    num_tokens: length of the completion in tokens; needed by the overlong penalty alone.
    Raises ValueError naming the sample's field for an unknown type, a bad spec or an unreadable reference.
    """
    rule, references = checked_inputs(completion, answer, answer_type, prompt_type, spec, progress)
    prepared = [prepared_reference(rule.verifier, reference, rule.params_key) for reference in references]
    extraction = extracted_answer(completion, rule)
    verifier = VERIFIERS[rule.verifier]
    text = extraction.text if extraction is not None else ""
    if len(completion) > MAX_COMPLETION_CHARS:
        verdict = TOO_LONG
    elif not text and verifier.needs_answer:
        verdict = NO_ANSWER
    elif verifier.remembers and len(text) <= MAX_REMEMBERED_CHARS:
        verdict = _remembered(rule.verifier, text, references, rule.params_key)
    else:
        params = rule.params if progress is None else {**rule.params, "progress": progress}
        if verifier.open_params or verifier.remote:
            params = {**params, "completion": completion}
        verdict = max((verifier.verify(text, gold, params) for gold in prepared), key=lambda v: v.accuracy)
    return finish(verdict, completion, extraction, rule, problem_type, prompt_type, num_tokens)


@lru_cache(maxsize=1024)
def _remembered(verifier_name: str, text: str, references: tuple[str, ...], params_key: str) -> Verdict:
    """The best verdict over the references; rollouts of a prompt often give the same answer."""
    prepared = [prepared_reference(verifier_name, reference, params_key) for reference in references]
    verify, params = VERIFIERS[verifier_name].verify, json.loads(params_key)
    return max((verify(text, gold, params) for gold in prepared), key=lambda v: v.accuracy)


def score_quick(
    completion: str,
    answer: str | Sequence[str],
    answer_type: str,
    *,
    problem_type: str | None = None,
    prompt_type: str | None = None,
    spec: Mapping[str, Any] | None = None,
    progress: float | None = None,
    num_tokens: int | None = None,
) -> RewardOutput | None:
    """Score without a worker where that is cheap and safe; None: the completion must go to a killable worker."""
    rule, references = checked_inputs(completion, answer, answer_type, prompt_type, spec, progress)
    verifier = VERIFIERS[rule.verifier]
    if not verifier.isolated:
        return _score_inline(
            rule,
            references,
            completion,
            answer,
            answer_type,
            problem_type=problem_type,
            prompt_type=prompt_type,
            spec=spec,
            progress=progress,
            num_tokens=num_tokens,
        )
    extraction = extracted_answer(completion, rule)
    if verifier.remote:  # asked by the pool, but never about nothing
        refused = len(completion) > MAX_COMPLETION_CHARS
        if not refused and extraction is not None and extraction.text:
            return None
        verdict = TOO_LONG if refused else NO_ANSWER
        return finish(verdict, completion, extraction, rule, problem_type, prompt_type, num_tokens)
    if verifier.quick is None or extraction is None or not extraction.text:
        return None
    verdict = verifier.quick(extraction.text, references, rule.params)
    if verdict is None:
        return None
    return finish(verdict, completion, extraction, rule, problem_type, prompt_type, num_tokens)


def _score_inline(rule: Rule, references: tuple[str, ...], *arguments: Any, **options: Any) -> RewardOutput:
    """`score_local`, with a verifier's own mistake about the model's answer counted as a crash, as in a worker."""
    for reference in references:  # afterwards nothing of ours may raise
        prepared_reference(rule.verifier, reference, rule.params_key)
    try:
        return score_local(*arguments, **options)
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith("spec."):
            raise
        logger.exception("verifier %s raised on a model's answer; it scores 0", rule.verifier)
        completion, _, answer_type = arguments
        kept = {name: options[name] for name in ("problem_type", "prompt_type", "spec", "num_tokens")}
        return failed("crash", completion, answer_type, **kept)


def failed(
    status: Status,
    completion: str,
    answer_type: str,
    *,
    problem_type: str | None = None,
    prompt_type: str | None = None,
    spec: Mapping[str, Any] | None = None,
    num_tokens: int | None = None,
    detail: str = "",
) -> RewardOutput:
    """The score of a completion whose worker was killed (`timeout`), died (`crash`) or refused it (`rejected`)."""
    trace = f"the verifier did not finish: {status}" + (f", {detail}" if detail else "")
    verdict = Verdict(0.0, status, trace=(trace,))
    kept = {"problem_type": problem_type, "prompt_type": prompt_type, "spec": spec, "num_tokens": num_tokens}
    return with_verdict(verdict, completion, answer_type, **kept)


def with_verdict(
    verdict: Verdict,
    completion: str,
    answer_type: str,
    *,
    problem_type: str | None = None,
    prompt_type: str | None = None,
    spec: Mapping[str, Any] | None = None,
    num_tokens: int | None = None,
) -> RewardOutput:
    """The score of a completion whose verdict came from elsewhere."""
    rule = resolve(answer_type, spec)
    extraction = extracted_answer(completion, rule)
    return finish(verdict, completion, extraction, rule, problem_type, prompt_type, num_tokens)


def extracted_answer(completion: str, rule: Rule) -> Extraction | None:
    """The final answer of a completion as a rule wants it read."""
    return extract(completion, rule.params["unclosed_answer"], rule.params["code_block"])


def checked_inputs(  # noqa: PLR0917
    completion: str,
    answer: str | Sequence[str],
    answer_type: str,
    prompt_type: str | None,
    spec: Mapping[str, Any] | None,
    progress: float | None,
) -> tuple[Rule, tuple[str, ...]]:
    """The sample's rule and reference answers, or ValueError naming the field that is wrong."""
    if not isinstance(completion, str):
        raise ValueError(f"completion: got {type(completion).__name__}, wanted a string")
    if prompt_type not in (None, "answer", "think"):
        raise ValueError(f"prompt_type: got {prompt_type!r}, wanted 'answer', 'think' or None")
    if progress is not None and not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress: got {progress!r}, wanted a number in [0, 1]")
    rule = resolve(answer_type, spec)
    references = reference_texts(answer, rule.verifier)
    return rule, references


def check_reference(
    answer: Any, answer_type: str, prompt_type: str | None, spec: Mapping[str, Any] | None
) -> None:
    """ValueError when the spec does not fit or a reference cannot be read, as far as that is cheap to tell.

    Costly parsers see even references only in their killable workers; the tests of general-code are JSON.
    """
    rule, references = checked_inputs("", answer, answer_type, prompt_type, spec, None)
    if VERIFIERS[rule.verifier].isolated and rule.verifier != "general-code":
        return
    for reference in references:
        prepared_reference(rule.verifier, reference, rule.params_key)


@lru_cache(maxsize=2048)
def prepared_reference(verifier_name: str, reference: str, params_key: str) -> Any:
    """The parsed reference, shared by the rollouts of a prompt. Raises ValueError naming the field `answer`."""
    try:
        return VERIFIERS[verifier_name].prepare(reference, json.loads(params_key))
    except ValueError as error:
        raise ValueError(
            f"answer: {verifier_name} cannot read the reference {reference[:200]!r}: {error}"
        ) from error


def finish(  # noqa: PLR0917
    verdict: Verdict,
    completion: str,
    extraction: Extraction | None,
    rule: Rule,
    problem_type: str | None,
    prompt_type: str | None,
    num_tokens: int | None,
) -> RewardOutput:
    """Add format, think_bbox and penalties to a verdict and weigh the whole.

    R = sum_i w_i p_i / sum_i w_i over the parts that apply, where every part but accuracy counts as 0 until the answer
    is solved (accuracy >= solved_threshold), plus the penalties (<= 0), which are not normalised.
    """
    parts = {"accuracy": min(max(float(verdict.accuracy), 0.0), 1.0), **verdict.parts}
    if prompt_type is not None:
        parts["format"] = format_part.format_score(completion, extraction, prompt_type, rule.params)
    solved = parts["accuracy"] >= rule.params["solved_threshold"]
    if think_bbox.applies(problem_type, prompt_type, rule):
        parts["think_bbox"] = think_bbox.think_bbox_score(completion) if solved else 0.0
    # Parts of a verifier that never came to a judgement do not exist; that is not an error of the spec.
    total = weighted(parts, rule, solved) if verdict.status == "ok" or "accuracy" in rule.weights else 0.0
    for name, penalty in shaping.penalties(completion, num_tokens, rule.params).items():
        parts[name] = penalty
        total += penalty
    text = extraction.text if extraction is not None else None
    return RewardOutput(total, parts, verdict.status, text, verdict.trace)


def weighted(parts: Mapping[str, float], rule: Rule, solved: bool) -> float:
    """The normalised weighted sum of the parts that apply."""
    weights = {name: weight for name, weight in rule.weights.items() if name in parts}
    norm = sum(weights.values())
    if not norm > 0:
        raise ValueError(
            f"spec.weights: none of {sorted(rule.weights)} is a part here; parts are {sorted(parts)}"
        )
    pays = solved or not rule.params["format_needs_solved"]
    paid = {name: value if name == "accuracy" or pays else 0.0 for name, value in parts.items()}
    return sum(weight * paid[name] for name, weight in weights.items()) / norm
