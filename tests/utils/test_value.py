"""Advantages by GAE, the value loss and the explained variance, by hand and against AReaL's."""

import pytest
import torch
from areal.utils.functional import ppo_critic_loss_fn

from utils.value import clipped_value_loss, explained_moments, explained_variance, generalized_advantages

MASK = torch.tensor([[0, 1, 1, 1, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
VALUES = torch.tensor([[9.0, 0.2, 0.5, 0.1, 9.0], [9.0, -0.3, 0.4, 9.0, 9.0], [9.0] * 5])
REWARDS = torch.tensor([1.0, -2.0, 5.0])


def test_gae_by_hand():
    """discount 0.5, lambda 0.5; first answer: delta_3 = 1 - 0.1 = 0.9; delta_2 = 0.05 - 0.5, A_2 = -0.45 + 0.225;
    delta_1 = 0.25 - 0.2 = 0.05, A_1 = 0.05 + 0.25 * A_2."""
    found = generalized_advantages(REWARDS, VALUES, MASK, discount=0.5, trace=0.5)
    assert found.advantages[0].tolist() == pytest.approx([0, 0.05 - 0.25 * 0.225, -0.225, 0.9, 0])
    assert found.advantages[1].tolist() == pytest.approx([0, 0.2 + 0.3 + 0.25 * -2.4, -2.4, 0, 0])
    torch.testing.assert_close(found.returns[:2], (found.advantages + VALUES)[:2] * MASK[:2])
    assert found.monte_carlo.tolist() == [[0, 0.25, 0.5, 1, 0], [0, -1, -2, 0, 0], [0] * 5]
    assert found.advantages[2].tolist() == [0] * 5


def test_lambda_1_is_the_reward_minus_the_value_and_lambda_0_one_step():
    whole = generalized_advantages(REWARDS, VALUES, MASK)
    torch.testing.assert_close(whole.advantages[:2], ((REWARDS[:, None] - VALUES) * MASK)[:2])
    step = generalized_advantages(REWARDS, VALUES, MASK, trace=0.0)
    assert step.advantages[0].tolist() == pytest.approx([0, 0.3, -0.4, 0.9, 0])


def test_replies_of_tools_are_passed_over():
    """Tokens 1 and 4 of one answer, with a reply between them, are as tokens 1 and 2 of another without."""
    with_reply = generalized_advantages(
        torch.tensor([1.0]), torch.tensor([[9.0, 0.2, 9.0, 9.0, 0.5]]), torch.tensor([[0, 1, 0, 0, 1]]),
        discount=0.5, trace=0.5,
    )  # fmt: skip
    without = generalized_advantages(
        torch.tensor([1.0]),
        torch.tensor([[9.0, 0.2, 0.5]]),
        torch.tensor([[0, 1, 1]]),
        discount=0.5,
        trace=0.5,
    )
    for one, other in zip(with_reply, without, strict=True):
        assert one[0, [1, 4]].tolist() == other[0, 1:].tolist()
        assert one[0, 2:4].tolist() == [0, 0]


@pytest.mark.parametrize("clip", [0.5, 0.1])
def test_the_value_loss_is_areals(clip):
    torch.manual_seed(0)
    values, old, returns = (torch.randn(50) for _ in range(3))
    mask = torch.rand(50) < 0.6
    wanted, stats = ppo_critic_loss_fn(values, old, returns, clip, mask)
    per_token, clipped = clipped_value_loss(values, old, returns, mask, clip=clip)
    torch.testing.assert_close(per_token.sum() / mask.sum(), wanted)
    assert torch.equal(clipped, stats["clip_mask"])
    plain, none = clipped_value_loss(values, old, returns, mask, clip=None)
    torch.testing.assert_close(plain, (values - returns).square() / 2 * mask)
    assert not none.any()


def test_explained_variance():
    r = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    mask = torch.ones(1, 4)
    for values, wanted in ((r, 1.0), (r * 0 + 3, 0.0), (1 - r, -3.0), ((r - 0.5) / 2 + 7, 0.75)):
        assert explained_variance(explained_moments(values, r, mask)) == pytest.approx(wanted)
    halves = sum(explained_moments(r[:, i : i + 2] / 2, r[:, i : i + 2], mask[:, :2]) for i in (0, 2))
    assert explained_variance(halves) == pytest.approx(0.75)
    assert explained_variance(explained_moments(r, r * 0, mask)) == 0.0
    assert explained_variance(torch.zeros(6)) == 0.0
