"""Estimators whose number depends on more than the group's rewards, against loops written from their papers."""

import itertools
import math
import statistics

import pytest
import torch

from utils.advantages import group_advantages, parts_signal
from utils.token_baseline import energy, token_baseline_advantages

REWARDS = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]  # two groups of three; the second has no signal
LENGTHS = [4, 1, 2, 3, 5, 1]


@pytest.mark.parametrize("estimator", ["reinforce++", "reinforce++-baseline"])
def test_reinforce_normalises_over_every_token_of_the_batch(estimator):
    """(r - mean) / std over all 16 tokens, those of the group without signal too; baseline: of r - 1/3 and 0."""
    values = REWARDS if estimator == "reinforce++" else [2 / 3, -1 / 3, -1 / 3, 0, 0, 0]
    tokens = [value for value, length in zip(values, LENGTHS, strict=True) for _ in range(length)]
    mean, std = statistics.fmean(tokens), statistics.pstdev(tokens)
    found = group_advantages(
        torch.tensor(REWARDS, dtype=torch.float64), 3, estimator, lengths=torch.tensor(LENGTHS), eps=0.0
    )
    assert found.tolist() == pytest.approx([(value - mean) / std for value in values], rel=1e-12)
    assert found[3:].abs().min() > 0.1


def test_reinforce_takes_one_rollout_a_prompt():
    found = group_advantages(torch.tensor([1.0, 0.0]), 1, "reinforce++", lengths=torch.ones(2), eps=0.0)
    assert found.tolist() == [1.0, -1.0]


def test_gdpo_normalises_each_part_by_itself():
    """Accuracy (1, 0, 0, 0) and format (1, 1, 1, 0): of the totals 2, 1, 1, 0 grpo cannot tell which part differs;
    each part by itself is (3, -1, -1, -1) / sqrt(3) and (1, 1, 1, -3) / sqrt(3)."""
    parts = torch.tensor([[1.0, 1], [0, 1], [0, 1], [0, 0]], dtype=torch.float64)
    found = group_advantages(parts.sum(1), 4, "gdpo", parts=parts, eps=0.0)
    wanted = [(a + b) / math.sqrt(3) for a, b in zip((3, -1, -1, -1), (1, 1, 1, -3), strict=True)]
    assert found.tolist() == pytest.approx(wanted)


def test_gdpo_has_signal_where_parts_differ_and_totals_do_not():
    parts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    assert parts_signal(parts, 2).tolist() == [True, True, False, False]
    found = group_advantages(parts.sum(1), 2, "gdpo", parts=parts * torch.tensor([3.0, 1.0]), eps=0.0)
    assert found.tolist() == [0.0, 0.0, 0.0, 0.0], "1 - 1: the parts pull in opposite directions"
    parts = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)[:, :2]
    assert group_advantages(torch.ones(3), 3, "gdpo", parts=parts, eps=0.0).abs().max() > 0.5


@pytest.mark.parametrize(("size", "right", "k"), [(6, 2, 3), (8, 1, 4), (5, 3, 2), (4, 1, 1), (16, 2, 4)])
def test_passk_is_the_mean_over_all_draws_of_k(size, right, k):
    """Every draw of k answers is a group with reward max; its answers share (reward - mean) / std over all draws."""
    rewards = [1.0] * right + [0.0] * (size - right)
    draws = list(itertools.combinations(range(size), k))
    values = [max(rewards[i] for i in draw) for draw in draws]
    mean, std = statistics.fmean(values), statistics.pstdev(values)
    wanted = [
        statistics.fmean([(v - mean) / std for v, draw in zip(values, draws, strict=True) if i in draw])
        for i in range(size)
    ]
    found = group_advantages(torch.tensor(rewards, dtype=torch.float64), size, "passk", passk_k=k)
    assert found.tolist() == pytest.approx(wanted, abs=1e-12)


def test_passk_is_zero_where_every_draw_is_alike():
    for rewards in (
        [0.0] * 4,
        [1.0] * 4,
        [1.0, 1.0, 1.0, 0.0],
    ):  # one wrong answer is in no draw of two alone
        assert group_advantages(torch.tensor(rewards), 4, "passk", passk_k=2).tolist() == [0.0] * 4


def test_energy_is_the_squared_norm_of_the_gradient_of_the_logits():
    logits = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    logprobs = logits.log_softmax(-1)
    picked = logprobs[torch.arange(3), torch.tensor([1, 4, 6])]
    picked.sum().backward()
    found = energy(picked.detach(), logprobs.detach().exp().square().sum(-1))
    torch.testing.assert_close(found, logits.grad.square().sum(-1))


def test_the_token_baseline_by_hand():
    """Energies 1, 1 and 3: at the first token B = (1 r_1 + 3 r_2) / 4; at the second the first answer is alone."""
    rewards = torch.tensor([1.0, 0.0], dtype=torch.float64)
    mask = torch.tensor([[0, 1, 1], [0, 1, 0]])
    energies = torch.tensor([[9.0, 1.0, 1.0], [9.0, 3.0, 9.0]])
    found = token_baseline_advantages(rewards, energies, mask)
    assert found.tolist() == [[0.0, 0.75, 0.0], [0.0, -0.25, 0.0]]


def test_the_token_baseline_equals_the_slow_loop():
    torch.manual_seed(3)
    lengths, rewards = [3, 5, 5, 1], [0.2, 1.0, 0.0, 0.7]
    energies, mask = torch.rand(4, 6, dtype=torch.float64), torch.zeros(4, 6)
    for row, length in enumerate(lengths):
        mask[row, 1 : 1 + length] = 1
    found = token_baseline_advantages(torch.tensor(rewards, dtype=torch.float64), energies, mask)
    for t in range(1, 6):
        there = [i for i, length in enumerate(lengths) if t <= length]
        weight = {i: sum(float(energies[i, j]) for j in range(1, t + 1)) for i in there}
        baseline = sum(weight[i] * rewards[i] for i in there) / sum(weight.values())
        for i in range(4):
            assert float(found[i, t]) == pytest.approx(rewards[i] - baseline if i in there else 0.0)


def test_the_token_baseline_of_a_group_without_signal_and_of_certain_tokens():
    mask = torch.ones(2, 3)
    assert (
        token_baseline_advantages(torch.tensor([0.3, 0.3]), torch.rand(2, 3), mask).tolist()
        == [[0.0] * 3] * 2
    )
    certain = token_baseline_advantages(torch.tensor([1.0, 0.0]), torch.zeros(2, 3), mask)
    assert certain.tolist() == [[0.5] * 3, [-0.5] * 3]
