"""Two runs on the same samples: how much better, how sure, and how many samples it would take to see a point.

Scores of one sample under two models go together, so differences d_i = after_i - before_i are looked at, never the two
means apart; and samples about one document go together, so everything below treats documents (clusters) as the units.
The mean difference is sum_i d_i / n with n samples.

- Test: under the null hypothesis that both runs answer alike, the sum D_c of each cluster's differences is as likely
  D_c as -D_c. Where all |D_c| that are not 0 are equal this is McNemar's exact test (McNemar 1947, Psychometrika
  12:153): binomial, with probability 1/2 over the discordant ones. Else signs are flipped at random (Fisher's
  randomisation test; (1 + as extreme) / (1 + drawn), Phipson & Smyth 2010, SAGMB 9:39), exact at any number drawn.
- Interval: percentile bootstrap over clusters (Efron & Tibshirani 1993, ch. 13), the ratio of sums.
- Samples needed for a difference of delta: n = (z_{1-alpha/2} + z_{power})^2 s^2 / delta^2 with s^2 = n Var(mean), the
  variance of a sample's difference with the correlation inside clusters in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

NUM_FLIPS = 9999
NUM_RESAMPLES = 2000
LEVEL = 0.05
POWER = 0.8
CHUNK = 2_000_000  # random signs drawn at once


@dataclass(frozen=True)
class Comparison:
    """Differences in points (0 to 100)."""

    num_samples: int
    num_clusters: int
    gain: float  # mean difference, after - before
    low: float  # 95 % interval of the gain
    high: float
    p_value: float  # two-sided
    p_loss: float  # one-sided: how likely so great a loss is by chance
    deviation: (
        float  # of one sample's difference, clusters counted in: the interval is about 2 deviation / sqrt(n)
    )

    @property
    def detectable(self) -> float:
        """The smallest difference that so many samples show, with `POWER`, at `LEVEL`."""
        return _both_quantiles() * self.deviation / math.sqrt(self.num_samples)

    def num_needed(self, points: float = 1.0) -> int:
        """Samples (of documents with as many questions each) to see a difference of `points`."""
        return math.ceil((_both_quantiles() * self.deviation / points) ** 2)


def compare_paired(
    before: Mapping[str, float],
    after: Mapping[str, float],
    clusters: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare the samples that both runs have. Scores lie in [0, 1]; `clusters` names each sample's document.

    Raises ValueError when the runs have no sample in common.
    """
    common = sorted(before.keys() & after.keys())
    if not common:
        raise ValueError("the runs have no sample in common")
    differences = np.array([after[key] - before[key] for key in common])
    labels = [clusters[key] if clusters and key in clusters else key for key in common]
    _, index = np.unique(labels, return_inverse=True)
    sums = np.bincount(index, weights=differences)
    sizes = np.bincount(index)
    low, high = _interval(sums, sizes, seed)
    p_value, p_loss = _p_values(sums, seed)
    return Comparison(
        num_samples=len(common),
        num_clusters=len(sums),
        gain=100 * float(differences.mean()),
        low=100 * low,
        high=100 * high,
        p_value=p_value,
        p_loss=p_loss,
        deviation=100 * _deviation(sums, sizes),
    )


def _p_values(sums: np.ndarray, seed: int) -> tuple[float, float]:
    """(two-sided, one-sided for a loss) of cluster sums under random signs."""
    sums = sums[np.abs(sums) > 1e-12]
    if not len(sums):
        return 1.0, 1.0
    if np.allclose(np.abs(sums), abs(sums[0])):
        num_losses, num = int((sums < 0).sum()), len(sums)
        p_loss = _binomial_tail(num_losses, num)
        return min(1.0, 2 * min(p_loss, _binomial_tail(num - num_losses, num))), p_loss
    generator = np.random.default_rng(seed)
    observed, lower, either = sums.sum(), 0, 0
    slack = 1e-9 * np.abs(sums).sum()
    for start in range(0, NUM_FLIPS, max(1, CHUNK // len(sums))):
        num = min(max(1, CHUNK // len(sums)), NUM_FLIPS - start)
        signs = generator.integers(0, 2, (num, len(sums)), dtype=np.int8) * 2 - 1
        totals = signs @ sums
        lower += int((totals <= observed + slack).sum())
        either += int((np.abs(totals) >= abs(observed) - slack).sum())
    return (1 + either) / (1 + NUM_FLIPS), (1 + lower) / (1 + NUM_FLIPS)


def _binomial_tail(least: int, num: int) -> float:
    """P(X >= least) for X ~ Binomial(num, 1/2), by logarithms: sums of thousands of samples stay finite."""
    terms = [
        math.lgamma(num + 1) - math.lgamma(k + 1) - math.lgamma(num - k + 1) - num * math.log(2)
        for k in range(least, num + 1)
    ]
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def _interval(sums: np.ndarray, sizes: np.ndarray, seed: int) -> tuple[float, float]:
    generator = np.random.default_rng(seed)
    means = []
    rows = max(1, CHUNK // len(sums))
    for start in range(0, NUM_RESAMPLES, rows):
        drawn = generator.integers(0, len(sums), (min(rows, NUM_RESAMPLES - start), len(sums)))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def _deviation(sums: np.ndarray, sizes: np.ndarray) -> float:
    """Square root of n Var(mean): linearised variance of a ratio, with one disagreement more than was seen, so that
    runs which agree on few samples do not look certain.
    """
    num = int(sizes.sum())
    residuals = sums - sizes * (sums.sum() / num)
    correction = len(sums) / max(1, len(sums) - 1)
    return math.sqrt((correction * float((residuals**2).sum()) + 1) / (num + 1))


def holm(p_values: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which hypotheses fall at this level over all of them (Holm 1979, Scand. J. Statist. 6:65)."""
    order = np.argsort(p_values)
    rejected = [False] * len(p_values)
    for rank, position in enumerate(order):
        if p_values[position] > level / (len(p_values) - rank):
            break
        rejected[position] = True
    return rejected


def _both_quantiles() -> float:
    return NormalDist().inv_cdf(1 - LEVEL / 2) + NormalDist().inv_cdf(POWER)
