"""What N scored attempts say about one sample: Pass@1, unbiased Pass@k, their gap, mean and variance of reward."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from utils.passk import num_solved, pass_at_k


@dataclass(frozen=True, slots=True)
class Statistics:
    """Measured on N attempts at one sample; all shares lie in [0, 1]."""

    num_attempts: int
    num_solved: int  # attempts whose accuracy reaches the solved threshold
    pass_at_1: float  # num_solved / num_attempts
    pass_at: dict[int, float]  # k -> unbiased Pass@k, for k = 1, 2, 4, ..., N
    gap: float  # Pass@N - Pass@1: latent capability that is not reliable
    mean_reward: float
    reward_variance: float  # population variance (divided by N)


def attempt_counts(num_attempts: int) -> list[int]:
    """The k of the reported Pass@k: powers of two below N, then N.

    >>> attempt_counts(10)
    [1, 2, 4, 8, 10]
    """
    powers = [1 << i for i in range(num_attempts.bit_length()) if 1 << i < num_attempts]
    return [*powers, num_attempts]


def measure(rewards: Sequence[float], accuracies: Sequence[float], solved_threshold: float) -> Statistics:
    """Statistics of one sample's attempts.

    rewards: total reward per attempt, what training would use.
    accuracies: accuracy part per attempt in [0, 1]; an attempt is solved when it is >= `solved_threshold`.
    Pass@k is the unbiased estimator 1 - C(n-c, k)/C(n, k) (Chen et al., 2021, eq. 1).
    Raises ``ValueError`` for no attempts, unequal lengths or a number that is not finite.
    """
    n = len(rewards)
    if n == 0 or n != len(accuracies):
        raise ValueError(
            f"got {n} rewards and {len(accuracies)} accuracies, wanted the same number and at least one"
        )
    if not all(math.isfinite(value) for value in (*rewards, *accuracies)):
        raise ValueError(f"every reward must be finite, got {list(rewards)} and {list(accuracies)}")
    solved = num_solved(accuracies, solved_threshold)
    passes = {k: float(pass_at_k(n, solved, k)) for k in attempt_counts(n)}
    mean = math.fsum(rewards) / n
    return Statistics(
        num_attempts=n,
        num_solved=solved,
        pass_at_1=solved / n,
        pass_at=passes,
        gap=passes[n] - solved / n,
        mean_reward=mean,
        reward_variance=math.fsum((reward - mean) ** 2 for reward in rewards) / n,
    )
