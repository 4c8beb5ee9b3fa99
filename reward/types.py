"""The records that rewards are made of: what a verifier is, what it returns, what training receives."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

Status = Literal[
    "ok", "no_answer", "unparseable", "timeout", "crash", "rejected", "judge_timeout", "judge_error"
]  # fmt: skip
STATUSES: tuple[Status, ...] = get_args(Status)
UNJUDGED: frozenset[Status] = frozenset(("judge_timeout", "judge_error"))  # nobody has looked at the answer


class Unavailable(RuntimeError):
    """A verifier needs something that this machine does not have; the message says what, and how to get it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One comparison of an extracted answer with one prepared reference.

    `accuracy` lies in [0, 1]. `parts` holds further finite numbers worth reporting (`iou`, `ssim`, ...); they are
    weighed only where a sample's spec names them. `trace` is read by people (`python -m reward explain`).
    """

    accuracy: float
    status: Status = "ok"
    parts: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    trace: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RewardOutput:
    """The score of one completion.

    total: what training uses; finite; in [0, 1] unless a length or repetition penalty is switched on.
    parts: always `accuracy` in [0, 1]; `format`, `think_bbox`, ... where they apply. Every value is finite.
    status: `ok` (judged, right or wrong), `no_answer`, `unparseable`, `timeout`, `crash`, `rejected` (refused unread);
        `judge_timeout`, `judge_error`: nobody has judged it, and the total says nothing.
    extracted: the answer as the verifier saw it, or None.
    trace: the rules applied, one sentence each, for people.
    """

    total: float
    parts: dict[str, float]
    status: Status
    extracted: str | None
    trace: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status: got {self.status!r}, wanted one of {STATUSES}")
        if not math.isfinite(self.total) or not all(math.isfinite(value) for value in self.parts.values()):
            raise ValueError(f"a reward must be finite, got total={self.total}, parts={self.parts}")


class Verifier(NamedTuple):
    """How one answer type is judged.

    prepare(reference, params): parses ONE reference answer; called once per reference and cached; raises ValueError
        naming the problem when the reference cannot be read, because that is an error of the data.
    verify(extracted, prepared, params): judges the model's answer, which may be anything; never raises for it.
    defaults: its parameters (a sample's spec may change them) and their defaults, over those of `reward.spec.COMMON`.
    remembers: a costly `verify` that depends on its arguments alone, but for `progress`: equal answers are judged once.
    remote: `verify` waits for another machine; the pool asks it without a worker (`reward.workers.judge`).
    open_params: a spec may give parameters that `defaults` does not know.
    needs_answer: completions without an answer are not shown to `verify`.
    isolated: True when `verify` must run in a worker process that can be killed at `deadline_seconds`.
    quick(extracted, references, params): for isolated verifiers, an optional cheap judgement that is safe in the
        caller's process; None means "send it to a worker".
    """

    prepare: Callable[[str, Mapping[str, Any]], Any]
    verify: Callable[[str, Any, Mapping[str, Any]], Verdict]
    defaults: Mapping[str, Any] = MappingProxyType({})
    isolated: bool = False
    deadline_seconds: float = 5.0
    quick: Callable[[str, tuple[str, ...], Mapping[str, Any]], Verdict | None] | None = None
    remembers: bool = False
    remote: bool = False
    open_params: bool = False
    needs_answer: bool = True
