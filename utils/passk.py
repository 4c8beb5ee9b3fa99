"""Pass@k of a prompt from n scored attempts, without the bias of running k of them."""

import math
from collections.abc import Sequence


def pass_at_k(num_attempts: int, num_solved: int, k: int) -> float:
    """Probability, in [0, 1], that at least one of k attempts drawn from these solves the prompt.

        1 - C(n - c, k) / C(n, k),   n = num_attempts, c = num_solved

    Unbiased for the model's true Pass@k, which 1 - (1 - c/n)^k is not (Chen et al. 2021,
    arXiv:2107.03374, eq. 1). `pass_at_k(10, 3, 1)` is 0.3, `pass_at_k(10, 3, 2)` is 1 - 21/45.

    Raises ValueError unless 0 <= c <= n and 1 <= k <= n: fewer than k attempts say nothing about Pass@k.
    """
    if not 0 <= num_solved <= num_attempts:
        raise ValueError(f"num_solved is {num_solved}; wanted 0 to num_attempts = {num_attempts}")
    if not 1 <= k <= num_attempts:
        raise ValueError(f"k is {k}; wanted 1 to num_attempts = {num_attempts}")
    return 1.0 - math.comb(num_attempts - num_solved, k) / math.comb(num_attempts, k)


def num_solved(rewards: Sequence[float], threshold: float = 1.0) -> int:
    """How many graded rewards count as solved: those of at least `threshold`, less float rounding (1e-9).

    Raises ValueError for a reward that is not finite, which is a fault of the verifier, not a failure.
    """
    if not all(map(math.isfinite, rewards)):
        raise ValueError(f"rewards {list(rewards)} hold a value that is not finite")
    return sum(reward >= threshold - 1e-9 for reward in rewards)
