"""AReaL's FSDP engine as this recipe needs it: every method of it that is overridden or relied on is here.

What stays outside (trains/actor.py) calls `compute_logp`, `train_batch`, `stage_weights`, `update_weights`, `save` and
the like, and can be read without knowing AReaL. tests/trains/test_contract.py lists what this file takes for granted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from areal.api import WeightUpdateMeta
from areal.engine.core.train_engine import reorder_and_pad_outputs
from areal.engine.fsdp_engine import FSDPEngine
from areal.utils.data import MicroBatchList
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor

from llavaonevision1_5 import MODEL_TYPE, QWEN_VL_TYPES, shims
from llavaonevision1_5.areal import register_with_areal
from llavaonevision1_5.freezing import freeze, part_of_model
from trains.config import ActorConfig
from trains.host import qwen_vl
from trains.host.batches import by_group, concatenated
from trains.host.dealing import deal
from trains.host.head import Question, ScoringHead
from trains.host.lora import merged_state
from trains.host.shared_batches import (
    GRIDS,
    PIXELS,
    PROMPT_KEYS,
    results,
    shared_micro_batches,
    with_own_images,
)
from trains.types import Group

# How AReaL tells a model that its row is packed.
NO_MASK = {"full_attention": None, "sliding_attention": None}


class VisionEngine(FSDPEngine):
    """Holds the weights of a vision-language model, computes its log-probabilities and hands it to the servers."""

    token_entropies: torch.Tensor | None = None  # [rollouts, seq] of the last `learn`, laid out as its result

    def __init__(self, config: ActorConfig, forbidden_token_ids: list[int]):
        register_with_areal()
        super().__init__(config)
        self.forbidden_token_ids = forbidden_token_ids
        self.gradient_norms: dict[str, float] = {}
        self.exchange_seconds = 0.0  # of the last weight update: how long the rollout stood still
        self._mb_list: MicroBatchList | None = None  # of the last batch
        self._row: dict[str, Any] | None = None  # of the micro-batch that is being computed
        self._num_padding = 0  # tokens behind it, which AReaL cuts off
        self._passed: list[torch.Tensor] = []  # log-probabilities of the forward passes of `learn`
        self._squares: list[torch.Tensor] | None = (
            None  # sums of squared probabilities, where they are wanted
        )
        self._passed_entropies: list[torch.Tensor] = []  # likewise
        self._staged: WeightUpdateMeta | None = None  # the hand-over that is prepared
        self._is_xccl = False  # weights go straight to the servers
        self._has_said_so = False

    def meet(self) -> None:
        """Wait for all ranks; from `create_process_group` on, before there is a model."""
        dist.barrier(group=dist.new_group(backend="gloo"))

    def prepare_batch(self, dataloader: Any, workflow: Any) -> list[Group]:
        """This rank's share of the step's groups; every rank waits for the servers' answers to its own prompts."""
        rollout, batch = self.rollout_engine, None
        if not self._is_xccl:
            return deal(rollout.prepare_batch(dataloader, workflow=workflow), self.cpu_group, self.device)
        while True:
            if batch is None:
                batch = rollout.prepare_batch(
                    dataloader, workflow, give_up=lambda: rollout.servers.are_waiting
                )
            if not self._is_true_anywhere(batch is None):
                return deal(batch, self.cpu_group, self.device)
            self._write_for_servers()

    def connect_engine(self, engine: Any, meta: WeightUpdateMeta) -> None:
        """As AReaL's."""
        super().connect_engine(engine, meta)
        self._is_xccl = meta.type == "xccl"

    @torch.no_grad()
    def compute_logp(self, batch: list[Group]) -> list[torch.Tensor]:
        """Log-probabilities `[G, seq]` of each group under the current weights; position t holds token t + 1."""
        self.eval()
        values = self.forward_batch(concatenated(batch), aggregate_fn=_concatenate)
        return by_group(values, batch)

    @torch.no_grad()
    def compute_logp_and_squares(self, batch: list[Group]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """`compute_logp`, and sum_v pi_v^2 of the same distributions `[G, seq]`."""
        self.eval()
        data, self._squares = concatenated(batch), []
        values = self.forward_batch(data, aggregate_fn=_concatenate)
        lengths = data["attention_mask"].sum(-1).tolist()
        squares = reorder_and_pad_outputs(self._squares, lengths, self._mb_list, _concatenate)
        self._squares = None
        return by_group(values, batch), by_group(squares, batch)

    def compute_full_logp(self, group: Group) -> torch.Tensor:
        """As `compute_logp` for one group, over the whole vocabulary: as a server scores tokens that it is given."""
        excluded, self.forbidden_token_ids = self.forbidden_token_ids, []
        try:
            return self.compute_logp([group])[0]
        finally:
            self.forbidden_token_ids = excluded

    def minibatches(
        self, batch: list[Group], keys: tuple[str, ...]
    ) -> Iterator[tuple[list[Group], dict[str, Any]]]:
        """`num_minibatches` parts of the batch, as groups and as what the model reads with `keys` of each group.

        Raises ValueError where a rank has fewer groups than that.
        """
        count = self.config.num_minibatches
        if len(batch) < count:
            raise ValueError(
                f"actor.num_minibatches={count}, but a rank's batch has {len(batch)} prompts; wanted at most as many"
            )
        for part in (batch[start::count] for start in range(count)):
            yield part, concatenated(part, keys)

    def learn(
        self, minibatch: dict[str, Any], loss: Any, loss_weight: Any
    ) -> tuple[dict[str, float], torch.Tensor]:
        """AReaL's `train_batch`, and the log-probabilities `[rollouts, seq]` of its forward passes."""
        self._passed, self._passed_entropies = [], []
        stats = self.train_batch(minibatch, loss, loss_weight)
        lengths = minibatch["attention_mask"].sum(-1).tolist()
        values, self.token_entropies = (
            self.unpacked(passed, lengths) for passed in (self._passed, self._passed_entropies)
        )
        return stats, values

    # --- what AReaL's engine leaves to a subclass -----------------------------------------------------------------

    def _create_device_model(self) -> None:
        super()._create_device_model()
        qwen_vl.adapt(self.model)
        self._head = self._make_head()
        self._freeze()

    def _make_head(self) -> Any:
        """What stands in for the output layer, with an attribute `question`."""
        return ScoringHead(self.model)

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

    def _prepare_mb_list(self, input_: dict[str, Any]) -> MicroBatchList:
        if self.config.share_prompts:
            positions = self._positions(input_)
            self._mb_list = shared_micro_batches(input_, self.config.mb_spec, positions)
        else:
            self._mb_list = super()._prepare_mb_list(
                {key: value for key, value in with_own_images(input_).items() if key not in PROMPT_KEYS}
            )
        return self._mb_list

    def _positions(self, data: dict[str, Any]) -> torch.Tensor:
        """Position ids `[rollouts, seq]`, or `[rollouts, seq, 3]` for Qwen-VL, as AReaL computes them."""
        ids = data["input_ids"]
        if self.model_config.model_type not in QWEN_VL_TYPES:
            return torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        grids = [images["image_grid_thw"] for images in with_own_images(data)[GRIDS] if images]
        return self.model.model.compute_3d_position_ids(
            input_ids=ids,
            image_grid_thw=torch.cat(grids) if grids else None,
            video_grid_thw=None,
            attention_mask=data["attention_mask"],
            mm_token_type_ids=data["mm_token_type_ids"],
            inputs_embeds=None,
            past_key_values=None,
        ).permute(1, 2, 0)

    def _prepare_mb_inputs(self, mb_item):
        """Join the pixels of a micro-batch when its turn comes (until then the rollouts of a prompt share one tensor),
        and ask the output layer for scores in place of logits, of the distribution that was sampled from: without the
        forbidden tokens.
        """
        inputs = dict(mb_item.padded_mb)
        pixels = [images["pixel_values"] for images in inputs.pop(PIXELS) if images]
        if pixels:
            inputs["pixel_values"] = torch.cat(pixels)
        self._row, self._num_padding = inputs.pop("row", None), mb_item.padding_length
        if self._row is None:
            labels = torch.roll(inputs["input_ids"], shifts=-1, dims=-1).squeeze(0)
        else:
            labels = self._row["labels"]
            grids = [images["image_grid_thw"] for images in inputs.pop(GRIDS) if images]
            if grids:
                inputs["image_grid_thw"] = torch.cat(grids)
            no_mask = None if self.model_config.model_type == "qwen3_vl" else NO_MASK
            inputs |= {"attention_mask": no_mask, "use_cache": False}
            inputs |= {"shared_prompts": self._row["units"], "logits_to_keep": self._row["predicting"]}
        self._head.question = Question(
            labels,
            self.config.temperature,
            self.forbidden_token_ids,
            self.config.logprob_block_size,
            wants_squares=self._squares is not None,
        )
        return super()._prepare_mb_inputs(mb_item._replace(padded_mb=inputs))

    def _compute_logprobs_entropy(self, logits, inputs, ulysses_pad_size=0):
        """`logits` are the output layer's scores; both results are laid out as the loss reads a micro-batch."""
        logprobs, entropy, *squares = map(self.in_places_of_the_loss, logits.unbind(-1))
        if squares:
            self._squares.append(squares[0][: len(logprobs) - self._num_padding])
        self._passed.append(logprobs.detach()[: len(logprobs) - self._num_padding])
        self._passed_entropies.append(entropy.detach()[: len(entropy) - self._num_padding])
        return logprobs, entropy

    def in_places_of_the_loss(self, scores: torch.Tensor) -> torch.Tensor:
        """What the output layer gave for the micro-batch at hand, `[predictions]`, laid out as the loss reads it."""
        return scores if self._row is None else results(self._row, scores)

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
        if meta.type == "xccl" and self._is_true_anywhere(self._has_lost_servers()):
            meta = self._through_disk(meta.version)
        if meta.type == "disk":
            with self._offload_aware_context():
                self._save_model_to_hf(meta.path, None, None)
        self._staged = meta

    def update_weights(self, meta: WeightUpdateMeta) -> None:
        """Hand the weights to the servers. Every rank has paused its rollout before this and resumes it after."""
        if self._staged is None or self._staged.version != meta.version:  # AReaL's recovery does not stage
            self.stage_weights(meta)
        meta, self._staged = self._staged, None
        # No rank's rollout goes on while rank 0 aborts the requests of all.
        dist.barrier(group=self.cpu_group)
        start = time.perf_counter()
        with self._hand_over(meta):
            super().update_weights(meta)
        self.exchange_seconds = time.perf_counter() - start

    def _hand_over(self, meta: WeightUpdateMeta) -> AbstractContextManager[None]:
        keeper = self.rollout_engine.keeper  # of the first rank
        return nullcontext() if keeper is None else keeper.hand_over(meta, through_disk=meta.type == "disk")

    def _has_lost_servers(self) -> bool:
        """One that is started again is not in the group of a hand-over over NCCL, which cannot be joined later."""
        if self.rollout_engine.keeper is None or self.rollout_engine.servers.num_lost == 0:
            return False
        if not self._has_said_so:
            print("[grpo] a server was lost: from now on weights go through the disk", flush=True)
            self._has_said_so = True
        return True

    def _through_disk(self, version: int) -> WeightUpdateMeta:
        config = self.rollout_engine.config
        meta = WeightUpdateMeta.from_disk(config.experiment_name, config.trial_name, config.fileroot)
        return meta.with_version(version)

    def _write_for_servers(self) -> None:
        """The weights as files, for a server that is started again while no other one is left."""
        meta = self._through_disk(self.get_version())
        with self._offload_aware_context():
            self._save_model_to_hf(meta.path, None, None)
        if self.rollout_engine.keeper is not None:
            self.rollout_engine.keeper.stage(meta)
        dist.barrier(group=self.cpu_group)

    def _is_true_anywhere(self, value: bool) -> bool:
        flag = torch.tensor([int(value)])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self.cpu_group)
        return bool(flag)

    def _get_full_tensor(self, param: torch.nn.Parameter) -> torch.Tensor:
        """As AReaL's, which takes every shard in host memory for equally large: where they are not (`class_pos_emb` has
        one row), ranks would wait for each other's differently sized shards forever.
        """
        tensor = param.data
        if not (isinstance(tensor, DTensor) and tensor.device.type == "cpu"):
            return super()._get_full_tensor(param)
        if tensor.device_mesh.device_type != "cpu":  # offloaded: gathered on the device
            local = DTensor.from_local(
                tensor.to_local().to(tensor.device_mesh.device_type),
                tensor.device_mesh,
                tensor.placements,
                shape=tensor.shape,
                stride=tensor.stride(),
            )
            return local.full_tensor()
        return tensor.full_tensor()

    def _update_weights_from_disk(self, meta: WeightUpdateMeta) -> None:
        """As AReaL's, but the files are there (`stage_weights`), nobody polls for them, and they stay until the next
        hand-over for servers that are started again.
        """
        if dist.get_rank() == 0:
            self.rollout_engine.pause_generation()
            self.rollout_engine.load_weights(meta)
            self.rollout_engine.continue_generation()
        dist.barrier(group=self.cpu_group)

    def wait_for_ranks(self) -> None:
        """Until every rank has come here."""
        dist.barrier(group=self.cpu_group)

    def unpacked(self, parts: list[torch.Tensor], lengths: list[int]) -> torch.Tensor:
        """Values of the packed tokens of the last batch's micro-batches as `[rollouts, seq]`."""
        return reorder_and_pad_outputs(parts, lengths, self._mb_list, _concatenate)

    def sum_over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        """In place, over the data-parallel ranks."""
        dist.all_reduce(values, group=self.data_parallel_group)
        return values


def _concatenate(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(parts, dim=-1)
