"""Advantage estimators against slow loops and worked examples; groups without signal stay exactly zero."""

import math
import statistics

import pytest
import torch

from utils.advantages import (
    ESTIMATORS,
    OVER_THE_BATCH,
    batch_moments,
    batch_whiten,
    group_advantages,
    shape_rewards,
    signal_mask,
)

# Those that compare a rollout's reward with its group; the others: test_advantages_papers.py
IN_THE_GROUP = [name for name in ESTIMATORS if name not in (*OVER_THE_BATCH, "gdpo", "passk")]
PAGE_EXAMPLE = torch.tensor([1, 1, 1, 0.5, 0], dtype=torch.float64)


def slow_advantages(rewards, group_size, estimator, lengths, eps=1e-6):
    """Plain Python on one list; groups without signal get zero."""
    groups = [rewards[i : i + group_size] for i in range(0, len(rewards), group_size)]
    sizes = [lengths[i : i + group_size] for i in range(0, len(rewards), group_size)]
    out = []
    for group, length in zip(groups, sizes, strict=True):
        mean, std = statistics.fmean(group), statistics.pstdev(group)
        for i, r in enumerate(group):
            if max(group) == min(group):
                out.append(0.0)
            elif estimator == "grpo":
                out.append((r - mean) / (std + eps))
            elif estimator == "dr_grpo":
                out.append(r - mean)
            elif estimator == "rloo":
                out.append(r - statistics.fmean(group[:i] + group[i + 1 :]))
            elif estimator == "opo":
                weighted = sum(w * x for w, x in zip(length, group, strict=True))
                out.append(r - weighted / sum(length))
            else:
                raise AssertionError(estimator)
    return out


def test_the_worked_example_of_the_project_page():
    """Rewards 1, 1, 1, 0.5, 0: mean 0.70. The squared deviations 3 * 0.09 + 0.04 + 0.49 sum to 0.8, so the
    population std is sqrt(0.8 / 5) = 0.400 and the sample std sqrt(0.8 / 4) = 0.447 (the page prints 0.41)."""
    population = group_advantages(PAGE_EXAMPLE, 5, eps=0.0)
    assert population.tolist() == pytest.approx([0.75, 0.75, 0.75, -0.5, -1.75])
    sample = group_advantages(PAGE_EXAMPLE, 5, std="sample", eps=0.0)
    root = math.sqrt(0.2)
    assert root == pytest.approx(0.447, abs=5e-4)
    assert sample.tolist() == pytest.approx([0.3 / root, 0.3 / root, 0.3 / root, -0.2 / root, -0.7 / root])


