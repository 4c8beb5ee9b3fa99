"""Measuring a sample by conversations: the attempts of curation with the tools that training will have."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.agent.conversation import Conversation, views_of
from dataset.agent.pool import ToolPool
from dataset.agent.registry import check_names
from dataset.agent.replies import ReplyTemplate
from dataset.agent.types import AgentSettings, Generated, Trajectory
from dataset.curate.engine import Generation
from dataset.encode import EncodedPrompt, image_limits
from reward.trajectory import TrajectoryWeights
from utils.sample import Sample
from utils.training_file import read_sections

# (name that seeds the turn, token ids, images as base64, tokens at most) -> one generation
Ask = Callable[[str, list[int], list[str], int], Awaitable[Generation]]


@dataclass(frozen=True)
class AgentPlan:
    """Section `agent` of the training that the data is for."""

    settings: AgentSettings
    weights: TrajectoryWeights
    max_turn_tokens: int
    num_workers: int = 2


def read_agent(path: str | Path) -> AgentPlan | None:
    """The plan of a training configuration and of those that it names under `defaults`; None where it has no tools.

    FileNotFoundError: there is none. ValueError: it is not a configuration, or a setting is wrong.
    """
    config = read_sections(path, ("agent", "gconfig"))
    given = {key: value for key, value in (config.get("agent") or {}).items() if value is not None}
    if not given.pop("enabled", False):
        return None
    turn = int((config.get("gconfig") or {}).get("max_new_tokens") or AgentSettings.max_tokens)
    weights = {name: given.pop(name, 0.0) for name in ("tool_bonus", "turn_format", "call_cost")}
    num_workers = int(given.pop("num_workers", 2))
    given["tools"] = check_names(given.get("tools", []))
    given.setdefault("max_tokens", turn)
    try:
        return AgentPlan(AgentSettings(**given), TrajectoryWeights(**weights), turn, num_workers)
    except TypeError as error:
        raise ValueError(f"{path}: section agent: {error}") from error


class Conversations:
    """The conversations of one worker. `close` ends the processes of its tools."""

    def __init__(self, plan: AgentPlan, processor: Any, max_pixels: int | None):
        limits = image_limits(processor, max_pixels)
        rule = {"factor": limits.factor, "min_pixels": limits.min_pixels, "max_pixels": limits.max_pixels}
        self.plan = plan
        self._pool = ToolPool(plan.num_workers, with_python="python" in plan.settings.tools)
        self._conversation = Conversation(ReplyTemplate(processor), self._pool, plan.settings, rule)

    def close(self) -> None:
        """End the processes of the tools."""
        self._pool.close()

    async def run(
        self, sample: Sample, encoded: EncodedPrompt, ask: Ask, num_attempts: int
    ) -> list[Trajectory]:
        """`num_attempts` trajectories of one sample, in their order. What `ask` raises comes in an ExceptionGroup, and
        the rest is cancelled.
        """
        names = check_names((sample.spec or {}).get("tools", self.plan.settings.tools))
        views = views_of(sample.images, encoded.image_sizes, encoded.image_data)

        async def one(attempt: int) -> Trajectory:
            turns = 0

            async def generate(ids: list[int], added: list[str], max_new_tokens: int) -> Generated:
                nonlocal turns
                turns += 1
                name = f"{sample.id}/attempt {attempt}/turn {turns}"
                answer = await ask(name, ids, [*encoded.image_data, *added], max_new_tokens)
                count = len(answer.output_ids)
                return Generated(answer.output_ids, [0.0] * count, [0] * count, answer.finish_reason)

            return await self._conversation.run(
                encoded.input_ids, views, generate, tools=names, max_turn_tokens=self.plan.max_turn_tokens
            )

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(attempt)) for attempt in range(num_attempts)]
        return [task.result() for task in tasks]
