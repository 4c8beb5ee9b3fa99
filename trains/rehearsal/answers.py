"""Reference answers in place of drawn ones: a random model solves nothing, and equal rewards have no gradient.

The servers score them token by token under the weights they have, so a group with them goes through the loss like any
other. `GroupInfo.num_references` marks them.
"""

from __future__ import annotations

from typing import Any

from dataset.encode import EncodedPrompt
from reward.reading.code_tests import CodeTest, read_suite
from trains.workflow import VisionRolloutWorkflow
from utils.sample import Sample

THINKING = "<think>The reference answer, placed by a rehearsal.</think>"


class RehearsedWorkflow(VisionRolloutWorkflow):
    """As the workflow of training; the first `share` of each group's answers are the reference.

    Args:
        share: of the group, in [0, 1].
        max_tokens: of prompt and answer; a longer reference is cut.
    """

    def __init__(self, *args: Any, share: float, max_tokens: int, **options: Any):
        super().__init__(*args, **options)
        self.num_references = round(share * self.num_rollouts)
        self.max_tokens = max_tokens

    def given_answer(self, sample: Sample, encoded: EncodedPrompt, place: int) -> list[int] | None:
        if place >= self.num_references:
            return None
        text = reference_completion(sample, place)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"] + self.gconfig.stop_token_ids[:1]
        return ids[: self.max_tokens - len(encoded.input_ids)]


def reference_completion(sample: Sample, place: int = 0) -> str:
    """What a model that knows the reference would write; `place` chooses among several references."""
    reference = sample.answer[place % len(sample.answer)]
    if sample.answer_type == "general-code":
        reference = solution_of(reference)
    return f"{THINKING if sample.prompt_type == 'think' else ''}<answer>{reference}</answer>"


def solution_of(reference: str) -> str:
    """A program that passes the tests of a general-code reference, because it has looked them up.

    Raises ValueError for a reference without tests.
    """
    tests = read_suite(reference).tests
    whole = {test.request["stdin"]: test.expected for test in tests if "stdin" in test.request}
    lines = [f"def solution(input):\n    return {whole!r}[input]"] if whole else []
    named: dict[str, list[CodeTest]] = {}
    for test in tests:
        if "call" in test.request:
            named.setdefault(test.request["call"], []).append(test)
    for name, calls in named.items():
        table = [(test.request["args"], test.request["kwargs"], test.expected) for test in calls]
        lines.append(
            f"def {name}(*args, **kwargs):\n"
            f"    return next(wanted for given, named, wanted in {table!r} if (given, named) == (list(args), kwargs))"
        )
    return "\n".join(lines)