@pytest.mark.parametrize("estimator", IN_THE_GROUP)
def test_every_estimator_equals_the_slow_loop(estimator):
    torch.manual_seed(0)
    rewards = torch.rand(24, dtype=torch.float64)
    rewards[4:8] = 1.0
    lengths = torch.randint(1, 50, (24,))
    fast = group_advantages(rewards, 4, estimator, lengths=lengths)
    slow = slow_advantages(rewards.tolist(), 4, estimator, lengths.tolist())
    torch.testing.assert_close(fast, torch.tensor(slow, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("estimator", IN_THE_GROUP)
def test_group_ids_in_any_order_are_the_same_as_consecutive_groups(estimator):
    torch.manual_seed(1)
    rewards, lengths = torch.rand(12), torch.randint(1, 9, (12,))
    ids = torch.arange(12) // 4 * 1000 - 7
    order = torch.randperm(12)
    wanted = group_advantages(rewards, 4, estimator, lengths=lengths)[order]
    shuffled = group_advantages(rewards[order], ids[order], estimator, lengths=lengths[order])
    torch.testing.assert_close(shuffled, wanted)


def test_groups_of_different_sizes():
    """Ids 0, 0, 0, 9, 9: rewards (1, 0, 0.5) and (0, 1). RLOO leaves out the sample itself."""
    rewards, ids = torch.tensor([1, 0, 0.5, 0, 1]), torch.tensor([0, 0, 0, 9, 9])
    assert group_advantages(rewards, ids, "rloo").tolist() == pytest.approx([0.75, -0.75, 0, -1, 1])


def test_opo_baseline_is_the_length_weighted_mean():
    """Lengths 30 and 10, rewards 1 and 0: the baseline is 30 / 40."""
    rewards, lengths = torch.tensor([1.0, 0.0]), torch.tensor([30, 10])
    assert group_advantages(rewards, 2, "opo", lengths=lengths).tolist() == [0.25, -0.75]


def test_reward_shaping_does_not_change_grpo_advantages():
    torch.manual_seed(2)
    rewards = torch.rand(64, dtype=torch.float64)
    assert shape_rewards(PAGE_EXAMPLE).tolist() == [5, 5, 5, 0, -5]
    plain = group_advantages(rewards, 16, eps=0.0)
    torch.testing.assert_close(
        group_advantages(shape_rewards(rewards), 16, eps=0.0), plain, rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("estimator", IN_THE_GROUP)
@pytest.mark.parametrize("value", [0.0, 0.1, 1.0, -5.0, 5.0])
def test_a_group_without_signal_is_exactly_zero_whatever_follows(estimator, value):
    """Three groups of four; the middle one is constant up to float32 rounding."""
    torch.manual_seed(3)
    rewards = torch.rand(12)
    rewards[4:8] = value
    rewards[5] = torch.nextafter(rewards[5], torch.tensor(10.0))
    lengths = torch.randint(1, 100, (12,))
    signal = signal_mask(rewards, 4)
    assert signal.tolist() == [True] * 4 + [False] * 4 + [True] * 4
    advantages = group_advantages(rewards, 4, estimator, lengths=lengths)
    whitened = batch_whiten(advantages, lengths, signal)
    assert advantages[4:8].tolist() == [0.0] * 4
    assert whitened[4:8].tolist() == [0.0] * 4
    assert whitened[:4].abs().min() > 0

    # The other groups do not see it either: without it they get the same numbers.
    rest = torch.arange(12)[signal]
    alone = group_advantages(rewards[rest], 4, estimator, lengths=lengths[rest])
    torch.testing.assert_close(advantages[rest], alone)
    torch.testing.assert_close(whitened[rest], batch_whiten(alone, lengths[rest], signal[rest]))


def test_a_small_real_difference_is_signal():
    assert signal_mask(torch.tensor([0.9, 0.9001]), 2).all()
    assert not signal_mask(torch.tensor([0.1 + 0.2, 0.3], dtype=torch.float64), 2).any()
    assert not signal_mask(torch.tensor([0.0, 1.0]), 1).any()


def test_whitening_counts_every_token_once():
    """[batch, seq] with the mask and [num_rollouts] with the lengths agree, and give mean 0 and std 1."""
    torch.manual_seed(4)
    rewards = torch.rand(16, dtype=torch.float64)
    rewards[:4] = 0.25
    lengths = torch.randint(1, 20, (16,))
    mask = torch.arange(20) < lengths[:, None]
    signal = signal_mask(rewards, 4)
    advantages = group_advantages(rewards, 4)
    per_rollout = batch_whiten(advantages, lengths, signal, eps=0.0)
    per_token = batch_whiten(advantages[:, None].expand(16, 20), mask, signal, eps=0.0)
    torch.testing.assert_close(per_token, per_rollout[:, None] * mask)
    tokens = per_token[mask & signal[:, None]]
    assert tokens.mean().item() == pytest.approx(0, abs=1e-12)
    assert tokens.std(correction=0).item() == pytest.approx(1)


def test_whitening_over_ranks_equals_whitening_the_whole_batch():
    torch.manual_seed(5)
    rewards, lengths = torch.rand(32, dtype=torch.float64), torch.randint(1, 20, (32,))
    rewards[8:12] = 1.0
    signal, advantages = signal_mask(rewards, 4), group_advantages(rewards, 4)
    whole = batch_whiten(advantages, lengths, signal)
    ranks = [slice(0, 12), slice(12, 32)]
    moments = sum(batch_moments(advantages[r], lengths[r], signal[r]) for r in ranks)
    parts = [batch_whiten(advantages[r], lengths[r], signal[r], moments=moments) for r in ranks]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)

    moments = sum(batch_moments(rewards[r], lengths[r], torch.ones_like(signal[r])) for r in ranks)
    parts = [
        group_advantages(rewards[r], 4, "reinforce++", lengths=lengths[r], moments=moments) for r in ranks
    ]
    torch.testing.assert_close(torch.cat(parts), group_advantages(rewards, 4, "reinforce++", lengths=lengths))


def test_counting_groups_without_signal_moves_them_and_lengthens_the_step():
    """Rewards (1, 0), (1, 1), (0, 0): grpo gives 1, -1, 0, 0, 0, 0. With answers of one length the six have mean 0 and
    variance 2 / 6: the first group comes out at sqrt(3), of which ours is 0.58. Where the answer of reward 1 has three
    tokens of the eight, mean 2 / 8, variance 4 / 8 - 1 / 16 = 7 / 16: (1 - 0.25) / sqrt(7) * 4 and so on.
    """
    rewards = torch.tensor([1, 0, 1, 1, 0, 0], dtype=torch.float64)
    everyone, signal = torch.ones(6, dtype=torch.bool), signal_mask(rewards, 2)
    advantages = group_advantages(rewards, 2, eps=0.0)
    equal = torch.ones(6, dtype=torch.float64)
    theirs, ours = (batch_whiten(advantages, equal, counted, eps=0.0) for counted in (everyone, signal))
    root = math.sqrt(3)
    torch.testing.assert_close(theirs, torch.tensor([root, -root, 0, 0, 0, 0], dtype=torch.float64))
    assert float(ours.norm() / theirs.norm()) == pytest.approx(0.5774, abs=1e-4)
    lengths = torch.tensor([3, 1, 1, 1, 1, 1])
    theirs = batch_whiten(advantages, lengths, everyone, eps=0.0)
    wanted = torch.tensor([3, -5, -1, -1, -1, -1], dtype=torch.float64) / math.sqrt(7)
    torch.testing.assert_close(theirs, wanted, rtol=1e-12, atol=1e-12)


def test_a_batch_without_any_signal_is_zero_not_nan():
    rewards = torch.ones(8)
    for estimator in ESTIMATORS:
        advantages = group_advantages(rewards, 4, estimator, lengths=torch.ones(8), parts=torch.ones(8, 2))
        assert advantages.tolist() == [0.0] * 8
    assert batch_whiten(rewards, None, torch.zeros(8, dtype=torch.bool)).tolist() == [0.0] * 8


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((torch.tensor([1.0, math.nan]), 2), {}, r"rewards \[1\] of 2"),
        ((torch.tensor([1.0, math.inf]), 2), {}, r"rewards \[1\] of 2"),
        ((torch.ones(5), 2), {}, "groups of 2"),
        ((torch.ones(4), 0), {}, "groups of 0"),
        ((torch.ones(4), torch.zeros(3)), {}, "group ids have shape"),
        ((torch.ones(2, 2), 2), {}, "num_rollouts"),
        ((torch.ones(4), 2), {"estimator": "ppo"}, "estimator is 'ppo'"),
        ((torch.ones(4), 2), {"estimator": "opo"}, "needs lengths"),
        ((torch.ones(4), 2), {"estimator": "reinforce++-baseline"}, "need lengths"),
        ((torch.ones(4), 2), {"estimator": "gdpo"}, "needs parts"),
        ((torch.tensor([0.5, 1.0]), 2), {"estimator": "passk", "passk_k": 1}, "wants rewards of 0"),
        ((torch.ones(4), 2), {"estimator": "passk", "passk_k": 3}, "passk_k=3 is more than a group's 2"),
        ((torch.ones(4), 2), {"std": "biased"}, "std is 'biased'"),
    ],
    ids=str,
)
def test_wrong_inputs_are_refused(args, options, message):
    with pytest.raises(ValueError, match=message):
        group_advantages(*args, **options)


