"""From the rewards of a batch to the advantages of its tokens, as `VisionActor` puts the pieces together."""

import pytest
import torch

from trains.actor import VisionActor
from trains.config import LossConfig

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


def advantages_of(ranks=1, **options):
    """One advantage per rollout, `[9]`, and the batch; every token of a rollout has the same."""
    actor = VisionActor.__new__(VisionActor)
    actor.loss, summed = LossConfig(**options), []
    actor.sum_over_ranks = lambda values: summed.append(values) or values * ranks
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


def whitened(values, weights):
    """Over the two groups with signal, each rollout weighing `weights`."""
    a, w = values[:2].flatten(), torch.as_tensor(weights, dtype=torch.float64)[:2].flatten()
    mean = (w * a).sum() / w.sum()
    deviation = ((w * (a - mean) ** 2).sum() / w.sum()).sqrt()
    return torch.cat([(a - mean) / deviation, torch.zeros(3)])


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
    shaped, _, _ = advantages_of(estimator="dr_grpo", batch_whiten=False, reward_scaling=3.0, reward_bias=7.0)
    assert torch.allclose(shaped, 0.3 * CENTERED.flatten(), atol=1e-5)


@pytest.mark.parametrize(("estimator", "batch_whiten"), WANTED)
def test_statistics_of_the_batch_are_those_of_all_ranks(estimator, batch_whiten):
    """Two ranks with the same batch have the same mean and variance; what is summed is [weight, w a, w a^2]."""
    options = {"estimator": estimator, "batch_whiten": batch_whiten}
    one, _, summed = advantages_of(**options)
    assert torch.allclose(one, advantages_of(ranks=2, **options)[0], atol=1e-6)
    uses_the_batch = batch_whiten or estimator.startswith("reinforce")
    assert [float(moments[0]) for moments in summed] == [13.0 if batch_whiten else 6.0] * uses_the_batch


def test_the_seam_moves_every_key_and_blanks_what_is_no_answer():
    _, (group, *_), _ = advantages_of()
    assert group["policy_mask"].tolist() == [[0, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 1, 0]]
    assert torch.allclose(group["behavior_logprobs"][2], torch.tensor([0.0, -0.2, -0.3, -0.4, 0.0]))
    assert group["policy_versions"][1].tolist() == [-1, 2, 3, -1, 0]
