"""format: whether a completion has the shape its prompt asked for; a part of the reward, no judgement of the answer.

Thinking prompt: exactly one <think> block, closed, before the answer; an answer in one of the two conventions; the
answer's content and every other answer together at most `max_answer_fraction` of the completion. Answer-only prompt:
an answer, nothing that thinks.
"""

from collections.abc import Mapping
from typing import Any

from reward.extract import MAX_COMPLETION_CHARS, Extraction, answer_chars

_END_MARKS = ("<|im_end|>", "<|endoftext|>", "</s>")


def format_score(
    completion: str, extraction: Extraction | None, prompt_type: str, params: Mapping[str, Any]
) -> float:
    """1.0 when the completion is well-formed for its prompt type ("think" or "answer"), else 0.0."""
    if extraction is None or not extraction.text or not extraction.closed:
        return 0.0
    completion = _without_end_marks(completion)
    if prompt_type == "think":
        return float(_thinks_once(completion, extraction, params["max_answer_fraction"]))
    thinks = "<think>" in completion or "</think>" in completion
    num_outside = len(completion[: extraction.start].strip()) + len(completion[extraction.end :].strip())
    return float(not thinks and num_outside <= params["max_outside_chars"])


def _thinks_once(completion: str, extraction: Extraction, max_answer_fraction: float) -> bool:
    opened, closed = completion.find("<think>"), completion.find("</think>")
    once = completion.count("<think>") == 1 and completion.count("</think>") == 1
    ordered = 0 <= opened < closed < extraction.start
    thought = completion[opened + len("<think>") : closed].strip() if ordered else ""
    if not once or not thought or len(completion) > MAX_COMPLETION_CHARS:
        return False
    others = answer_chars(completion) - (extraction.end - extraction.start)
    return len(extraction.raw.strip()) + others <= max_answer_fraction * len(completion)


def _without_end_marks(completion: str) -> str:
    text = completion.rstrip()
    for mark in _END_MARKS:
        text = text.removesuffix(mark).rstrip()
    return text