def test_whitening_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="one per rollout"):
        batch_whiten(torch.ones(4), None, torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="weights have shape"):
        batch_whiten(torch.ones(4), torch.ones(2), torch.ones(4, dtype=torch.bool))


def test_no_signal_up_to_rounding_and_relative_to_large_rewards():
    edges = torch.tensor([0.0, 1e-6, 0.0, 2e-6, 1000.0, 1000.0009, 1000.0, 1000.0021], dtype=torch.float64)
    assert signal_mask(edges, 2).tolist() == [False, False, True, True, False, False, True, True]


def test_every_function_refuses_rewards_that_are_no_numbers():
    for function in (group_advantages, signal_mask):
        with pytest.raises(ValueError, match="are not finite"):
            function(torch.tensor([1.0, math.nan]), 2)


def test_a_group_of_one_and_a_group_of_empty_answers_have_no_advantage_and_no_fault():
    assert group_advantages(torch.tensor([1.0, 0.0]), 1, "rloo").tolist() == [0.0, 0.0]
    assert group_advantages(torch.tensor([1.0, 0.0]), 1, std="sample").tolist() == [0.0, 0.0]
    empty = torch.zeros(2, dtype=torch.int64)
    assert group_advantages(torch.tensor([1.0, 0.0]), 2, "opo", lengths=empty).tolist() == [1.0, 0.0]


def test_opo_with_one_token_of_all():
    """sum(l r) / sum(l) = 1 / 1 where only the first answer has a token."""
    lengths = torch.tensor([1, 0])
    assert group_advantages(torch.tensor([1.0, 0.0]), 2, "opo", lengths=lengths).tolist() == [0.0, -1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_results_are_float32_and_float64_stays(dtype):
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    values, signal = torch.tensor([1.0, 0.0], dtype=dtype), torch.tensor([True, True])
    assert group_advantages(values, 2).dtype == batch_whiten(values, None, signal).dtype == wanted
    assert batch_whiten(values, None, ~signal).dtype == wanted


def test_whitening_divides_by_the_deviation_and_not_by_more():
    values = batch_whiten(torch.tensor([1.0, -1.0]) * 1e-2, None, torch.tensor([True, True]))
    assert values.tolist() == pytest.approx([1.0, -1.0], rel=2e-4)
    loose = group_advantages(torch.tensor([1.0, 0.0]), 2, "reinforce++", lengths=torch.ones(2), eps=0.5)
    assert loose.tolist() == pytest.approx([0.5, -0.5]), "(r - 0.5) / (0.5 + eps)"
