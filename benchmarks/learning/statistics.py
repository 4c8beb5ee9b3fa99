"""Intervals over seeds: how far a mean of a few runs can be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy import stats


class Estimate(NamedTuple):
    """A mean over runs. `low` and `high` bound it two-sided at 95 %, `lower_bound` one-sided at 95 %."""

    mean: float
    low: float
    high: float
    lower_bound: float
    num_runs: int

    def __str__(self) -> str:
        if self.num_runs < 2:
            return f"{self.mean:+.1f} (one run)"
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def estimate(values: Sequence[float]) -> Estimate:
    """Student's t over independent runs; without bounds (minus and plus infinity) for a single one.

    Raises ValueError for no value at all.
    """
    if not values:
        raise ValueError("no finished run to take a mean of")
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return Estimate(mean, -math.inf, math.inf, -math.inf, n)
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    two_sided, one_sided = (float(stats.t.ppf(p, n - 1)) * error for p in (0.975, 0.95))
    return Estimate(mean, mean - two_sided, mean + two_sided, mean - one_sided, n)
