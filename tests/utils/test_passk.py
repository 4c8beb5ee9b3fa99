"""Pass@k against enumeration of every subset, and its refusals."""

import itertools
import math

import pytest

from utils.passk import num_solved, pass_at_k


@pytest.mark.parametrize("n", range(1, 9))
def test_equals_the_share_of_subsets_with_a_solved_attempt(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        attempts = [True] * c + [False] * (n - c)
        subsets = list(itertools.combinations(attempts, k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-15)


def test_on_paper():
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k(10, 3, 2) == pytest.approx(1 - 21 / 45)
    assert pass_at_k(10, 0, 10) == 0.0
    assert pass_at_k(10, 1, 10) == 1.0


def test_unbiased_over_binomial_outcomes():
    """E[pass_at_k] over c ~ Binomial(n, p) is 1 - (1 - p)^k; plugging c/n into that formula is not."""
    n, k, p = 10, 4, 0.2
    chances = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    true = 1 - (1 - p) ** k
    assert sum(w * pass_at_k(n, c, k) for c, w in enumerate(chances)) == pytest.approx(true, abs=1e-12)
    assert abs(sum(w * (1 - (1 - c / n) ** k) for c, w in enumerate(chances)) - true) > 0.02


def test_large_counts_do_not_overflow():
    assert pass_at_k(100_000, 50_000, 1000) == pytest.approx(1.0)
    assert pass_at_k(100_000, 1, 50_000) == pytest.approx(0.5)


@pytest.mark.parametrize(("n", "c", "k"), [(10, 11, 1), (10, -1, 1), (10, 3, 0), (10, 3, 11), (0, 0, 1)])
def test_impossible_counts_are_refused(n, c, k):
    with pytest.raises(ValueError, match="wanted"):
        pass_at_k(n, c, k)


def test_graded_rewards_count_as_solved_from_the_threshold_on():
    rewards = [0.0, 0.5, 0.7, 1.0, 0.1 * 7]
    assert num_solved(rewards) == 1
    assert num_solved(rewards, 0.7) == 3
    assert num_solved([0.1 + 0.1 + 0.1], 0.3) == 1
    assert num_solved([]) == 0
    with pytest.raises(ValueError, match="not finite"):
        num_solved([1.0, math.nan])
