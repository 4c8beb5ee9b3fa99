"""The policy: advantages, update and loss of the recipe, on an engine that holds the weights (trains/host/engine.py).

Log-probabilities stand with the token that precedes theirs (position t holds token t + 1). The seam is here:
`compute_advantages` turns a group's `logprobs`, `loss_mask` and `versions` into `behavior_logprobs`, `policy_mask` and
`policy_versions` in that alignment; everything after it uses these names. All keys of a group: trains/types.py.
"""

from __future__ import annotations

from typing import Any

import torch
from areal.utils import stats_tracker

from trains.config import ActorConfig, LossConfig
from trains.host.engine import VisionEngine, by_group
from trains.types import Group
from utils.advantages import (
    batch_moments,
    batch_whiten,
    group_advantages,
    shape_rewards,
    shuffled,
    signal_mask,
)
from utils.functional import aggregate_loss, decoupled_ppo_loss, loss_denominator
from utils.policy_metrics import kl_estimate

TRAINED_KEYS = (
    "policy_mask",
    "behavior_logprobs",
    "proximal_logprobs",
    "reference_logprobs",
    "advantages",
)


class VisionActor(VisionEngine):
    """Learns from batches, which are lists of groups."""

    def __init__(
        self, config: ActorConfig, loss: LossConfig, forbidden_token_ids: list[int], max_new_tokens: int
    ):
        super().__init__(config, forbidden_token_ids)
        self.loss = loss
        self.max_new_tokens = max_new_tokens

    def compute_advantages(self, batch: list[Group]) -> None:
        """Write `advantages`, `behavior_logprobs`, `policy_mask`, `policy_versions` `[G, seq]` into each group.

        Reward (r + bias) * scaling, then the group estimator, then (if `batch_whiten`) zero mean and unit variance
        over the tokens of all ranks. A group without signal gets exactly zero, or with `without_signal: batch_mean`
        counts in that normalisation: (0 - mean) / std.
        """
        for group in batch:
            group["policy_mask"] = _previous(group["loss_mask"])
            group["behavior_logprobs"] = _previous(group["logprobs"]) * group["policy_mask"]
            group["policy_versions"] = _previous(group["versions"])
        sizes = [len(group["rewards"]) for group in batch]
        rewards = shape_rewards(
            torch.cat([group["rewards"] for group in batch]),
            bias=self.loss.reward_bias,
            scaling=self.loss.reward_scaling,
        )
        if self.loss.shuffle_rewards:
            rewards = shuffled(rewards, self.get_version())
        lengths = torch.cat([group["policy_mask"].sum(-1) for group in batch])
        groups = torch.arange(len(batch)).repeat_interleave(torch.tensor(sizes)).to(rewards.device)
        signal = signal_mask(rewards, groups)
        moments = None
        if self.loss.estimator.startswith("reinforce++"):
            centered = (
                rewards
                if self.loss.estimator == "reinforce++"
                else group_advantages(rewards, groups, "dr_grpo")
            )
            moments = self.sum_over_ranks(batch_moments(centered, None, signal))
        advantages = group_advantages(
            rewards, groups, self.loss.estimator, lengths=lengths, std=self.loss.std, moments=moments
        )
        if self.loss.batch_whiten:
            counted = signal if self.loss.without_signal == "zero" else torch.ones_like(signal)
            moments = self.sum_over_ranks(batch_moments(advantages, lengths, counted))
            advantages = batch_whiten(advantages, lengths, counted, moments=moments)
        for group, values in zip(batch, advantages.split(sizes), strict=True):
            group["advantages"] = values[:, None] * group["policy_mask"]

    @property
    def needs_proximal_pass(self) -> bool:
        """Whether the proximal log-probabilities take a forward pass of their own.

        They are those of the weights before the update. With one minibatch the update's own forward pass has these
        weights; from the second minibatch on it does not.
        """
        wanted = self.loss.proximal_pass
        return wanted == "separate" or (wanted == "auto" and self.config.num_minibatches > 1)

    def ppo_update(self, batch: list[Group]) -> dict[str, float]:
        """One pass over the batch in `num_minibatches` optimizer steps.

        Writes `proximal_logprobs` into each group where they took no pass of their own. Returns of the last step
        `grad_norm`, `lr` and `gradient_norms` (by block, before clipping), and `num_skipped`, the steps left out
        because their gradient was not finite.
        """
        keys = [key for key in TRAINED_KEYS if key in batch[0]]
        self.train()
        num_skipped = 0
        for groups, minibatch in self.minibatches(batch, keys):
            step, logprobs = self.learn(minibatch, self._loss, self._loss_weight)
            num_skipped += int(step["update_successful"] == 0.0)
            if not self.needs_proximal_pass:
                for group, values in zip(groups, by_group(logprobs, groups), strict=True):
                    group["proximal_logprobs"] = values
        self.lr_scheduler_step()
        return {
            "grad_norm": step["grad_norm"],
            "lr": step["lr"],
            "num_skipped": num_skipped,
            "gradient_norms": self.gradient_norms,
        }

    def _loss(self, policy_logprobs: torch.Tensor, entropy: torch.Tensor, inputs: dict[str, Any], **_: Any):
        """Loss of one packed micro-batch `[tokens]`, divided by its own denominator (see `_loss_weight`)."""
        mask, options = inputs["policy_mask"].bool(), self.loss
        behavior = inputs["behavior_logprobs"]
        # Without a pass of its own the proximal policy is the one at hand: the ratio is 1, its gradient is not 0.
        proximal = inputs["proximal_logprobs"] if self.needs_proximal_pass else policy_logprobs.detach()
        if not options.recompute_logprob:
            proximal = behavior  # the clip is around the behavior policy itself, as in plain PPO
        per_token, stats = decoupled_ppo_loss(
            policy_logprobs,
            proximal,
            behavior if options.use_decoupled_loss else proximal,
            inputs["advantages"],
            mask,
            eps_clip=options.eps_clip,
            eps_clip_higher=options.eps_clip_higher,
            dual_clip=options.dual_clip,
            behavior_cap=options.behavior_cap,
            behavior_floor=options.behavior_floor,
            behavior_mode=options.behavior_mode,
            behavior_level=options.behavior_level,
            ratio_level=options.ratio_level,
            surrogate=options.surrogate,
            cu_seqlens=inputs["cu_seqlens"],
        )
        if options.kl_coefficient > 0:
            kl = kl_estimate(policy_logprobs, inputs["reference_logprobs"], options.kl_estimator)
            per_token = per_token + options.kl_coefficient * torch.where(mask, kl, 0.0)
            stats["reference_kl"] = kl.detach()
        _record(stats, per_token, entropy, mask)
        loss = aggregate_loss(
            per_token,
            mask,
            options.loss_mode,
            denominator=self._loss_weight(inputs),
            cu_seqlens=inputs["cu_seqlens"],
        )
        # AReaL skips a step by its gradient alone, and clamp's derivative at NaN is 0: without this term a loss that
        # is NaN could have a finite gradient. It is exactly 0 otherwise.
        return loss + torch.where(mask, policy_logprobs, 0.0).sum() * (loss.detach() * 0.0)

    def _loss_weight(self, inputs: dict[str, Any]) -> torch.Tensor:
        """A micro-batch's share of the global denominator. AReaL multiplies its loss by share / (sum over all
        micro-batches and ranks), which leaves the sum of token losses over the one global denominator.
        """
        return loss_denominator(
            inputs["policy_mask"],
            self.loss.loss_mode,
            max_tokens=self.max_new_tokens,
            cu_seqlens=inputs["cu_seqlens"],
        )


def _previous(values: torch.Tensor) -> torch.Tensor:
    """Shift `[G, seq]` one place to the left: from the token itself to the position that predicts it."""
    shifted = torch.roll(values, shifts=-1, dims=-1)
    shifted[:, -1] = 0
    return shifted


def _record(
    stats: dict[str, torch.Tensor], loss: torch.Tensor, entropy: torch.Tensor, mask: torch.Tensor
) -> None:
    """Hand per-token statistics to AReaL's tracker, which averages over micro-batches and ranks."""
    tracker = stats_tracker.get("update")
    weight = stats["behavior_weight"]
    tracker.denominator(tokens=mask)
    tracker.stat(
        loss=loss.detach(),
        entropy=entropy.detach(),
        ratio=stats["ratio"],
        clipped_low=stats["clipped_low"].float(),
        clipped_high=stats["clipped_high"].float(),
        behavior_weight=weight,
        behavior_weight_squared=weight.square(),
        behavior_capped=stats["behavior_capped"].float(),
        behavior_kl=-stats["behavior_log_ratio"],
        denominator="tokens",
    )
    if "reference_kl" in stats:
        tracker.stat(reference_kl=stats["reference_kl"], denominator="tokens")
