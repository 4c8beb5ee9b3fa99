"""One rollout of several turns: generate, read, run the tool, append its reply, until an answer or a limit.

Nothing is tokenised twice: the prompt's ids, the ids that the model generated and those of each reply are appended in
order, and every request carries all of them. Training (`trains/agent.py`) and curation bring the engine.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from dataset.agent.calls import CLOSE, OPEN, read_turn
from dataset.agent.pool import ToolFailed
from dataset.agent.registry import get_tool
from dataset.agent.replies import EncodedReply, ReplyTemplate
from dataset.agent.types import AgentSettings, Call, Generated, Step, ToolError, Trajectory, Turn

MIN_TURN_TOKENS = 4  # a reply that leaves less room for the next turn is not sent

# (all token ids so far, base64 images of replies so far, tokens at most) -> the next turn
Generate = Callable[[list[int], list[str], int], Awaitable[Generated]]


class Tools(Protocol):
    """What runs a call: `dataset.agent.pool.ToolPool`."""

    async def call(
        self, name: str, arguments: Mapping[str, Any], context: Mapping[str, Any], seconds: float
    ) -> dict[str, Any]: ...


@dataclass(frozen=True)
class View:
    """An image that the model has seen: what is stored of it, which part of that, and at which size it was shown."""

    record: dict[str, Any]  # {"path"} or {"base64"}
    region: tuple[float, float, float, float] | None  # in pixels of the stored image; None: all of it
    size: tuple[int, int]  # (width, height)


def views_of(records: Sequence[Any], sizes: Sequence[tuple[int, int]], shown: Sequence[str]) -> list[View]:
    """The prompt's images as tools see them: the stored originals, or as shown where there are none.

    records: {"bytes", "path"} of each, encoded bytes, a path, or None; sizes and shown (base64 PNG): as the model sees
    them. One that is both bytes and path is its bytes.
    """
    records = list(records) if len(records) == len(sizes) else [None] * len(sizes)
    views = []
    for given, size, image in zip(records, sizes, shown, strict=True):
        record = (given.get("bytes") or given.get("path")) if isinstance(given, Mapping) else given
        if isinstance(record, bytes | bytearray | memoryview):
            stored = {"base64": base64.b64encode(record).decode("ascii")}
        elif isinstance(record, str):
            stored = {"path": record}
        else:
            stored = {"base64": image}
        views.append(View(stored, None, size))
    return views


@dataclass
class _Reply:
    text: str
    images: list[Image.Image]
    data: list[str]
    views: list[View]
    fault: str | None = None
    without_effect: bool = False


class Conversation:
    """Holds what the conversations of a run share. `limits` are the model's, {"factor", "min_pixels", "max_pixels"}."""

    def __init__(
        self, template: ReplyTemplate, tools: Tools | None, settings: AgentSettings, limits: Mapping[str, int]
    ):
        self.template, self.tools, self.settings, self.limits = template, tools, settings, dict(limits)
        self.tokenizer = template.tokenizer

    async def run(
        self,
        prompt_ids: Sequence[int],
        views: Sequence[View],
        generate: Generate,
        *,
        tools: Sequence[str],
        max_turn_tokens: int,
    ) -> Trajectory:
        """One trajectory. `tools` are the row's; without any, one turn.

        Raises what `generate` raises, and `reward.Unavailable` for a tool that this machine cannot run.
        """
        settings, trajectory, views = self.settings, Trajectory(), list(views)
        made: set[str] = set()
        max_turns = settings.max_turns if tools else 1
        for number in range(1, max_turns + 1):
            room = settings.max_tokens - len(trajectory.tokens)
            generated = await generate(
                [*prompt_ids, *trajectory.tokens], list(trajectory.images), min(room, max_turn_tokens)
            )
            trajectory.add_generated(generated)
            text = self.tokenizer.decode(generated.tokens, skip_special_tokens=True)
            step = Step(text, num_tokens=len(generated.tokens))
            trajectory.steps.append(step)
            trajectory.completion = text
            if generated.stop_reason == "length":
                trajectory.truncated = True
                break
            turn = read_turn(text, tools)
            step.call, step.fault = turn.call, turn.fault
            self._count(trajectory, turn.fault)
            if turn.call is None and not turn.message:
                break
            if turn.call is not None and get_tool(turn.call.name).terminal:
                turn = self._final(turn.call, trajectory)
                if turn.call is not None:
                    break
                step.fault = turn.fault
            if number == max_turns:
                step.fault = step.fault or "too_many_turns"
                self._count(trajectory, "too_many_turns")
                break
            reply = await self._reply(turn, views, made, trajectory)
            step.fault = reply.fault
            if not await self._append(reply, views, trajectory, step, generated.tokens[-1]):
                step.fault = step.fault or "no_room"
                self._count(trajectory, "no_room")
                trajectory.truncated = True
                break
        return trajectory

    def _final(self, call: Call, trajectory: Trajectory) -> Turn:
        """A call that ends the conversation: the answer stands in its place in the completion."""
        try:
            answer = get_tool(call.name).run(call.arguments, {})
        except ToolError as error:
            self._count(trajectory, "bad_arguments")
            return Turn(fault="bad_arguments", message=str(error))
        text = trajectory.completion
        start = text.rindex(OPEN)
        end = text.index(CLOSE, start) + len(CLOSE)
        trajectory.completion = f"{text[:start]}<answer>{answer}</answer>{text[end:]}"
        return Turn(call=call)

    async def _reply(self, turn: Turn, views: list[View], made: set[str], trajectory: Trajectory) -> _Reply:
        """What the model is told. Faults are counted here, except the parser's, which are counted already."""
        if turn.call is None:
            return _Reply(f"Error: {turn.message}", [], [], [], turn.fault)
        call, key = turn.call, json.dumps([turn.call.name, turn.call.arguments], sort_keys=True)
        if key in made:
            return self._refused(
                trajectory, "repeated_call", "this call has been made before; its reply is above"
            )
        made.add(key)
        context: dict[str, Any] = {"limits": self.limits, "corpus": self.settings.corpus}
        index = call.arguments.get("image", call.arguments.get("img_idx", 0))
        if get_tool(call.name).wants_image:
            if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(views):
                message = f"{call.name}: there is no image {str(index)[:40]}; there are {len(views)}, counted from 0"
                return self._refused(trajectory, "bad_arguments", message)
            view = views[index]
            context["image"] = {"record": view.record, "region": view.region, "size": view.size}
        assert self.tools is not None
        try:
            result = await self.tools.call(call.name, call.arguments, context, self.settings.max_tool_seconds)
        except ToolFailed as error:
            return self._refused(trajectory, error.fault, str(error))
        if "refused" in result:
            return self._refused(trajectory, "bad_arguments", result["refused"])
        reply = _Reply(str(result.get("text", "")), [], [], [], None, bool(result.get("without_effect")))
        if len(reply.text) > self.settings.max_reply_chars:
            reply.text = reply.text[: self.settings.max_reply_chars] + " ... (cut)"
            reply.fault = "long_reply"
            self._count(trajectory, "long_reply")
        for image in result.get("images", ()):
            if len(trajectory.images) + len(reply.data) >= self.settings.max_images:
                reply.text += "\nNo more images can be shown."
                reply.fault = "too_many_images"
                self._count(trajectory, "too_many_images")
                break
            size = tuple(image["size"])
            of_parent = image.get("of_parent") and index is not None
            record = views[index].record if of_parent else {"base64": image["png"]}
            region = tuple(image["region"]) if of_parent else None
            reply.views.append(View(record, region, size))
            reply.data.append(image["png"])
            reply.images.append(Image.open(io.BytesIO(base64.b64decode(image["png"]))).convert("RGB"))
        return reply

    async def _append(
        self, reply: _Reply, views: list[View], trajectory: Trajectory, step: Step, last_token: int
    ) -> bool:
        """Put the reply behind the model's turn; False where it would leave no room for another one."""
        encoded: EncodedReply = await asyncio.to_thread(
            self.template.encode, reply.text, reply.images, last_token
        )
        room = self.settings.max_tokens - len(trajectory.tokens)
        if len(encoded.tokens) + MIN_TURN_TOKENS > room:
            return False
        trajectory.add_reply(encoded.tokens, encoded.token_types)
        if reply.images:
            trajectory.images += reply.data
            trajectory.pixel_values.append(encoded.pixel_values)
            trajectory.grids.append(encoded.grids)
            views += reply.views
        step.reply, step.num_images = reply.text, len(reply.images)
        step.without_effect = reply.without_effect
        return True

    def _refused(self, trajectory: Trajectory, fault: str, message: str) -> _Reply:
        self._count(trajectory, fault)
        return _Reply(f"Error: {message[: self.settings.max_reply_chars]}", [], [], [], fault)

    @staticmethod
    def _count(trajectory: Trajectory, fault: str | None) -> None:
        if fault is not None:
            trajectory.faults.append(fault)
