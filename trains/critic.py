"""The critic of PPO: the value of what stands before each token, learned beside the policy (utils/value.py)."""

from __future__ import annotations

from typing import Any

import torch
from areal.utils import stats_tracker
from torch import Tensor

from trains.config import ActorConfig, CriticConfig
from trains.host.batches import by_group, concatenated
from trains.host.value_head import ValueEngine
from trains.types import Group
from utils.functional import aggregate_loss, loss_denominator
from utils.value import clipped_value_loss, explained_moments, explained_variance

TRAINED_KEYS = ("policy_mask", "values", "returns")
NO_TOKENS = 1e-6  # in place of a denominator of 0, as in trains/actor.py


class VisionCritic(ValueEngine):
    """AReaL's critic engine on our model, with a value head in place of the output layer.

    Prompts are shared as in the actor: `values` come back in the places of log-probabilities.
    """

    def __init__(self, config: CriticConfig, actor: ActorConfig, forbidden_token_ids: list[int]):
        super().__init__(config.engine(actor), forbidden_token_ids, head_lr=config.head_lr or config.lr)
        self.options = config

    @torch.no_grad()
    def compute_values(self, batch: list[Group]) -> list[Tensor]:
        """Values `[G, seq]` of each group; position t holds that of what stands before token t + 1."""
        self.eval()
        values = self.forward_batch(concatenated(batch), aggregate_fn=lambda parts: torch.cat(parts, dim=-1))
        return by_group(values.float(), batch)

    def update(self, batch: list[Group]) -> dict[str, Any]:
        """`num_epochs` passes over the batch in `num_minibatches` optimizer steps each; what is reported of the critic.

        `explained_variance` is that of the values before the update, of a batch that it has not been trained on.
        """
        moments = self.sum_over_ranks(
            sum(explained_moments(g["values"], g["monte_carlo"], g["policy_mask"]) for g in batch).to(
                self.device
            )
        )
        self.train()
        num_skipped = 0
        for _ in range(self.options.num_epochs):
            for _, minibatch in self.minibatches(batch, TRAINED_KEYS):
                step = self.train_batch(minibatch, self._loss, self._loss_weight)
                num_skipped += int(step["update_successful"] == 0.0)
        self.lr_scheduler_step()
        count = max(float(moments[0]), 1.0)
        return {
            "explained_variance": explained_variance(moments),
            "value_mean": float(moments[3]) / count,
            "return_mean": float(moments[1]) / count,
            "grad_norm": step["grad_norm"],
            "lr": step["lr"],
            "num_skipped": num_skipped,
        }

    def _loss(self, values: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Of one packed micro-batch `[tokens]`, divided by its own denominator, as the actor's."""
        mask = inputs["policy_mask"].bool()
        per_token, clipped = clipped_value_loss(
            values, inputs["values"], inputs["returns"], mask, clip=self.options.value_clip
        )
        tracker = stats_tracker.get("critic")
        tracker.denominator(tokens=mask)
        tracker.stat(loss=per_token.detach(), clipped=clipped.float(), denominator="tokens")
        loss = aggregate_loss(per_token, mask, denominator=self._loss_weight(inputs))
        return loss + torch.where(mask, values.float(), 0.0).sum() * (
            loss.detach() * 0.0
        )  # NaN reaches the gradient

    def _loss_weight(self, inputs: dict[str, Any]) -> Tensor:
        weight = loss_denominator(inputs["policy_mask"])
        return torch.where(weight > 0, weight, NO_TOKENS)

    def _compute_values(self, values: Tensor, ulysses_pad_size: int = 0) -> Tensor:
        return self.in_places_of_the_loss(values)
