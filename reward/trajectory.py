"""Rewards that see a whole conversation with tools: the answer's score as ever, and what the turns before it add.

Three parts, all off by default (section `agent` of a configuration):

    R' = (R + b * bonus + f * turn_format) / (1 + b + f) - c * num_calls

- `bonus` = 1 where the answer is right and at least one call told the model something; a right answer without a tool
  loses nothing to a wrong one with it. Conditional on the right answer as in DeepEyes (Zheng et al. 2025,
  arXiv:2505.14362, section 3.2); unconditional, calls are made for their own sake.
- `turn_format` = share of the turns that were read without a fault, paid only where the answer is right.
- `c` is the price of a call, whatever came of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reward.types import UNJUDGED, RewardOutput

COPY_CHARS = 40  # of a reply's text, found again in an answer's turn


@dataclass(frozen=True, slots=True)
class TrajectoryWeights:
    """b, f and c of the formula."""

    tool_bonus: float = 0.0
    turn_format: float = 0.0
    call_cost: float = 0.0

    def __post_init__(self) -> None:
        for name in ("tool_bonus", "turn_format", "call_cost"):
            if not 0 <= getattr(self, name) <= 10:
                raise ValueError(f"agent.{name}={getattr(self, name)}: wanted 0 (off) to 10")


NO_WEIGHTS = TrajectoryWeights()


def facts(steps: Sequence[Mapping[str, Any]], faults: Sequence[str]) -> dict[str, float]:
    """Plain numbers of one trajectory, from its turns as records (`dataset.agent.types.Step.to_record`).

    `tool_calls` (well-formed ones), `effective_calls` (of those, that brought something), `ineffective_calls` (that ran
    and told nothing new: a zoom into the whole image), `turn_format` in [0, 1], `num_turns`, `num_images`, `copied` (1
    where the last turn repeats 40 characters of a reply), `faults`.
    """
    called = [step for step in steps if step["call"] is not None]
    answered = [step for step in called if step["reply"] is not None and step["fault"] in OK_FAULTS]
    last = steps[-1]["text"] if steps else ""
    replies = [step["reply"] for step in answered]
    return {
        "tool_calls": float(len(called)),
        "effective_calls": float(sum(not step["without_effect"] for step in answered)),
        "ineffective_calls": float(sum(bool(step["without_effect"]) for step in answered)),
        "turn_format": sum(step["fault"] is None for step in steps) / max(len(steps), 1),
        "num_turns": float(len(steps)),
        "num_images": float(sum(step["num_images"] for step in steps)),
        "copied": float(any(copies(last, reply) for reply in replies)),
        "faults": float(len(faults)),
    }


OK_FAULTS = (None, "long_reply", "too_many_images")  # a reply came all the same


def copies(text: str, reply: str) -> bool:
    """Whether `text` holds `COPY_CHARS` characters of `reply` in a row."""
    return any(reply[i : i + COPY_CHARS] in text for i in range(max(len(reply) - COPY_CHARS + 1, 0)))


def score_trajectory(
    output: RewardOutput,
    steps: Sequence[Mapping[str, Any]],
    faults: Sequence[str],
    weights: TrajectoryWeights = NO_WEIGHTS,
    solved_threshold: float = 1.0,
) -> RewardOutput:
    """The score of the answer with the parts of the trajectory reported and, where they have a weight, added.

    Nothing is added to a score that nobody has judged.
    """
    found = facts(steps, faults)
    solved = output.parts["accuracy"] >= solved_threshold
    bonus = float(solved and found["effective_calls"] > 0)
    formatted = found["turn_format"] if solved else 0.0
    parts = {
        **output.parts,
        "tool_bonus": bonus,
        "turn_format": found["turn_format"],
        "tool_calls": found["tool_calls"],
    }
    total, trace = output.total, output.trace
    if weights != NO_WEIGHTS and output.status not in UNJUDGED:
        norm = 1 + weights.tool_bonus + weights.turn_format
        total = (total + weights.tool_bonus * bonus + weights.turn_format * formatted) / norm
        total -= weights.call_cost * found["tool_calls"]
        trace = (
            *trace,
            f"trajectory: ({output.total:.4f} + {weights.tool_bonus:g} * {bonus:g} + {weights.turn_format:g} * "
            f"{formatted:.4f}) / {norm:g} - {weights.call_cost:g} * {found['tool_calls']:g} = {total:.4f}",
        )
    return replace(output, total=total, parts=parts, trace=trace)
