"""The examples of docs/rewards.md, executed."""

import json
import re
from pathlib import Path

import pytest

from reward.registry import ANSWER_TYPES
from reward.score import score_local

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text()


def examples():
    for header, body in re.findall(r"```examples ([^\n]*)\n(.*?)\n```\n", PAGE, re.DOTALL):
        answer_type, _, spec = header.partition(" ")
        for line in body.splitlines():
            accuracy, rest = line.split(maxsplit=1)
            reference, answer = rest.split(" <- ")
            yield pytest.param(
                answer_type,
                json.loads(spec or "{}"),
                float(accuracy),
                reference,
                answer.replace("\\n", "\n"),
                id=line[:70],
            )


@pytest.mark.parametrize(("answer_type", "spec", "accuracy", "reference", "answer"), examples())
def test_example(answer_type, spec, accuracy, reference, answer):
    tagged = "answer>" in answer or answer.startswith("\\boxed")
    completion = answer if tagged else f"<answer>{answer}</answer>"
    output = score_local(completion, reference, answer_type, spec=spec)
    assert output.parts["accuracy"] == pytest.approx(accuracy, abs=5e-3)


def test_every_type_has_a_section():
    headings = ", ".join(re.findall(r"^## (.*)$", PAGE, re.MULTILINE)).split(", ")
    assert set(ANSWER_TYPES) <= set(headings)


def test_there_are_examples_that_pay_and_more_that_do_not():
    values = [case.values[2] for case in examples()]
    assert len(values) > 90
    assert 20 < sum(value == 1 for value in values) < sum(value < 1 for value in values)
