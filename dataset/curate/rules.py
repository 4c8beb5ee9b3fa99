"""Which measured samples are kept: the rules, their defaults per source, and the pass that applies them in order.

Reasons for dropping a measured sample, first match wins:
`unsolved` (no attempt solved it), `always-solved`, `small-gap`, `reward-too-low`, `reward-too-high`, `low-variance`,
`class-full` (its class has its share already), `duplicate-id` (a kept sample has its id).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dataset.curate.statistics import Statistics


@dataclass(frozen=True, slots=True)
class KeepRule:
    """A sample is kept when every rule that is set holds."""

    min_gap: float | None = 0.0  # keep when Pass@N - Pass@1 > min_gap; None: the gap is not asked for
    min_reward: float = 0.0  # open interval: min_reward < mean reward < max_reward
    max_reward: float = 0.6
    min_variance: float | None = None  # keep when the reward variance >= min_variance
    keep_all: bool = False  # measure only; nothing is dropped


DEFAULT_RULE = KeepRule()

# Sources that differ from DEFAULT_RULE, and why.
SOURCE_RULES: dict[str, KeepRule] = {
    # Graded rewards: "solved" is a cut through a continuum, so the spread of rewards counts and not the gap.
    "webcode2m": KeepRule(min_gap=None, max_reward=0.9, min_variance=1e-3),
    "unisvg": KeepRule(min_gap=None, max_reward=0.9, min_variance=1e-3),
    "ref_l4": KeepRule(max_reward=0.8),  # IoU pays half a point for a sloppy box
    "infovqa": KeepRule(max_reward=0.8),  # edit similarity pays for near misses
    "docvqa": KeepRule(max_reward=0.8),
    "mmmu": KeepRule(keep_all=True),  # five development questions a subject: too few to choose from
}


def rule_for(source: str, overrides: Mapping[str, float | bool | None]) -> KeepRule:
    """The rule of a source; overrides that are not None win (`{"max_reward": 0.8}`).

    Raises ``ValueError`` when the reward interval is empty.
    """
    rule = replace(
        SOURCE_RULES.get(source, DEFAULT_RULE), **{k: v for k, v in overrides.items() if v is not None}
    )
    if not rule.keep_all and rule.min_reward >= rule.max_reward:
        raise ValueError(
            f"--min-reward {rule.min_reward} must be below --max-reward {rule.max_reward}: nothing could be kept"
        )
    return rule


def drop_reason(statistics: Statistics, rule: KeepRule) -> str | None:  # noqa: PLR0911 - one return per reason
    """Why a sample is dropped, or None when it is kept."""
    if rule.keep_all:
        return None
    if rule.min_gap is not None and statistics.gap <= rule.min_gap:
        if statistics.num_solved == 0:
            return "unsolved"
        return "always-solved" if statistics.num_solved == statistics.num_attempts else "small-gap"
    if statistics.mean_reward <= rule.min_reward:
        return "reward-too-low"
    if statistics.mean_reward >= rule.max_reward:
        return "reward-too-high"
    if rule.min_variance is not None and statistics.reward_variance < rule.min_variance:
        return "low-variance"
    return None


class Selection:
    """Applies the rules to samples in source order, whatever order the measurements arrive in.

    Only the gapless prefix of positions is decided, so the outcome never depends on timing: with `size` the first
    `size` kept samples in source order are the result, whichever attempt finished first.
    """

    def __init__(self, rule: KeepRule, size: int | None = None, max_per_class: int | None = None) -> None:
        self.rule, self.size, self.max_per_class = rule, size, max_per_class
        self.kept: list[int] = []  # positions, ascending
        self.dropped: dict[int, str] = {}  # position -> reason, measured samples only
        self.rejected: dict[int, str] = {}  # position -> reason, rows that were never measured
        self._waiting: dict[int, tuple[Statistics | None, str, str]] = {}
        self._ids: set[str] = set()
        self._next = 0
        self._per_class: Counter[str] = Counter()

    @property
    def complete(self) -> bool:
        """Whether `size` samples are kept; later positions then count for nothing."""
        return self.size is not None and len(self.kept) >= self.size

    def offer(self, position: int, statistics: Statistics | None, label: str, sample_id: str = "") -> None:
        """Hand in one position: its statistics and class, or None and the reason why it was not measured.

        `sample_id` must be unique among the kept samples; "" means that it is known to be.

        Raises ``ValueError`` for a position handed in before.
        """
        if position < self._next or position in self._waiting:
            raise ValueError(f"position {position} was handed in twice")
        self._waiting[position] = (statistics, label, sample_id)
        while self._next in self._waiting:
            self._decide(self._next, *self._waiting.pop(self._next))
            self._next += 1

    def _decide(self, position: int, statistics: Statistics | None, label: str, sample_id: str) -> None:
        if self.complete:
            return
        if statistics is None:
            self.rejected[position] = label
        elif reason := drop_reason(statistics, self.rule):
            self.dropped[position] = reason
        elif self.max_per_class is not None and self._per_class[label] >= self.max_per_class:
            self.dropped[position] = "class-full"
        elif sample_id and sample_id in self._ids:
            self.dropped[position] = "duplicate-id"
        else:
            self._ids.add(sample_id)
            self._per_class[label] += 1
            self.kept.append(position)
