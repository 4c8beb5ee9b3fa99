"""The policy: AReaL's FSDP engine with the recipe's advantages, loss and weight hand-over.

AReaL aligns log-probabilities with the token that precedes them (position t holds token t + 1). The seam is here:
`compute_advantages` turns a group's `logprobs`, `loss_mask` and `versions` into `behavior_logprobs`,
`policy_mask` and `policy_versions` in that alignment; everything after it uses these names.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import torch
import torch.distributed as dist
from areal.api import WeightUpdateMeta
from areal.api.cli_args import MicroBatchSpec
from areal.engine.fsdp_engine import FSDPEngine
from areal.utils import name_resolve, names, stats_tracker
from areal.utils.data import batched_call, concat_padded_tensors, split_padded_tensor_dict_into_mb_list
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor

from llavaonevision1_5 import MODEL_TYPE, shims
from llavaonevision1_5.areal import register_with_areal
from llavaonevision1_5.freezing import freeze, part_of_model
from trains.config import ActorConfig, LossConfig
from trains.host import qwen_vl
from trains.host.lora import merged_state
from utils.advantages import batch_moments, batch_whiten, group_advantages, shape_rewards, signal_mask
from utils.functional import aggregate_loss, decoupled_ppo_loss, loss_denominator
from utils.logprobs import logprobs_and_entropy
from utils.policy_metrics import kl_estimate

# One entry per sequence. AReaL splits lists under names that begin like this among micro-batches; those under exactly
# `multi_modal_input` it also joins to tensors, for all micro-batches at once.
PIXELS = "multi_modal_input_pixels"
TRAINED_KEYS = (
    "input_ids",
    "attention_mask",
    "policy_mask",
    "behavior_logprobs",
    "proximal_logprobs",
    "advantages",
)


class VisionActor(FSDPEngine):
    """Holds the weights. A batch is a list of groups as `trains/workflow.py` documents them."""

    def __init__(
        self, config: ActorConfig, loss: LossConfig, forbidden_token_ids: list[int], max_new_tokens: int
    ):
        register_with_areal()
        super().__init__(config)
        self.loss = loss
        self.forbidden_token_ids = forbidden_token_ids
        self.max_new_tokens = max_new_tokens
        self.gradient_norms: dict[str, float] = {}
        self.exchange_seconds = 0.0  # of the last weight update: how long the rollout stood still
        self._staged: str | None = None  # folder whose files await the next hand-over

    @torch.no_grad()
    def compute_logp(self, batch: list[dict[str, Any]]) -> list[torch.Tensor]:
        """Log-probabilities `[G, seq]` of each group under the current weights; position t holds token t + 1."""
        self.eval()
        return batched_call(
            lambda data: self.forward_batch(data, aggregate_fn=_concatenate),
            [model_inputs(group) for group in batch],
        )

    def compute_full_logp(self, group: dict[str, Any]) -> torch.Tensor:
        """As `compute_logp` for one group, over the whole vocabulary: as a server scores tokens that it is given."""
        excluded, self.forbidden_token_ids = self.forbidden_token_ids, []
        try:
            return self.compute_logp([group])[0]
        finally:
            self.forbidden_token_ids = excluded

    def compute_advantages(self, batch: list[dict[str, Any]]) -> None:
        """Write `advantages`, `behavior_logprobs`, `policy_mask`, `policy_versions` `[G, seq]` into each group.

        Reward (r + bias) * scaling, then the group estimator, then (if `batch_whiten`) zero mean and unit variance
        over the tokens of all ranks. A group without signal gets exactly zero.
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
            moments = self._sum_over_ranks(batch_moments(centered, None, signal))
        advantages = group_advantages(
            rewards, groups, self.loss.estimator, lengths=lengths, std=self.loss.std, moments=moments
        )
        if self.loss.batch_whiten:
            advantages = batch_whiten(
                advantages,
                lengths,
                signal,
                moments=self._sum_over_ranks(batch_moments(advantages, lengths, signal)),
            )
        for group, values in zip(batch, advantages.split(sizes), strict=True):
            group["advantages"] = values[:, None] * group["policy_mask"]

    def ppo_update(self, batch: list[dict[str, Any]]) -> dict[str, float]:
        """One pass over the batch in `num_minibatches` optimizer steps.

        Returns of the last step `grad_norm`, `lr` and `gradient_norms` (by block, before clipping), and `num_skipped`,
        the steps left out because their gradient was not finite.
        """
        keys = TRAINED_KEYS + (("reference_logprobs",) if "reference_logprobs" in batch[0] else ())
        data = concat_padded_tensors(
            [model_inputs(group) | {key: group[key] for key in keys} for group in batch]
        )
        minibatches = split_padded_tensor_dict_into_mb_list(
            data, MicroBatchSpec(n_mbs=self.config.num_minibatches)
        )
        self.train()
        num_skipped = 0
        for minibatch in minibatches.mbs:
            step = self.train_batch(minibatch, self._loss, self._loss_weight)
            num_skipped += int(step["update_successful"] == 0.0)
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
        # Without recomputation the clip is around the behavior policy itself, as in plain PPO.
        proximal = inputs["proximal_logprobs"] if options.recompute_logprob else behavior
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

    def _sum_over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        dist.all_reduce(values, group=self.data_parallel_group)
        return values

    # --- what AReaL's engine leaves to a subclass -----------------------------------------------------------------

    def _create_device_model(self) -> None:
        super()._create_device_model()
        qwen_vl.adapt(self.model)
        self._freeze()

    def _apply_peft_wrapper(self) -> None:
        super()._apply_peft_wrapper()
        self._freeze()  # the adapters inside of frozen parts too

    def _freeze(self) -> None:
        if self.config.freeze_vision_tower or self.config.freeze_projector:
            freeze(
                self.model,
                vision_tower=self.config.freeze_vision_tower,
                projector=self.config.freeze_projector,
            )

    def optimizer_step(self) -> dict[str, float]:
        self.gradient_norms = self._gradient_norms()
        return super().optimizer_step()

    def _gradient_norms(self) -> dict[str, float]:
        """Gradient norm of each block of the vision tower, of the projector and of the language model.

        Through the tower it can grow several times over (V-Triune, section 4.2), which is why it may be frozen.
        """
        squares: dict[str, torch.Tensor] = {}
        for name, parameter in self.model.named_parameters():
            part = part_of_model(name)
            squares.setdefault(part, torch.zeros((), device=self.device))
            if parameter.grad is not None:
                gradient = parameter.grad
                local = gradient.to_local() if isinstance(gradient, DTensor) else gradient
                squares[part] += local.float().square().sum()
        total = self._sum_over_ranks(
            torch.stack(list(squares.values()))
        )  # each rank holds a shard of every gradient
        return dict(zip(squares, total.sqrt().tolist(), strict=True))

    def _prepare_mb_inputs(self, mb_item):
        """Join the pixels of a micro-batch when its turn comes: until then G rollouts share one tensor."""
        inputs = dict(mb_item.padded_mb)
        pixels = [images["pixel_values"] for images in inputs.pop(PIXELS) if images]
        if pixels:
            inputs["pixel_values"] = torch.cat(pixels)
        return super()._prepare_mb_inputs(mb_item._replace(padded_mb=inputs))

    def _compute_logprobs_entropy(self, logits, inputs, ulysses_pad_size=0):
        """In chunks, and of the distribution that was sampled from: without the forbidden tokens."""
        labels = torch.roll(inputs["input_ids"], shifts=-1, dims=-1).squeeze(0)
        return logprobs_and_entropy(
            logits,
            labels,
            self.config.temperature,
            self.config.logprob_chunk_size,
            excluded=self.forbidden_token_ids,
        )

    def _compute_logprobs(self, logits, inputs, ulysses_pad_size=0):
        return self._compute_logprobs_entropy(logits, inputs, ulysses_pad_size)[0]

    def _save_model_to_hf(self, path, tokenizer, processor) -> None:
        if self.config.use_lora:
            self._save_merged(path, tokenizer, processor)
        else:
            super()._save_model_to_hf(path, tokenizer, processor)
        if dist.get_rank() == 0 and self.model_config.model_type == MODEL_TYPE:
            shims.write(path)
        dist.barrier(group=self.cpu_group)

    def _save_merged(self, path, tokenizer, processor) -> None:
        """A whole checkpoint with the adapters added in (trains/host/lora.py)."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(self.model, options=options)  # all ranks hold a part of it
        if dist.get_rank() != 0:
            return
        merged = merged_state(state, self.config.lora_alpha / self.config.lora_rank)
        self.model.get_base_model().save_pretrained(
            path, state_dict={name: self._cast_to_compute_dtype(value) for name, value in merged.items()}
        )
        for part in (self.model_config, tokenizer, processor):
            if part is not None:
                part.save_pretrained(path)

    def stage_weights(self, meta: WeightUpdateMeta) -> None:
        """Before the rollout is paused: write the files of a hand-over through the disk. NCCL needs nothing."""
        if meta.type == "disk":
            with self._offload_aware_context():
                self._save_model_to_hf(meta.path, None, None)
            self._staged = meta.path

    def update_weights(self, meta: WeightUpdateMeta) -> None:
        """Hand the weights to the servers. Every rank has paused its rollout before this and resumes it after."""
        if self._staged != meta.path:  # AReaL's recovery hands over without staging
            self.stage_weights(meta)
        # No rank's rollout goes on while rank 0 aborts the requests of all.
        dist.barrier(group=self.cpu_group)
        start = time.perf_counter()
        super().update_weights(meta)
        self.exchange_seconds = time.perf_counter() - start

    def _update_weights_from_disk(self, meta: WeightUpdateMeta) -> None:
        """As AReaL's, but the files are there (`stage_weights`) and announced before anybody waits for them: AReaL
        announces late and so always waits out one polling interval of a second.
        """
        if dist.get_rank() == 0:
            key = names.update_weights_from_disk(
                self.config.experiment_name, self.config.trial_name, self.get_version()
            )
            name_resolve.add(key, str(datetime.now().timestamp()), keepalive_ttl=120, replace=True)
            self.rollout_engine.pause_generation()
            self.rollout_engine.update_weights_from_disk(meta).result()
            self.rollout_engine.continue_generation()
        dist.barrier(group=self.cpu_group)


def model_inputs(group: dict[str, Any]) -> dict[str, Any]:
    """What the model reads of a group: ids, mask, and the prompt's images by reference, once per rollout."""
    images = group["images"][0]
    num_rollouts = len(group["input_ids"])
    has_images = len(images["pixel_values"]) > 0
    grids, pixels = ({key: images[key]} if has_images else {} for key in ("image_grid_thw", "pixel_values"))
    inputs = {
        "input_ids": group["input_ids"],
        "attention_mask": group["attention_mask"],
        "multi_modal_input": [grids] * num_rollouts,
        PIXELS: [pixels] * num_rollouts,
    }
    if "mm_token_type_ids" in group:
        inputs["mm_token_type_ids"] = group["mm_token_type_ids"]
    return inputs


def _previous(values: torch.Tensor) -> torch.Tensor:
    """Shift `[G, seq]` one place to the left: from the token itself to the position that predicts it."""
    shifted = torch.roll(values, shifts=-1, dims=-1)
    shifted[:, -1] = 0
    return shifted


def _concatenate(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(parts, dim=-1)


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
