"""The policy: advantages, update and loss of the recipe, on an engine that holds the weights (trains/host/engine.py).

Log-probabilities stand with the token that precedes theirs (position t holds token t + 1). The seam is here:
`compute_advantages` turns a group's `logprobs`, `loss_mask` and `versions` into `behavior_logprobs`, `policy_mask` and
`policy_versions` in that alignment (trains/advantages.py); everything after it uses these names. All keys of a group:
trains/types.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trains.advantages import write_advantages
from trains.config import ActorConfig, CriticConfig, GroundTruthConfig, LossConfig
from trains.host.batches import by_group
from trains.host.engine import VisionEngine
from trains.loss_record import Objective, record
from trains.types import Group
from utils.behavior import off_policy_responses
from utils.entropy_control import EntropyCoefficient
from utils.functional import aggregate_loss, decoupled_ppo_loss, loss_denominator
from utils.policy_metrics import kl_estimate, kl_penalty
from utils.token_baseline import energy

# In place of a denominator of 0: a micro-batch whose tokens are all left out still has to be computed, as all ranks
# compute equally many, and a step of such micro-batches alone has no gradient.
NO_TOKENS = 1e-6

TRAINED_KEYS = (
    "policy_mask",
    "behavior_logprobs",
    "proximal_logprobs",
    "reference_logprobs",
    "advantages",
    "given",
)


class VisionActor(VisionEngine):
    """Learns from batches, which are lists of groups."""

    critic_options: CriticConfig | None = None  # of PPO
    ground_truth = GroundTruthConfig()
    entropy_coefficient = EntropyCoefficient(0.0)
    # called with the number of a minibatch whose optimizer step was left out, before the next one (trains/capsule.py)
    on_skipped: Callable[[int], None] | None = None
    # called with what a micro-batch's loss is made of (trains/replay.py)
    observe: Callable[..., None] | None = None

    def __init__(
        self, config: ActorConfig, loss: LossConfig, forbidden_token_ids: list[int], max_new_tokens: int
    ):
        super().__init__(config, forbidden_token_ids)
        self.loss = loss
        self.max_new_tokens = max_new_tokens
        self.entropy_coefficient = EntropyCoefficient(
            loss.entropy_coefficient, loss.entropy_target, loss.entropy_step
        )

    def compute_logp(self, batch: list[Group]) -> list[torch.Tensor]:
        """As the engine's; for the estimator otb it also writes `energies` `[G, seq]` into each group."""
        if self.loss.estimator != "otb":
            return super().compute_logp(batch)
        logprobs, squares = self.compute_logp_and_squares(batch)
        for group, values, squared in zip(batch, logprobs, squares, strict=True):
            group["energies"] = energy(values, squared)
        return logprobs

    def compute_advantages(self, batch: list[Group]) -> None:
        """Write `advantages`, `behavior_logprobs`, `policy_mask`, `policy_versions` `[G, seq]` into each group."""
        seed = self.get_version() if self.loss.shuffle_rewards else None
        write_advantages(
            batch,
            self.loss,
            self.sum_over_ranks,
            critic=self.critic_options,
            shuffle_seed=seed,
            ground_truth=self.ground_truth,
        )

    @property
    def needs_proximal_pass(self) -> bool:
        """Whether the proximal log-probabilities take a forward pass of their own.

        They are those of the weights before the update. With one minibatch the update's own forward pass has these
        weights; from the second minibatch on it does not.
        """
        wanted = self.loss.proximal_pass
        early = self.config.num_minibatches > 1 or self.loss.estimator == "otb"  # whose advantages need it
        return wanted == "separate" or (wanted == "auto" and early)

    def ppo_update(self, batch: list[Group]) -> dict[str, float]:
        """One pass over the batch in `num_minibatches` optimizer steps.

        Writes `entropy` into each group, and `proximal_logprobs` where they took no pass of their own. Returns of the
        last step `grad_norm`, `lr` and `gradient_norms` (by block, before clipping), and `num_skipped`, the steps left
        out because their gradient was not finite.
        """
        keys = [key for key in TRAINED_KEYS if key in batch[0]]
        self.train()
        num_skipped, used = 0, self.entropy_coefficient.value
        self._entropies = torch.zeros(2, dtype=torch.float64)
        for number, (groups, minibatch) in enumerate(self.minibatches(batch, keys)):
            step, logprobs = self.learn(minibatch, self._loss, self._loss_weight)
            if step["update_successful"] == 0.0:
                num_skipped += 1
                if self.on_skipped is not None:
                    self.on_skipped(number)
            if not self.needs_proximal_pass:
                for group, values in zip(groups, by_group(logprobs, groups), strict=True):
                    group["proximal_logprobs"] = values
            if self.token_entropies is not None:
                for group, values in zip(groups, by_group(self.token_entropies, groups), strict=True):
                    group["entropy"] = values
        self.lr_scheduler_step()
        self._adapt_entropy_coefficient()
        return {
            "grad_norm": step["grad_norm"],
            "lr": step["lr"],
            "num_skipped": num_skipped,
            "entropy_coefficient": used,
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
        given = inputs["given"].bool() if "given" in inputs else None
        if given is not None:  # nobody drew them: there is no behavior policy to weigh by
            behavior = torch.where(given, proximal, behavior)
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
            rejection_level=options.rejection_level,
            rejection_cap=options.rejection_cap,
            rejection_floor=options.rejection_floor,
            ratio_level=options.ratio_level,
            surrogate=options.surrogate,
            sapo_tau_positive=options.sapo_tau_positive,
            sapo_tau_negative=options.sapo_tau_negative,
            cu_seqlens=inputs["cu_seqlens"],
        )
        if given is not None:
            per_token = torch.where(given, self.ground_truth.weight * per_token, per_token)
        if options.off_policy_delta is not None:
            masked = off_policy_responses(
                policy_logprobs,
                behavior,
                inputs["advantages"],
                mask,
                delta=options.off_policy_delta,
                cu_seqlens=inputs["cu_seqlens"],
            )
            per_token = torch.where(masked & per_token.isfinite(), 0.0, per_token)
            stats["off_policy_masked"] = masked
        if options.kl_coefficient > 0:
            reference = inputs["reference_logprobs"]
            kl = kl_penalty(
                policy_logprobs,
                reference,
                options.kl_estimator,
                bound=options.kl_bound,
                behavior_logprobs=behavior if options.kl_unbiased else None,
            )
            per_token = per_token + options.kl_coefficient * torch.where(mask, kl, 0.0)
            stats["reference_kl"] = kl_estimate(policy_logprobs, reference, options.kl_estimator).detach()
        if self.entropy_coefficient.value > 0:
            per_token = per_token - self.entropy_coefficient.value * torch.where(mask, entropy, 0.0)
        self._count_entropy(entropy, mask)
        objective = Objective(per_token, mask, options.loss_mode, self.max_new_tokens, inputs["cu_seqlens"])
        record(stats, entropy, objective)
        if self.observe is not None:
            self.observe(policy_logprobs, per_token, entropy, stats)
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
        weight = loss_denominator(
            inputs["policy_mask"],
            self.loss.loss_mode,
            max_tokens=self.max_new_tokens,
            cu_seqlens=inputs["cu_seqlens"],
        )
        return torch.where(weight > 0, weight, NO_TOKENS)

    def _count_entropy(self, entropy: torch.Tensor, mask: torch.Tensor) -> None:
        if self.loss.entropy_target is not None:
            values = entropy.detach()[mask].double()
            self._entropies += torch.stack([values.sum(), mask.sum().double()]).to(self._entropies)

    def _adapt_entropy_coefficient(self) -> None:
        """The same on every rank: by the mean entropy of the update that is over, of all its tokens."""
        if self.loss.entropy_target is None:
            return
        total, count = self.sum_over_ranks(self._entropies.to(self.device)).tolist()
        if count > 0:
            self.entropy_coefficient.update(total / count)
