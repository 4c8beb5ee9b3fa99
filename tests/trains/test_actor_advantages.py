"""From the rewards of a batch to the advantages of its tokens, as `VisionActor` puts the pieces together."""

import pytest
import torch

from trains.actor import VisionActor
from trains.config import LossConfig
from utils.advantages import shuffled

REWARDS = ((1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (0.5, 0.5, 0.5))  # the last group has no signal
LENGTHS = ((1, 2, 3), (4, 1, 2), (3, 1, 4))
NUM_PROMPT = 2


def batch():
    """Three groups of three rollouts; answers follow a prompt of two tokens."""
    groups = []
    for rewards, lengths in zip(REWARDS, LENGTHS, strict=True):
        place = torch.arange(NUM_PROMPT + max(lengths)).expand(3, -1)
        mask = (place >= NUM_PROMPT) & (place < NUM_PROMPT + torch.tensor(lengths)[:, None])
        groups.append(
            {
                "rewards": torch.tensor(rewards),
                "loss_mask": mask.int(),
                "logprobs": -place.float() / 10,  # not 0 outside of the answer
                "versions": torch.where(mask, place, -1).int(),
            }
        )
    return groups


def advantages_of(other=(0.0, 0.0, 0.0), *, version=0, **options):
    """One advantage per rollout, `[9]`, and the batch; every token of a rollout has the same."""
    actor = VisionActor.__new__(VisionActor)
    actor.get_version = lambda: version
    actor.loss, summed = LossConfig(**options), []
    actor.sum_over_ranks = lambda values: summed.append(values) or values + torch.tensor(other).to(values)
    groups = batch()
    actor.compute_advantages(groups)
    values = []
    for group, lengths in zip(groups, LENGTHS, strict=True):
        for row, mask, length in zip(group["advantages"], group["policy_mask"], lengths, strict=True):
            assert torch.equal(row, row[NUM_PROMPT - 1] * mask), "on the tokens trained on, 0 elsewhere"
            assert mask.nonzero().flatten().tolist() == list(range(NUM_PROMPT - 1, NUM_PROMPT - 1 + length))
            values.append(float(row[NUM_PROMPT - 1]))
    return torch.tensor(values, dtype=torch.float64), groups, summed


R = torch.tensor(REWARDS, dtype=torch.float64) * 10 - 5  # (r - 0.5) * 10
SIGNAL = torch.tensor([[True], [True], [False]])
CENTERED = R - R.mean(1, keepdim=True)


def whitened(values, weights, other=(0.0, 0.0, 0.0)):
    """Over the two groups with signal, each rollout weighing `weights`, and what another rank adds to the sums."""
    a, w = values[:2].flatten(), torch.as_tensor(weights, dtype=torch.float64)[:2].flatten()
    total, first, second = (w.sum() + other[0], (w * a).sum() + other[1], (w * a * a).sum() + other[2])
    mean = first / total
    return torch.cat([(a - mean) / (second / total - mean**2).sqrt(), torch.zeros(3)])


def opo():
    lengths = torch.tensor(LENGTHS, dtype=torch.float64)
    return R - (lengths * R).sum(1, keepdim=True) / lengths.sum(1, keepdim=True)


GRPO = torch.where(SIGNAL, CENTERED / R.std(1, unbiased=False, keepdim=True).clamp(min=1e-9), 0.0)
SAMPLE = torch.where(SIGNAL, CENTERED / R.std(1, keepdim=True).clamp(min=1e-9), 0.0)
WANTED = {
    ("grpo", False): GRPO.flatten(),
    ("grpo", True): whitened(GRPO, LENGTHS),
    ("dr_grpo", False): CENTERED.flatten(),
    ("rloo", False): 1.5 * CENTERED.flatten(),
    ("opo", False): torch.where(SIGNAL, opo(), 0.0).flatten(),
    ("reinforce++", False): whitened(R, torch.ones(3, 3)),
    ("reinforce++-baseline", False): whitened(CENTERED, torch.ones(3, 3)),
}


@pytest.mark.parametrize(("estimator", "batch_whiten"), WANTED)
def test_the_options_of_the_configuration_decide(estimator, batch_whiten):
    values, _, _ = advantages_of(estimator=estimator, batch_whiten=batch_whiten)
    assert torch.allclose(values, WANTED[estimator, batch_whiten], atol=1e-5)


def test_std_and_shaping_are_the_configurations():
    assert torch.allclose(advantages_of(std="sample", batch_whiten=False)[0], SAMPLE.flatten(), atol=1e-5)
    shaped, _, _ = advantages_of(estimator="dr_grpo", batch_whiten=False, reward_scaling=3.0)
    assert torch.allclose(shaped, 0.3 * CENTERED.flatten(), atol=1e-5)
    # A bias changes no advantage, but what is summed over the ranks: 6 rollouts of (r + 7) * 10.
    _, _, [moments] = advantages_of(estimator="reinforce++", batch_whiten=False, reward_bias=7.0)
    assert moments.tolist()[:2] == [6.0, 450.0]


OTHER = (7.0, 20.0, 300.0)  # of another rank: sum of weights, of w a, of w a^2
STATISTICS = {
    ("grpo", True): whitened(GRPO, LENGTHS, OTHER),
    ("reinforce++", False): whitened(R, torch.ones(3, 3), OTHER),
    ("reinforce++-baseline", False): whitened(CENTERED, torch.ones(3, 3), OTHER),
}


@pytest.mark.parametrize(("estimator", "batch_whiten"), STATISTICS)
def test_statistics_of_the_batch_are_those_of_all_ranks(estimator, batch_whiten):
    values, _, summed = advantages_of(OTHER, estimator=estimator, batch_whiten=batch_whiten)
    assert torch.allclose(values, STATISTICS[estimator, batch_whiten], atol=1e-5)
    assert [float(moments[0]) for moments in summed] == [13.0 if batch_whiten else 6.0]


def test_groups_without_signal_as_in_the_release():
    """All nine rollouts count, the last three with 0; (a - mean) / std over their tokens, -mean / std for the last."""
    values, _, [moments] = advantages_of(without_signal="batch_mean")
    weights = torch.tensor(LENGTHS, dtype=torch.float64).flatten()
    a = GRPO.flatten()
    mean = (weights * a).sum() / weights.sum()
    std = ((weights * (a - mean) ** 2).sum() / weights.sum()).sqrt()
    assert torch.allclose(values, (a - mean) / std, atol=1e-5)
    assert torch.allclose(values[6:], (-mean / std).expand(3), atol=1e-5)
    assert values[6:].abs().min() > 0.01
    assert moments[0] == weights.sum()


def test_statistics_that_nobody_needs_are_not_exchanged():
    assert advantages_of(estimator="rloo", batch_whiten=False)[2] == []


def test_the_seam_moves_every_key_and_blanks_what_is_no_answer():
    _, (group, *_), _ = advantages_of()
    assert group["policy_mask"].tolist() == [[0, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 1, 0]]
    assert torch.allclose(group["behavior_logprobs"][2], torch.tensor([0.0, -0.2, -0.3, -0.4, 0.0]))
    assert group["policy_versions"][1].tolist() == [-1, 2, 3, -1, 0]


def test_a_control_learns_from_the_same_rewards_dealt_out_at_random():
    """The records keep what was earned; the advantages come from another order, each step anew, the same again."""
    plain, _, _ = advantages_of(estimator="dr_grpo", batch_whiten=False)
    orders = []
    for version in range(4):
        values, groups, _ = advantages_of(
            estimator="dr_grpo", batch_whiten=False, shuffle_rewards=True, version=version
        )
        assert [group["rewards"].tolist() for group in groups] == [list(rewards) for rewards in REWARDS]
        assert not torch.allclose(values, plain)
        assert abs(float(values.sum())) < 1e-6
        orders.append(values.tolist())
    assert len(set(map(tuple, orders))) == 4
    again, _, _ = advantages_of(estimator="dr_grpo", batch_whiten=False, shuffle_rewards=True, version=3)
    assert again.tolist() == orders[3]


def test_shuffling_keeps_every_reward():
    rewards = torch.arange(64.0)
    dealt = shuffled(rewards, 5)
    assert sorted(dealt.tolist()) == rewards.tolist()
    assert (dealt != rewards).sum() > 32
