"""From the rewards of a batch to the advantages of its tokens, over all data-parallel ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from reward.parts.shaping import PENALTIES
from reward.types import UNJUDGED
from trains.config import CriticConfig, GroundTruthConfig, LossConfig
from trains.ground_truth import mark_given, smoothed
from trains.types import Group, GroupInfo
from utils.advantages import (
    OVER_THE_BATCH,
    batch_moments,
    batch_whiten,
    group_advantages,
    parts_signal,
    shape_rewards,
    shuffled,
    signal_mask,
)
from utils.token_baseline import token_baseline_advantages
from utils.value import generalized_advantages


def write_advantages(
    batch: list[Group],
    loss: LossConfig,
    sum_over_ranks: Callable[[Tensor], Tensor],
    *,
    critic: CriticConfig | None = None,
    shuffle_seed: int | None = None,
    ground_truth: GroundTruthConfig | None = None,
) -> None:
    """Write `advantages`, `behavior_logprobs`, `policy_mask`, `policy_versions` `[G, seq]` into each group.

    Reward (r + bias) * scaling, then the estimator, then (if `batch_whiten`) zero mean and unit variance over the
    tokens of all ranks. A group without signal gets exactly zero, or with `without_signal: batch_mean` counts in that
    normalisation: (0 - mean) / std; the reinforce++ forms count every rollout. `overlong_filter` takes truncated
    answers out of `policy_mask`, and so out of losses, denominators and the batch's statistics; their rewards stay.
    With `ground_truth` given answers are marked, and smoothed (trains/ground_truth.py). With `shuffle_seed` what the
    rollouts earned is dealt out at random among this rank's (a control).
    """
    for group in batch:
        group["policy_mask"] = previous(group["loss_mask"])
        if loss.overlong_filter:
            kept = [not truncated for truncated in group["info"][0].truncated]
            group["policy_mask"] *= torch.tensor(kept, device=group["policy_mask"].device)[:, None]
        group["behavior_logprobs"] = previous(group["logprobs"]) * group["policy_mask"]
        group["policy_versions"] = previous(group["versions"])
    sizes = [len(group["rewards"]) for group in batch]
    earned = [group["rewards"] for group in batch]
    if ground_truth is not None and ground_truth.num_given:
        mark_given(batch)
        if ground_truth.smooth:
            earned = [smoothed(r, g["info"][0].given) for r, g in zip(earned, batch, strict=True)]
    rewards = shape_rewards(torch.cat(earned), bias=loss.reward_bias, scaling=loss.reward_scaling)
    order = torch.arange(len(rewards), device=rewards.device)
    if shuffle_seed is not None:
        order = shuffled(order, shuffle_seed)
    rewards = rewards[order]
    if loss.estimator == "gae":
        _of_a_critic(batch, rewards.split(sizes), loss, critic or CriticConfig(), sum_over_ranks)
        return
    if loss.estimator == "otb":
        for group, own in zip(batch, rewards.split(sizes), strict=True):
            group["advantages"] = token_baseline_advantages(own, group["energies"], group["policy_mask"])
        return
    advantages = _of_responses(batch, rewards, order, loss, sum_over_ranks)
    for group, values in zip(batch, advantages.split(sizes), strict=True):
        group["advantages"] = values[:, None] * group["policy_mask"]


def _of_responses(
    batch: list[Group],
    rewards: Tensor,
    order: Tensor,
    loss: LossConfig,
    sum_over_ranks: Callable[[Tensor], Tensor],
) -> Tensor:
    """`[rollouts]` of the batch; `order` is that of `rewards` among what the rollouts earned."""
    lengths = torch.cat([group["policy_mask"].sum(-1) for group in batch])
    sizes = torch.tensor([len(group["rewards"]) for group in batch])
    groups = torch.arange(len(batch)).repeat_interleave(sizes).to(rewards.device)
    options, parts = {}, None
    if loss.estimator == "passk":
        rewards = torch.cat([_is_right(group) for group in batch])[order]
        options["passk_k"] = loss.passk_k
    if loss.estimator == "gdpo":
        parts = options["parts"] = _parts(batch).to(rewards.device)[order]
    signal = signal_mask(rewards, groups) if parts is None else parts_signal(parts, groups)
    if loss.estimator in OVER_THE_BATCH:
        compared = (
            rewards if loss.estimator == "reinforce++" else group_advantages(rewards, groups, "dr_grpo")
        )
        options["moments"] = sum_over_ranks(batch_moments(compared, lengths, torch.ones_like(signal)))
    advantages = group_advantages(rewards, groups, loss.estimator, lengths=lengths, std=loss.std, **options)
    if loss.batch_whiten:
        counted = signal if loss.without_signal == "zero" else torch.ones_like(signal)
        moments = sum_over_ranks(batch_moments(advantages, lengths, counted))
        advantages = batch_whiten(advantages, lengths, counted, moments=moments)
    return advantages


def _of_a_critic(
    batch: list[Group],
    rewards: Sequence[Tensor],
    loss: LossConfig,
    critic: CriticConfig,
    sum_over_ranks: Callable[[Tensor], Tensor],
) -> None:
    """GAE from `values`; with `batch_whiten` advantages have mean 0 and variance 1 over all tokens of the batch."""
    for group, own in zip(batch, rewards, strict=True):
        mask = group["policy_mask"]
        estimate = generalized_advantages(
            own, group["values"], mask, discount=critic.discount, trace=critic.trace
        )
        group["values"] = group["values"] * mask
        group["returns"], group["monte_carlo"] = estimate.returns, estimate.monte_carlo
        group["advantages"] = estimate.advantages
    if not loss.batch_whiten:
        return
    counted = [
        torch.ones(len(g["advantages"]), dtype=torch.bool, device=g["advantages"].device) for g in batch
    ]
    moments = sum_over_ranks(
        sum(
            batch_moments(g["advantages"], g["policy_mask"], everybody)
            for g, everybody in zip(batch, counted, strict=True)
        )
    )
    for group, everybody in zip(batch, counted, strict=True):
        group["advantages"] = batch_whiten(
            group["advantages"], group["policy_mask"], everybody, moments=moments
        )


def _is_right(group: Group) -> Tensor:
    """`[G]`: 1 where the answer is right, by its accuracy."""
    scores = group["info"][0].scores
    return torch.tensor(
        [float(score.parts["accuracy"] >= 1.0) for score in scores], device=group["rewards"].device
    )


def _parts(batch: list[Group]) -> Tensor:
    """`[rollouts, num_parts]`: what the totals are made of, a column for each name; 0 where a sample has none."""
    of_groups = [_parts_of_group(group["info"][0]) for group in batch]
    names = sorted({name for parts in of_groups for name in parts})
    columns = [
        torch.cat(
            [
                parts.get(name, torch.zeros(len(g["rewards"])))
                for parts, g in zip(of_groups, batch, strict=True)
            ]
        )
        for name in names
    ]
    return torch.stack(columns, dim=-1)


def _parts_of_group(info: GroupInfo) -> dict[str, Tensor]:
    """`[G]` of each part with a weight above 0, and of penalties; the mean of the others for what nobody has judged."""
    judged = [score.status not in UNJUDGED for score in info.scores]
    counted = {name for name, weight in info.part_weights.items() if weight > 0} | set(PENALTIES)
    columns = {}
    for name in sorted({name for score in info.scores for name in score.parts} & counted):
        values = torch.tensor([score.parts.get(name, 0.0) for score in info.scores])
        seen = torch.tensor(judged) if name not in PENALTIES else torch.ones(len(judged), dtype=torch.bool)
        neutral = values[seen].mean() if seen.any() else 0.0
        columns[name] = torch.where(seen, values, neutral)
    return columns


def previous(values: Tensor) -> Tensor:
    """Shift `[G, seq]` one place to the left: from the token itself to the position that predicts it."""
    shifted = torch.roll(values, shifts=-1, dims=-1)
    shifted[:, -1] = 0
    return shifted
