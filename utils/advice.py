"""What an experienced person would say about a run, from the records of its steps alone.

An `Adviser` is told of a run step by step; `advise` goes through one afterwards. The rules are those of
`utils.advice_rules`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from utils.advice_rules import RULES
from utils.watch import Watch


@dataclass(frozen=True)
class Advice:
    """One finding: the steps of its first and last appearance, what was seen, why it matters and what to change."""

    name: str
    step: int
    last: int
    text: str
    reason: str
    change: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text} ({self.reason}); {self.change}"


class Adviser(Watch):
    """A watch that speaks."""

    def step(self, record: Mapping[str, Any]) -> list[Advice]:
        """Take note of a step's record; everything that can be said now."""
        self.note(record)
        step = int(record["step"])
        found = ((rule, rule.find(self)) for rule in RULES)
        return [
            Advice(rule.name, step, step, text, rule.reason, rule.change)
            for rule, text in found
            if text is not None
        ]


def advise(
    steps: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Mapping[str, Any]] = (),
    settings: Mapping[str, Any] | None = None,
) -> list[Advice]:
    """Everything that could be said of a run, each once, in order of appearance."""
    adviser, said = Adviser(settings), {}
    waiting = deque(sorted(evaluations, key=lambda record: record["step"]))
    for record in steps:
        while waiting and waiting[0]["step"] < record["step"]:
            adviser.evaluation(waiting.popleft())
        for item in adviser.step(record):
            said[item.name] = replace(said[item.name], last=item.last) if item.name in said else item
    return list(said.values())
