"""Paired comparison: worked numbers, the rate of false alarms, and that real losses are seen."""

import math

import numpy as np
import pytest

from utils.evaluate import compare
from utils.evaluate.compare import Change
from utils.evaluate.paired import _binomial_tail, compare_paired, holm

NUM_SIMULATED = 1000


def scores(values):
    return {str(position): float(value) for position, value in enumerate(values)}


def test_mcnemar_by_hand():
    """8 samples lost, 2 won, of 100: P(X >= 8 of 10) = (45 + 10 + 1) / 1024."""
    before = [1] * 8 + [0] * 2 + [1] * 60 + [0] * 30
    after = [0] * 8 + [1] * 2 + [1] * 60 + [0] * 30
    found = compare_paired(scores(before), scores(after))
    assert found.gain == pytest.approx(-6.0)
    assert found.p_loss == pytest.approx(56 / 1024)
    assert found.p_value == pytest.approx(112 / 1024)
    assert found.low < -6 < found.high
    assert compare_paired(scores(after), scores(before)).p_loss == pytest.approx(1 - 11 / 1024)  # P(X >= 2)


def test_the_exact_tail_equals_the_sum_of_binomial_coefficients():
    for num, least in ((10, 8), (40, 25), (41, 0)):
        assert _binomial_tail(least, num) == pytest.approx(
            sum(math.comb(num, k) for k in range(least, num + 1)) / 2**num
        )
    assert 0 < _binomial_tail(2600, 5000) < 0.01, "thousands of samples"


def test_random_signs_agree_with_all_signs():
    """Clusters with sums 2, -1, 3, 1, -2, 1, 1, 2: all 256 sign patterns against those drawn."""
    sums = [2, -1, 3, 1, -2, 1, 1, 2]
    before, after, clusters = {}, {}, {}
    for cluster, total in enumerate(sums):
        for member in range(abs(total)):
            key = f"{cluster}-{member}"
            before[key], after[key] = float(total < 0), float(total > 0)
            clusters[key] = str(cluster)
    patterns = 1 - 2 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)
    totals = np.abs(patterns @ np.abs(sums))
    exact = float((totals >= abs(sum(sums))).mean())
    assert compare_paired(before, after, clusters).p_value == pytest.approx(exact, abs=0.015)


def test_samples_needed_are_enough_and_not_far_too_many(few_flips):
    """With as many samples as it asks for, a point is seen in about 80 of 100 experiments."""
    generator = np.random.default_rng(0)
    pilot_before = (generator.random(4000) < 0.7).astype(float)
    pilot_after = np.where(generator.random(4000) < 0.1, 1 - pilot_before, pilot_before)
    num = compare_paired(scores(pilot_before), scores(pilot_after)).num_needed(2.0)
    seen = 0
    for _ in range(200):
        flips = generator.random(num)  # 9 % of the samples disagree; the difference is 2 points
        before = scores(np.where(flips < 0.055, 0, 1))
        after = scores(np.where((flips >= 0.055) & (flips < 0.09), 0, 1))
        found = compare_paired(before, after)
        seen += found.p_value < 0.05 and found.gain > 0
    assert 0.65 < seen / 200 < 0.93
    assert found.detectable == pytest.approx(2.0, rel=0.25)


def runs_of_one_model(generator, clustered):
    """Scores of two runs that answer alike: each sample right with its own probability, all of a document together."""
    if not clustered:
        chances = generator.beta(2, 1, 120)
        return [scores(generator.random(120) < chances) for _ in range(2)] + [None]
    chances = np.repeat(generator.beta(2, 1, 40), 4)
    runs = []
    for _ in range(2):
        by_document = np.repeat(generator.random(40), 4)  # the run reads a document well or badly
        runs.append(scores(by_document < chances))
    return [*runs, {str(i): str(i // 4) for i in range(160)}]


def gated_change(name, before, after, clusters):
    noise = compare_paired(before, after, clusters, seed=1)
    means = [100 * float(np.mean(list(run.values()))) for run in (before, after)]
    return Change(name, "metric", *means, True, noise, noise.p_loss)


@pytest.fixture
def few_flips(monkeypatch):
    # exact at any number of flips drawn; the interval plays no part in the gate
    monkeypatch.setattr("utils.evaluate.paired.NUM_FLIPS", 199)
    monkeypatch.setattr("utils.evaluate.paired.NUM_RESAMPLES", 2)


def test_at_most_five_percent_of_comparisons_of_a_model_with_itself_alarm(few_flips):
    """1,000 comparisons of three gated benchmarks each, one of them with four questions a document, without any
    tolerance (`--gate 0`). Taking the questions for independent instead, more than 5 % alarm.
    """
    generator = np.random.default_rng(7)
    alarms, naive = 0, 0
    for _ in range(NUM_SIMULATED):
        runs = [runs_of_one_model(generator, clustered) for clustered in (False, False, True)]
        names = ("docvqa", "charxiv_dq", "vl_rewardbench")
        changes = [gated_change(name, *run) for name, run in zip(names, runs, strict=True)]
        alarms += bool(compare.forgotten(changes, 0.0))
        blind = gated_change("docvqa", runs[2][0], runs[2][1], None)
        naive += bool(compare.forgotten([blind], 0.0))
    assert alarms <= 0.05 * NUM_SIMULATED
    assert naive > 0.1 * NUM_SIMULATED, "the simulation would show a test that forgets the documents"


def test_a_real_loss_is_seen():
    """DocVQA's 95.0 to 91.9 on its 5,349 questions, four to a document."""
    generator = np.random.default_rng(3)
    before = generator.random(5349) < 0.95
    after = np.where(generator.random(5349) < 0.06, ~before, before) & (generator.random(5349) > 0.005)
    clusters = {str(i): str(i // 4) for i in range(5349)}
    change = gated_change("docvqa", scores(before), scores(after), clusters)
    assert compare.forgotten([change], 2.0) == [change]
    assert change.noise.high < 0


def test_a_loss_of_three_points_among_a_hundred_samples_is_no_alarm_but_a_hint():
    before, after = scores([1] * 95 + [0] * 5), scores([1] * 92 + [0] * 8)
    change = gated_change("docvqa", before, after, None)
    assert change.gain == pytest.approx(-3)
    assert compare.forgotten([change], 2.0) == []
    (line,) = compare.verdict([change], 2.0)[:1]
    assert "lost 3.0 points, which may be noise" in line
    assert f"{change.noise.num_needed(2.0):,} samples would show 2 points" in line


def test_agreement_on_few_samples_is_not_certainty():
    found = compare_paired(scores([1] * 10), scores([1] * 10))
    assert (found.gain, found.p_value) == (0, 1)
    assert found.num_needed(1.0) > 1000
    with pytest.raises(ValueError, match="no sample in common"):
        compare_paired({"1": 1.0}, {"2": 1.0})


def test_holm():
    assert holm([0.04, 0.01, 0.03]) == [False, True, False]
    assert holm([0.02, 0.01, 0.04]) == [True, True, True]
    assert holm([]) == []
