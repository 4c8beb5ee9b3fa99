"""The reference answer as one of a group's rollouts, with a weight of its own (section `ground_truth`).

ViSurf: Liu et al. 2025, "Visual Supervised-and-Reinforcement Fine-Tuning for Large Vision-and-Language Models",
arXiv:2510.10606. The servers score the answer token by token, so it has log-probabilities and a version like any other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trains.types import Group


def smoothed(rewards: Tensor, given: Sequence[bool]) -> Tensor:
    """Rewards `[G]` in which a given answer that a drawn one equals or exceeds has the mean of those drawn.

        max(r of the drawn) >= r of the given  =>  r of the given = mean(r of the drawn)

    Its advantage is then 0 where the mean is subtracted: a policy that finds the answer itself is no longer told it.
    The paper's third control of rewards, as we understand it: its text could not be checked.
    """
    is_given = torch.tensor(given, device=rewards.device)
    drawn = rewards[~is_given]
    if not len(drawn) or not is_given.any():
        return rewards
    return torch.where(is_given & (drawn.max() >= rewards), drawn.mean(), rewards)


def mark_given(batch: list[Group]) -> None:
    """Write `given` `[G, seq]` into each group: 1 on the trained tokens of given answers."""
    for group in batch:
        rows = torch.tensor(group["info"][0].given, device=group["policy_mask"].device)
        group["given"] = group["policy_mask"] * rows[:, None]
