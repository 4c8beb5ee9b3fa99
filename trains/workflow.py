"""One prompt in, one scored group of G rollouts out (trains/types.py has every key of a group)."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import torch
from areal.api import InferenceEngine, ModelRequest, ModelResponse, RolloutWorkflow
from areal.api.cli_args import GenerationHyperparameters
from areal.utils import logging

from dataset.encode import EncodedPrompt, encode_prompt
from dataset.images import upright_size
from dataset.prompts import DEFAULT_PROMPTS, PromptConfig
from reward import RewardOutput
from reward.settings import DEFAULT_SETTINGS, RewardSettings, group_rewards
from reward.spec import resolve
from reward.votes import after_the_vote
from trains.host.rollout import token_versions
from trains.image_files import ImageFiles
from trains.rollout_records import ImageStore
from trains.turns import Turns
from trains.types import Failure, Group, GroupInfo, Rollout
from utils.sample import Sample

logger = logging.getLogger("Workflow")


class UnusableResponseError(RuntimeError):
    """The engine returned something that cannot be trained on."""


class VisionRolloutWorkflow(RolloutWorkflow):
    """Generates and scores G rollouts of one prompt at once; each is scored as soon as it is finished.

    Args:
        processor: Hugging Face processor of the checkpoint.
        gconfig: sampling settings; `n_samples` is G.
        reward_pool: `reward.pool.RewardPool`, shared by all workflows of the process.
        forbidden_token_ids: media tokens; none may appear among the generated tokens.
        prompts, max_pixels: as in curation (`dataset/encode.py`).
        image_store: where images are kept for the record of a step (trains/rollout_records.py); None keeps none.
        image_files: where images are put for the servers to read; None sends them inside each request.
        reward_settings: the configuration's, the same in curation and evaluation (`reward/settings.py`).
        get_progress: share of training done, in [0, 1], for rewards with a schedule.
        turns: one request at a time, in the order of submission (`deterministic: true`).
    """

    num_references = 0  # of each group: not drawn (trains/rehearsal)

    def __init__(
        self,
        processor: Any,
        gconfig: GenerationHyperparameters,
        reward_pool: Any,
        *,
        forbidden_token_ids: list[int],
        prompts: PromptConfig = DEFAULT_PROMPTS,
        max_pixels: int | None = None,
        image_files: ImageFiles | None = None,
        image_store: ImageStore | None = None,
        reward_settings: RewardSettings = DEFAULT_SETTINGS,
        get_progress=lambda: 0.0,
        turns: Turns | None = None,
    ):
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.num_rollouts = gconfig.n_samples
        self.gconfig = gconfig.new(n_samples=1)
        self.reward_pool = reward_pool
        self.forbidden = frozenset(forbidden_token_ids)
        self.prompts = prompts
        self.max_pixels = max_pixels
        self.image_files = image_files
        self.image_store = image_store
        self.get_progress = get_progress
        self.reward_settings = reward_settings
        self.turns = turns

    async def arun_episode(self, engine: InferenceEngine, data: dict[str, Any]) -> Rollout:
        """`data` is {"key": int, "prompt": row}. Returns the group, or {"failure": Failure}: AReaL would swallow an
        exception and go on without a word.
        """
        try:
            async with self._turn(data["key"]):
                return await self._roll_out(engine, data)
        except Exception as error:
            logger.error("prompt %s failed: %r", data["prompt"].get("id"), error, exc_info=True)
            failure = Failure(data["key"], f"{type(error).__name__}: {error}", isinstance(error, ValueError))
            return {"failure": failure}

    def _turn(self, key: int) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self.turns is None else self.turns.of(key)

    async def _roll_out(self, engine: InferenceEngine, data: dict[str, Any]) -> Group:
        sample = Sample.from_row(data["prompt"])
        encoded = await asyncio.to_thread(
            encode_prompt, self.processor, sample, prompts=self.prompts, max_pixels=self.max_pixels
        )
        group = await self.episode(engine, data, sample, encoded)
        if self.image_store is not None:
            info = group["info"][0]
            info.image_files = await asyncio.to_thread(self.image_store.put, encoded.image_data)
            info.image_sizes = [upright_size(image, sample.id) for image in sample.images]
            for added in info.rollout_image_data or ():
                info.rollout_image_files.append(await asyncio.to_thread(self.image_store.put, added))
        return group

    async def episode(
        self, engine: InferenceEngine, data: dict[str, Any], sample: Sample, encoded: EncodedPrompt
    ) -> Group:
        """The group of an encoded prompt; whatever it raises becomes a failure."""
        async with self.sent(encoded) as images:
            group_id = uuid.uuid4().hex
            await self.fill_cache(engine, group_id, encoded, images)
            requests = [
                self._request(group_id, encoded, images, self.given_answer(sample, encoded, place))
                for place in range(self.num_rollouts)
            ]
            if self.turns is None:
                rollouts = await asyncio.gather(*(self._rollout(engine, sample, r) for r in requests))
            else:
                rollouts = [await self._rollout(engine, sample, r) for r in requests]
        return self._group(data["key"], sample, encoded, rollouts)

    def given_answer(self, sample: Sample, encoded: EncodedPrompt, place: int) -> list[int] | None:
        """Token ids that stand for the answer of rollout `place`; None: the servers draw one. See trains/rehearsal."""
        del sample, encoded, place
        return None

    def sent(self, encoded: EncodedPrompt) -> AbstractAsyncContextManager[list[str]]:
        """The images as requests carry them."""
        if self.image_files is None:
            return nullcontext(encoded.image_data)
        return self.image_files.placed(encoded.image_data)

    async def fill_cache(
        self, engine: InferenceEngine, group_id: str, encoded: EncodedPrompt, images: list[str]
    ) -> None:
        """One token before the group's own requests, which then find the prompt in the server's prefix cache.

        Sent at the same time they would each compute it: SGLang looks for a prefix before a batch, not in it.
        """
        if self.num_rollouts > 1 and self.turns is None:
            request = self._request(group_id, encoded, images, None)
            request.gconfig = self.gconfig.new(max_new_tokens=1)
            await self.generate(engine, request)

    def _request(
        self, group_id: str, encoded: EncodedPrompt, images: list[str], given: list[int] | None
    ) -> ModelRequest:
        return ModelRequest(
            # AReaL keeps requests of one id on one server, which then has their prompt and images once
            rid=group_id,
            input_ids=encoded.input_ids,
            image_data=images,
            gconfig=self.gconfig if given is None else self.gconfig.new(max_new_tokens=len(given)),
            metadata={"segments": []} | ({} if given is None else {"answer": given}),
            tokenizer=self.tokenizer,
            processor=self.processor,
        )

    async def generate(self, engine: InferenceEngine, request: ModelRequest) -> ModelResponse:
        """An engine's answer. Raises UnusableResponseError for what is none."""
        try:
            return await engine.agenerate(request)
        except ValueError as error:
            # of the transport (a page instead of JSON): the prompt itself has been checked
            raise UnusableResponseError(str(error)) from error

    async def _rollout(
        self, engine: InferenceEngine, sample: Sample, request: ModelRequest
    ) -> tuple[ModelResponse, list[int], RewardOutput, str]:
        num_prompt = len(request.input_ids)
        response = await self.generate(engine, request)
        media = self.forbidden.intersection(response.output_tokens)
        if media or not response.output_tokens:
            raise UnusableResponseError(
                f"generated media tokens {sorted(media)}" if media else "generated no token"
            )
        # as curation does
        completion = self.tokenizer.decode(response.output_tokens, skip_special_tokens=True)
        score = await self.reward_pool.score(
            **self.reward_settings.arguments(
                sample, completion, num_tokens=len(response.output_tokens), progress=self.get_progress()
            )
        )
        num_tokens = num_prompt + len(response.output_tokens)
        versions = token_versions(request.metadata["segments"], num_prompt, num_tokens)
        return response, versions, score, completion

    def _group(self, key: int, sample: Sample, encoded: EncodedPrompt, rollouts: list[tuple]) -> Group:
        prompt, num_prompt = encoded.input_ids, len(encoded.input_ids)
        lengths = [len(response.output_tokens) for response, *_ in rollouts]
        # -1 and the first one are no interruptions
        num_interruptions = sum(len(set(versions)) - 2 for _, versions, *_ in rollouts)
        seq = num_prompt + max(lengths)

        def padded(rows: list[list], fill: float, dtype: torch.dtype) -> torch.Tensor:
            return torch.tensor([row + [fill] * (seq - len(row)) for row in rows], dtype=dtype)

        scores = after_the_vote(sample, [score for *_, score, _ in rollouts])
        token_types = {}
        if encoded.mm_token_type_ids is not None:
            rows = [encoded.mm_token_type_ids + [0] * n for n in lengths]
            token_types["mm_token_type_ids"] = padded(rows, 0, torch.int64)
        return {
            **token_types,
            "input_ids": padded([prompt + r.output_tokens for r, *_ in rollouts], 0, torch.int64),
            "attention_mask": padded([[1] * (num_prompt + n) for n in lengths], 0, torch.bool),
            "loss_mask": padded([[0] * num_prompt + [1] * n for n in lengths], 0, torch.int32),
            "logprobs": padded(
                [[0.0] * num_prompt + r.output_logprobs for r, *_ in rollouts], 0.0, torch.float32
            ),
            "versions": padded([versions for _, versions, *_ in rollouts], -1, torch.int32),
            "rewards": torch.tensor(group_rewards(scores), dtype=torch.float32),
            "images": [self.image_tensors(encoded)],
            "info": [
                GroupInfo(
                    key=key,
                    sample_id=sample.id,
                    source=sample.source,
                    answer_type=sample.answer_type,
                    prompt_type=sample.prompt_type,
                    answer=list(sample.answer),
                    scores=scores,
                    completions=[completion for *_, completion in rollouts],
                    truncated=[response.stop_reason == "length" for response, *_ in rollouts],
                    lengths=lengths,
                    num_interruptions=num_interruptions,
                    num_references=self.num_references,
                    given=[
                        self.given_answer(sample, encoded, i) is not None for i in range(self.num_rollouts)
                    ],
                    part_weights=dict(resolve(sample.answer_type, sample.spec).weights),
                    spec=sample.spec,
                    image_data=encoded.image_data,
                )
            ],
        }

    def image_tensors(self, encoded: EncodedPrompt) -> dict[str, torch.Tensor]:
        """Always the same keys, so that ranks whose prompts have no image can still exchange batches."""
        if encoded.pixel_values is not None:
            return encoded.multi_modal_input
        processor = self.processor.image_processor
        patch = 3 * getattr(processor, "temporal_patch_size", 1) * processor.patch_size**2
        return {"pixel_values": torch.zeros(0, patch), "image_grid_thw": torch.zeros(0, 3, dtype=torch.int64)}
