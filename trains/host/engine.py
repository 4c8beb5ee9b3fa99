"""AReaL's FSDP engine as this recipe needs it: every method of it that is overridden or relied on is here.

What stays outside (trains/actor.py) calls `compute_logp`, `train_batch`, `stage_weights`, `update_weights`, `save` and
the like, and can be read without knowing AReaL. tests/trains/test_contract.py lists what this file takes for granted.
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
from areal.utils import name_resolve, names
from areal.utils.data import batched_call, concat_padded_tensors, split_padded_tensor_dict_into_mb_list
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor

from llavaonevision1_5 import MODEL_TYPE, shims
from llavaonevision1_5.areal import register_with_areal
from llavaonevision1_5.freezing import freeze, part_of_model
from trains.config import ActorConfig
from trains.host import qwen_vl
from trains.host.lora import merged_state
from trains.types import Group
from utils.logprobs import logprobs_and_entropy

# One entry per sequence. AReaL splits lists under names that begin like this among micro-batches; those under exactly
# `multi_modal_input` it also joins to tensors, for all micro-batches at once.
PIXELS = "multi_modal_input_pixels"


class VisionEngine(FSDPEngine):
    """Holds the weights of a vision-language model, computes its log-probabilities and hands it to the servers."""

    def __init__(self, config: ActorConfig, forbidden_token_ids: list[int]):
        register_with_areal()
        super().__init__(config)
        self.forbidden_token_ids = forbidden_token_ids
        self.gradient_norms: dict[str, float] = {}
        self.exchange_seconds = 0.0  # of the last weight update: how long the rollout stood still
        self._staged: str | None = None  # folder whose files await the next hand-over

    @torch.no_grad()
    def compute_logp(self, batch: list[Group]) -> list[torch.Tensor]:
        """Log-probabilities `[G, seq]` of each group under the current weights; position t holds token t + 1."""
        self.eval()
        return batched_call(
            lambda data: self.forward_batch(data, aggregate_fn=_concatenate),
            [model_inputs(group) for group in batch],
        )

    def compute_full_logp(self, group: Group) -> torch.Tensor:
        """As `compute_logp` for one group, over the whole vocabulary: as a server scores tokens that it is given."""
        excluded, self.forbidden_token_ids = self.forbidden_token_ids, []
        try:
            return self.compute_logp([group])[0]
        finally:
            self.forbidden_token_ids = excluded

    def minibatches(self, batch: list[Group], keys: tuple[str, ...]) -> list[dict[str, Any]]:
        """The batch in `num_minibatches` parts, with what the model reads and `keys` of each group."""
        data = concat_padded_tensors(
            [model_inputs(group) | {key: group[key] for key in keys} for group in batch]
        )
        spec = MicroBatchSpec(n_mbs=self.config.num_minibatches)
        return split_padded_tensor_dict_into_mb_list(data, spec).mbs

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
        # each rank holds a shard of every gradient
        total = self.sum_over_ranks(torch.stack(list(squares.values())))
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

    def sum_over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        """In place, over the data-parallel ranks."""
        dist.all_reduce(values, group=self.data_parallel_group)
        return values


def model_inputs(group: Group) -> dict[str, Any]:
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


def _concatenate(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(parts, dim=-1)
