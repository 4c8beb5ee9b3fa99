"""Statistics and keep rules: arithmetic on the page, and a selection that ignores the order of arrival."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.curate.rules import DEFAULT_RULE, SOURCE_RULES, KeepRule, Selection, drop_reason, rule_for
from dataset.curate.statistics import attempt_counts, measure
from dataset.sources import SOURCES


def stats(rewards, threshold=1.0):
    return measure(rewards, rewards, threshold)


def test_worked_example():
    # 3 of 10 solved. Pass@2 = 1 - C(7,2)/C(10,2) = 1 - 21/45; Pass@4 = 1 - 35/210; Pass@8 = Pass@10 = 1.
    result = measure([1.0] * 3 + [0.5] * 2 + [0.0] * 5, [1.0] * 3 + [0.5] * 2 + [0.0] * 5, 1.0)
    assert result.num_solved == 3
    assert result.pass_at == pytest.approx({1: 0.3, 2: 1 - 21 / 45, 4: 1 - 35 / 210, 8: 1.0, 10: 1.0})
    assert result.gap == pytest.approx(0.7)
    assert result.mean_reward == pytest.approx(0.4)  # (3 + 1) / 10
    assert result.reward_variance == pytest.approx((3 * 0.36 + 2 * 0.01 + 5 * 0.16) / 10)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.4, 1.0]), min_size=1, max_size=9))
def test_pass_at_k_is_the_share_of_subsets_with_a_solved_attempt(rewards):
    result = stats(rewards)
    for k, value in result.pass_at.items():
        subsets = list(itertools.combinations(rewards, k))
        assert value == pytest.approx(sum(max(subset) >= 1 for subset in subsets) / len(subsets))
    assert result.pass_at[1] == pytest.approx(result.pass_at_1)


def test_solved_depends_on_the_threshold_and_on_accuracy_not_on_the_total():
    assert measure([0.9, 0.9], [0.6, 0.4], 0.5).num_solved == 1
    assert measure([0.9, 0.9], [0.6, 0.4], 0.3).num_solved == 2


@pytest.mark.parametrize("n", [1, 2, 3, 8, 10, 16])
def test_attempt_counts_are_powers_of_two_and_n(n):
    counts = attempt_counts(n)
    assert counts[0] == 1
    assert counts[-1] == n
    assert counts == sorted(set(counts))
    assert all(k & (k - 1) == 0 for k in counts[:-1])


@pytest.mark.parametrize(
    "bad", [([], []), ([1.0], [1.0, 0.0]), ([float("nan")], [1.0]), ([1.0], [float("inf")])]
)
def test_statistics_refuse_what_cannot_be_averaged(bad):
    with pytest.raises(ValueError, match=r"wanted|finite"):
        measure(*bad, 1.0)


@pytest.mark.parametrize(
    ("rewards", "rule", "reason"),
    [
        ([0.0] * 10, DEFAULT_RULE, "unsolved"),
        ([1.0] * 10, DEFAULT_RULE, "always-solved"),
        ([1.0] * 3 + [0.0] * 7, DEFAULT_RULE, None),
        ([1.0] * 6 + [0.0] * 4, DEFAULT_RULE, "reward-too-high"),  # the interval is open: 0.6 is out
        ([1.0] * 5 + [0.0] * 5, DEFAULT_RULE, None),
        (
            [1.0] * 8 + [0.0] * 2,
            KeepRule(min_gap=0.2, max_reward=0.9),
            "small-gap",
        ),  # gap 0.2 is not above 0.2
        ([1.0] * 7 + [0.0] * 3, KeepRule(min_gap=0.2, max_reward=0.9), None),
        ([1.0] + [0.0] * 9, KeepRule(min_reward=0.1), "reward-too-low"),  # open below as well
        ([0.3] * 10, KeepRule(min_gap=None, min_variance=1e-3), "low-variance"),
        ([0.2, 0.4] * 5, KeepRule(min_gap=None, min_variance=0.01), None),  # variance 0.01 reaches the floor
        ([0.0] * 10, KeepRule(keep_all=True), None),
        ([1.0] * 10, KeepRule(keep_all=True), None),
    ],
)
def test_drop_reason(rewards, rule, reason):
    assert drop_reason(stats(rewards), rule) == reason


def test_defaults_are_the_recipes_and_overrides_win():
    assert rule_for("virl39k", {}) == KeepRule(min_gap=0.0, min_reward=0.0, max_reward=0.6)
    assert rule_for("unisvg", {}).min_gap is None
    assert rule_for("unisvg", {"max_reward": 0.5, "min_gap": None}).max_reward == 0.5
    assert rule_for("virl39k", {"keep_all": True}).keep_all
    assert set(SOURCE_RULES) <= set(SOURCES)
    with pytest.raises(ValueError, match="nothing could be kept"):
        rule_for("virl39k", {"min_reward": 0.6})


def outcomes(order, results, **options):
    selection = Selection(DEFAULT_RULE, **options)
    for position in order:
        selection.offer(position, *results[position])
    return selection.kept, selection.dropped, selection.rejected


def test_selection_does_not_depend_on_the_order_of_arrival():
    generator = random.Random(0)
    results = []
    for position in range(80):
        solved = generator.randrange(11)
        measured = stats([1.0] * solved + [0.0] * (10 - solved))
        results.append(
            (None, "missing-image")
            if position % 9 == 4
            else (measured, str(position % 3), f"id{position % 60}")
        )
    wanted = outcomes(range(80), results, size=15, max_per_class=6)
    assert len(wanted[0]) == 15
    for _ in range(20):
        order = generator.sample(range(80), 80)
        assert outcomes(order, results, size=15, max_per_class=6) == wanted


def test_selection_waits_for_gaps_and_stops_at_the_size():
    good = (stats([1.0, 0.0, 0.0]), "a")
    selection = Selection(DEFAULT_RULE, size=2)
    selection.offer(1, *good)
    selection.offer(2, *good)
    assert selection.kept == []
    assert not selection.complete
    selection.offer(0, *good)
    assert selection.kept == [0, 1]
    assert selection.complete
    assert (selection.dropped, selection.rejected) == ({}, {}), "position 2 counts for nothing"
    with pytest.raises(ValueError, match="twice"):
        selection.offer(1, *good)


def test_class_shares_and_duplicate_ids():
    good = stats([1.0, 0.0, 0.0])
    selection = Selection(DEFAULT_RULE, max_per_class=2)
    for position, (label, sample_id) in enumerate(
        [("a", "1"), ("a", "2"), ("a", "3"), ("b", "1"), ("b", "4")]
    ):
        selection.offer(position, good, label, sample_id)
    assert selection.kept == [0, 1, 4]
    assert selection.dropped == {2: "class-full", 3: "duplicate-id"}
