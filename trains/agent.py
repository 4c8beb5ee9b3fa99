"""One prompt in, one scored group of G conversations with tools out (docs/agents.md).

The conversation itself is `dataset.agent.conversation`; here stand its engine, AReaL's, and its tensors. Where the
group of single turns has a prompt and an answer, this one has a prompt and a trajectory: turns of the model, which are
trained on, and replies of tools, which are not.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import AsyncExitStack
from typing import Any

import torch
from areal.api import InferenceEngine, ModelRequest

from dataset.agent.conversation import Conversation, Tools, views_of
from dataset.agent.registry import check_names
from dataset.agent.replies import ReplyTemplate
from dataset.agent.types import AgentSettings, Generated, Trajectory
from dataset.encode import EncodedPrompt, image_limits
from reward import RewardOutput
from reward.settings import group_rewards
from reward.spec import resolve
from reward.trajectory import NO_WEIGHTS, TrajectoryWeights, score_trajectory
from reward.votes import after_the_vote
from trains.host.rollout import token_versions
from trains.types import Group, GroupInfo
from trains.workflow import UnusableResponseError, VisionRolloutWorkflow
from utils.sample import Sample


class AgentWorkflow(VisionRolloutWorkflow):
    """Generates, with tools in between, and scores G rollouts of one prompt at once.

    Args:
        settings: section `agent` of the configuration.
        tools: what runs the calls (`dataset.agent.pool.ToolPool`).
        weights: of the rewards that see the trajectory.
    """

    def __init__(
        self,
        *args: Any,
        settings: AgentSettings,
        tools: Tools | None,
        weights: TrajectoryWeights = NO_WEIGHTS,
        **options: Any,
    ):
        super().__init__(*args, **options)
        self.settings, self.weights = settings, weights
        limits = image_limits(self.processor, self.max_pixels)
        size_rule = {
            "factor": limits.factor,
            "min_pixels": limits.min_pixels,
            "max_pixels": limits.max_pixels,
        }
        self.conversation = Conversation(ReplyTemplate(self.processor), tools, settings, size_rule)

    async def episode(
        self, engine: InferenceEngine, data: dict[str, Any], sample: Sample, encoded: EncodedPrompt
    ) -> Group:
        names = check_names((sample.spec or {}).get("tools", self.settings.tools))
        views = views_of(
            data["prompt"].get("originals") or sample.images, encoded.image_sizes, encoded.image_data
        )
        group_id = uuid.uuid4().hex

        async def one(images: list[str]) -> tuple[Trajectory, RewardOutput]:
            async with AsyncExitStack() as files:
                turns = Turns(self, engine, group_id, images, files)
                trajectory = await self.conversation.run(
                    encoded.input_ids,
                    views,
                    turns.generate,
                    tools=names,
                    max_turn_tokens=self.gconfig.max_new_tokens,
                )
            return trajectory, await self._scored(sample, trajectory)

        async with self.sent(encoded) as images:
            await self.fill_cache(engine, group_id, encoded, images)
            rollouts = await asyncio.gather(*(one(images) for _ in range(self.num_rollouts)))
        return self._agent_group(data["key"], sample, encoded, rollouts)

    async def _scored(self, sample: Sample, trajectory: Trajectory) -> RewardOutput:
        num_tokens = sum(trajectory.mask)
        arguments = self.reward_settings.arguments(
            sample, trajectory.completion, num_tokens=num_tokens, progress=self.get_progress()
        )
        output = await self.reward_pool.score(**arguments)
        threshold = resolve(sample.answer_type, arguments["spec"]).params["solved_threshold"]
        steps = [step.to_record() for step in trajectory.steps]
        return score_trajectory(output, steps, trajectory.faults, self.weights, threshold)

    def _agent_group(
        self,
        key: int,
        sample: Sample,
        encoded: EncodedPrompt,
        rollouts: list[tuple[Trajectory, RewardOutput]],
    ) -> Group:
        prompt, trajectories = encoded.input_ids, [trajectory for trajectory, _ in rollouts]
        scores = after_the_vote(sample, [score for _, score in rollouts])
        seq = len(prompt) + max(len(trajectory.tokens) for trajectory in trajectories)

        def padded(before: list, rows: list[list], fill: float, dtype: torch.dtype) -> torch.Tensor:
            full = [before + row + [fill] * (seq - len(before) - len(row)) for row in rows]
            return torch.tensor(full, dtype=dtype)

        zeros, unknown = [0] * len(prompt), [-1] * len(prompt)
        token_types = {}
        if encoded.mm_token_type_ids is not None:
            rows = [t.token_types for t in trajectories]
            token_types["mm_token_type_ids"] = padded(encoded.mm_token_type_ids, rows, 0, torch.int64)
        return {
            **token_types,
            "input_ids": padded(prompt, [t.tokens for t in trajectories], 0, torch.int64),
            "attention_mask": padded(
                [1] * len(prompt), [[1] * len(t.tokens) for t in trajectories], 0, torch.bool
            ),
            "loss_mask": padded(zeros, [t.mask for t in trajectories], 0, torch.int32),
            "logprobs": padded(zeros, [t.logprobs for t in trajectories], 0.0, torch.float32),
            "versions": padded(unknown, [t.versions for t in trajectories], -1, torch.int32),
            "rewards": torch.tensor(group_rewards(scores), dtype=torch.float32),
            "images": [self.image_tensors(encoded)],
            "rollout_images": [[added_images(t) for t in trajectories]],
            "info": [
                GroupInfo(
                    key=key,
                    sample_id=sample.id,
                    source=sample.source,
                    answer_type=sample.answer_type,
                    prompt_type=sample.prompt_type,
                    answer=list(sample.answer),
                    scores=scores,
                    completions=[t.completion for t in trajectories],
                    truncated=[t.truncated for t in trajectories],
                    lengths=[sum(t.mask) for t in trajectories],
                    num_interruptions=sum(t.num_interruptions for t in trajectories),
                    image_data=encoded.image_data,
                    trajectories=[
                        {"turns": [step.to_record() for step in t.steps], "faults": t.faults}
                        for t in trajectories
                    ],
                    rollout_image_data=[t.images for t in trajectories],
                )
            ],
        }


class Turns:
    """The engine of one conversation: a request for each turn, all to the server that knows the prompt."""

    def __init__(
        self,
        workflow: AgentWorkflow,
        engine: InferenceEngine,
        group_id: str,
        prompt_images: list[str],
        files: AsyncExitStack,
    ):
        self.workflow, self.engine, self.group_id = workflow, engine, group_id
        self.images, self.files, self.num_added = list(prompt_images), files, 0

    async def generate(self, ids: list[int], added: list[str], max_new_tokens: int) -> Generated:
        """The next turn. Raises UnusableResponseError for one that cannot be trained on."""
        workflow, new = self.workflow, added[self.num_added :]
        if new:
            self.num_added = len(added)
            if workflow.image_files is not None:
                new = await self.files.enter_async_context(workflow.image_files.placed(new))
            self.images += new
        request = ModelRequest(
            rid=self.group_id,
            input_ids=ids,
            image_data=list(self.images),
            gconfig=workflow.gconfig.new(max_new_tokens=max_new_tokens),
            metadata={"segments": []},
            tokenizer=workflow.tokenizer,
            processor=workflow.processor,
        )
        response = await workflow.generate(self.engine, request)
        media = workflow.forbidden.intersection(response.output_tokens)
        if media or not response.output_tokens:
            raise UnusableResponseError(
                f"generated media tokens {sorted(media)}" if media else "generated no token"
            )
        tokens = list(response.output_tokens)
        versions = token_versions(request.metadata["segments"], len(ids), len(ids) + len(tokens))
        return Generated(tokens, list(response.output_logprobs), versions[len(ids) :], response.stop_reason)


def added_images(trajectory: Trajectory) -> dict[str, torch.Tensor]:
    """`pixel_values` and `image_grid_thw` of all replies; empty without images."""
    if not trajectory.grids:
        return {}
    return {
        "pixel_values": torch.cat(trajectory.pixel_values),
        "image_grid_thw": torch.cat(trajectory.grids),
    }
