"""Our normalisation against the host's own: equal where every group has signal, different where one has none."""

import pytest
import torch

from utils.advantages import batch_whiten, group_advantages, signal_mask

data = pytest.importorskip("areal.utils.data")
NormConfig = pytest.importorskip("areal.api.cli_args").NormConfig

GROUP_SIZE = 4


def both(rewards, lengths, std="population"):
    """Group then batch normalisation, [num_rollouts, seq] per token: ours and AReaL's."""
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).float()
    advantages = group_advantages(rewards, GROUP_SIZE, std=std)
    ours = batch_whiten(advantages, lengths, signal_mask(rewards, GROUP_SIZE))[:, None] * mask
    options = {"std_unbiased": std == "sample", "eps": 1e-6}
    group = data.Normalization(
        NormConfig(mean_level="group", std_level="group", group_size=GROUP_SIZE, **options)
    )
    batch = data.Normalization(NormConfig(std_unbiased=False, eps=1e-6))
    theirs = batch(group(rewards)[:, None] * mask, mask)
    return ours, theirs


@pytest.mark.parametrize("std", ["population", "sample"])
def test_equal_where_every_group_has_signal(std):
    torch.manual_seed(0)
    ours, theirs = both(torch.rand(16), torch.randint(1, 30, (16,)), std)
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-6)


def test_an_all_correct_group_is_pushed_by_areal_and_left_alone_here():
    """Long wrong answers give the batch a negative mean, so a group of four correct ones is rewarded for nothing."""
    rewards = torch.tensor([1.0, 1, 1, 1, 1, 0, 0, 1])
    lengths = torch.tensor([5, 5, 5, 5, 5, 80, 80, 5])
    ours, theirs = both(rewards, lengths)
    assert theirs[:4, 0].min() > 0.5
    assert not ours[:4].any()
