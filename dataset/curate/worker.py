"""One worker: from a source row to a measured record. A plain class; `pool` runs it here or as a Ray actor."""

import asyncio
import copy
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataset.agent.types import Trajectory
from dataset.curate.conversations import AgentPlan, Conversations
from dataset.curate.engine import Engine, EngineDead, Generation, RequestFailed, SamplingOptions
from dataset.curate.filters import Filters, filter_reason
from dataset.curate.guards import Exclusion
from dataset.curate.journal import Record
from dataset.curate.server import Server, ServerFailed, ServerOptions
from dataset.images import ImageError
from dataset.media_tokens import media_token_ids
from dataset.prompts import PromptConfig
from dataset.sources.base import BadRow, Context, Row, Source
from llavaonevision1_5.shims import check_code
from reward.settings import DEFAULT_SETTINGS, RewardSettings
from reward.spec import resolve
from reward.trajectory import score_trajectory
from reward.types import UNJUDGED, RewardOutput
from utils.sample import Sample

MAX_RESTARTS = 2
NUM_ENCODER_THREADS = 4
MAX_MESSAGE_CHARS = 300
MIN_ANSWER_TOKENS = 16  # a prompt that leaves less room is too long


class WorkerFailed(RuntimeError):
    """This worker cannot go on; its rows must go to another one."""


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """All that a worker needs to know; the same for every worker but for the address."""

    source: Source
    model_path: str
    sampling: SamplingOptions
    prompts: PromptConfig
    prompt_type: str | None  # None: as the sample says
    max_pixels: int | None
    max_prompt_tokens: int
    solved_threshold: float | None  # None: as the reward specification says
    image_root: str | None
    filters: Filters
    exclusion: Exclusion
    server: ServerOptions | None  # None: an address is given
    request_timeout_seconds: float = 1800.0
    num_reward_workers: int = 2
    rewards: RewardSettings = DEFAULT_SETTINGS  # of the training that the data is for
    agent: AgentPlan | None = None  # its tools


@dataclass(frozen=True, slots=True)
class Job:
    """One source row on its way through a worker."""

    position: int  # in the order of work, from 0
    row_number: int  # in the source, from 0
    sample_id: str
    row: Row


class Worker:
    """Filters, encodes, generates and scores; many rows at a time."""

    def __init__(self, plan: WorkerPlan, name: str, address: str | None = None) -> None:
        self.plan, self.name = plan, name
        self._server = Server(plan.server, name) if address is None and plan.server is not None else None
        self._address = address
        self._engine: Engine | None = None
        self._restarts = 0
        self._lock = asyncio.Lock()

    async def start(self) -> str:
        """Start the server if it is ours, load the processor, start the verifiers; returns the address.

        Raises ``ServerFailed`` or ``EngineDead`` when there is nothing to generate with.
        """
        from transformers import AutoProcessor

        from reward.pool import RewardPool

        self.plan.rewards.register()
        trusted = check_code(self.plan.model_path)
        if self._server is not None:
            self._address = await self._server.start()
        assert self._address is not None
        self._engine = Engine(self._address, request_timeout_seconds=self.plan.request_timeout_seconds)
        await self._engine.open()
        info = await self._engine.server_info()
        if not await self._engine.healthy():
            raise EngineDead(f"{self._address} is not healthy")
        if self.plan.sampling.seeded and info.get("enable_custom_logit_processor") is False:
            raise EngineDead(
                f"{self._address} was started without --enable-custom-logit-processor: use --sampling grouped"
            )
        self._processor = AutoProcessor.from_pretrained(self.plan.model_path, trust_remote_code=trusted)
        self._sampling = replace(
            self.plan.sampling,
            stop_token_ids=stop_token_ids(self.plan.model_path, self._processor),
            forbidden_token_ids=tuple(media_token_ids(self.plan.model_path)),
        )
        self._context_length = context_length(self.plan.model_path, info)
        self._threads = ThreadPoolExecutor(NUM_ENCODER_THREADS)
        self._per_thread = threading.local()
        self._rewards = RewardPool(self.plan.num_reward_workers)
        if self.plan.agent is not None:
            self._conversations = Conversations(self.plan.agent, self._processor, self.plan.max_pixels)
        return self._address

    async def close(self) -> None:
        """Stop what was started here."""
        if self._engine is not None:
            await self._engine.close()
        if hasattr(self, "_rewards"):
            self._rewards.close()
            if self.plan.agent is not None:
                self._conversations.close()
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._server is not None:
            self._server.stop()

    async def measure(self, job: Job) -> Record:
        """The record of one row: measured, or rejected with a reason. Raises ``WorkerFailed`` without a server."""
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        sample: Sample | None = None
        try:
            sample = await loop.run_in_executor(self._threads, self._prepare, job)
            encoded = await loop.run_in_executor(self._threads, self._encode, sample)
            if self.plan.agent is not None:
                attempts = await self._converse(sample, encoded)
            else:
                generations = await self._generate(sample, encoded)
                attempts = await self._score(sample, generations)
        except BadRow as error:
            return rejected_record(job, error.reason, str(error), sample)
        rule = resolve(sample.answer_type, sample.spec)
        header = {
            "kind": "measured",
            "position": job.position,
            "row_number": job.row_number,
            "sample": {**sample.to_row(), "images": []},
            "solved_threshold": rule.params["solved_threshold"],
            # As it was when this was judged: defaults may change before shards are written.
            "reward_rule": {
                "verifier": rule.verifier,
                "params": dict(rule.params),
                "weights": dict(rule.weights),
            },
            "num_prompt_tokens": len(encoded.input_ids),
            "attempts": attempts,
            "seconds": round(time.monotonic() - started, 3),
        }
        return Record(header, tuple(image["bytes"] for image in sample.images))

    def _prepare(self, job: Job) -> Sample:
        context = Context(job.sample_id, Path(self.plan.image_root) if self.plan.image_root else None)
        try:
            sample = self.plan.source.to_sample(job.row, context)
            if self.plan.prompt_type is not None:
                sample = sample.with_prompt_type(self.plan.prompt_type)
            if self.plan.solved_threshold is not None:
                # In the spec and not only here: training then pays the format part by the same threshold.
                spec = {**(sample.spec or {}), "solved_threshold": self.plan.solved_threshold}
                sample = replace(sample, spec=spec)
            check_reference(sample)
        except BadRow:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            # The row is foreign data: whatever shape it has, it costs itself and not the run.
            raise BadRow("bad-row", f"{job.sample_id}: {type(error).__name__}: {error}") from error
        reason = filter_reason(sample, self.plan.filters) or self.plan.exclusion.reason(sample)
        if reason:
            raise BadRow(reason, f"{job.sample_id}: {reason}")
        return sample

    def _encode(self, sample: Sample) -> Any:
        from dataset.encode import encode_prompt

        if not hasattr(self._per_thread, "processor"):
            # A fast tokenizer must not be used by two threads: it raises "Already borrowed".
            self._per_thread.processor = copy.deepcopy(self._processor)
        try:
            encoded = encode_prompt(
                self._per_thread.processor, sample, prompts=self.plan.prompts, max_pixels=self.plan.max_pixels
            )
        except ImageError as error:
            raise BadRow("corrupt-image", str(error)) from error
        except ValueError as error:
            raise BadRow("bad-prompt", str(error)) from error
        limit = min(self.plan.max_prompt_tokens, self._context_length - MIN_ANSWER_TOKENS)
        if len(encoded.input_ids) > limit:
            raise BadRow(
                "too-long", f"{sample.id}: prompt of {len(encoded.input_ids)} tokens, at most {limit}"
            )
        return encoded

    async def _generate(self, sample: Sample, encoded: Any) -> list[Generation]:
        return await self._ask(sample.id, encoded.input_ids, encoded.image_data, self._sampling)

    async def _converse(self, sample: Sample, encoded: Any) -> list[dict[str, Any]]:
        """The attempts as conversations with tools."""

        async def ask(name: str, ids: list[int], images: list[str], max_tokens: int) -> Generation:
            sampling = replace(self._sampling, num_attempts=1, max_tokens=max_tokens)
            return (await self._ask(name, ids, images, sampling))[0]

        try:
            found = await self._conversations.run(sample, encoded, ask, self._sampling.num_attempts)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        whole = [
            Generation(
                [token for token, generated in zip(t.tokens, t.mask, strict=True) if generated],
                "length" if t.truncated else "stop",
                None,
            )
            for t in found
        ]
        return await self._score(sample, whole, found)

    async def _ask(
        self, name: str, ids: list[int], images: Sequence[str], sampling: SamplingOptions
    ) -> list[Generation]:
        assert self._engine is not None
        # SGLang refuses what could exceed the context.
        room = self._context_length - len(ids) - 1
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        while True:
            address = self._address
            try:
                return await self._engine.generate(name, ids, images, sampling)
            except RequestFailed as error:
                raise BadRow("generation-failed", f"{name}: {error}") from error
            except EngineDead as error:
                await self._recover(address, error)

    async def _recover(self, address: str | None, error: EngineDead) -> None:
        """A new server in the place of a dead one of ours. Raises ``WorkerFailed`` when there can be none."""
        if self._server is None:
            raise WorkerFailed(str(error)) from error
        async with self._lock:
            if address != self._address:
                return  # another row has restarted it already
            tail = self._server.log_tail()
            self._server.stop()
            if self._restarts >= MAX_RESTARTS:
                raise WorkerFailed(
                    f"server {self.name} died {self._restarts + 1} times; end of {self._server.log_path}:\n{tail}"
                ) from error
            self._restarts += 1
            assert self._engine is not None
            await self._engine.close()
            try:
                self._address = await self._server.start()
            except ServerFailed as failure:
                raise WorkerFailed(str(failure)) from failure
            self._engine = Engine(self._address, request_timeout_seconds=self.plan.request_timeout_seconds)
            await self._engine.open()

    async def _score(
        self,
        sample: Sample,
        generations: Sequence[Generation],
        trajectories: Sequence[Trajectory] | None = None,
    ) -> list[dict[str, Any]]:
        texts = [decode(self._processor, generation.output_ids) for generation in generations]
        if trajectories is not None:
            texts = [trajectory.completion for trajectory in trajectories]
        try:
            outputs = await asyncio.gather(
                *(
                    self._rewards.score(
                        **self.plan.rewards.arguments(sample, text, num_tokens=len(generation.output_ids))
                    )
                    for text, generation in zip(texts, generations, strict=True)
                )
            )
        except ValueError as error:  # the reference could not be read by the verifier itself
            raise BadRow("bad-reference", f"{sample.id}: {error}") from error
        if trajectories is not None:
            outputs = [
                self._with_trajectory(sample, *pair) for pair in zip(outputs, trajectories, strict=True)
            ]
        if unjudged := [output.trace[0] for output in outputs if output.status in UNJUDGED]:
            raise BadRow("not-judged", f"{sample.id}: {len(unjudged)} attempts: {unjudged[0]}")
        return [
            {
                "text": text,
                "reward": output.total,
                "parts": dict(output.parts),
                "status": output.status,
                "finish_reason": generation.finish_reason,
                "num_tokens": len(generation.output_ids),
                "seed": generation.seed,
            }
            for text, output, generation in zip(texts, outputs, generations, strict=True)
        ]

    def _with_trajectory(self, sample: Sample, output: RewardOutput, trajectory: Trajectory) -> RewardOutput:
        threshold = resolve(sample.answer_type, sample.spec).params["solved_threshold"]
        steps = [step.to_record() for step in trajectory.steps]
        return score_trajectory(output, steps, trajectory.faults, self.plan.agent.weights, threshold)


def check_reference(sample: Sample) -> None:
    """Raises ``BadRow("bad-reference")`` when the verifier could not read a reference: before generating, not after."""
    from reward.score import check_reference as check

    try:
        check(sample.answer, sample.answer_type, sample.prompt_type, sample.spec)
    except ValueError as error:
        raise BadRow("bad-reference", f"{sample.id}: {error}") from error


def rejected_record(job: Job, reason: str, message: str, sample: Sample | None = None) -> Record:
    """The record of a row that was not measured."""
    header = {
        "kind": "rejected",
        "position": job.position,
        "row_number": job.row_number,
        "id": job.sample_id,
        "source": sample.source if sample is not None else None,
        "reason": reason,
        "message": message[:MAX_MESSAGE_CHARS],
    }
    return Record(header)


def decode(processor: Any, output_ids: Sequence[int]) -> str:
    """The text of generated ids, without special tokens."""
    return processor.tokenizer.decode(output_ids, skip_special_tokens=True)


def context_length(model_path: str, server_info: Mapping[str, Any]) -> int:
    """Tokens of prompt and answer together: what the server was started with, else what the model allows."""
    if server_info.get("context_length"):
        return int(server_info["context_length"])
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model_path, trust_remote_code=check_code(model_path))
    return int(config.get_text_config().max_position_embeddings)


def stop_token_ids(model_path: str, processor: Any) -> tuple[int, ...]:
    """Ids that end an answer: the tokenizer's and those of the checkpoint's generation configuration."""
    from transformers import GenerationConfig

    found: set[int] = set()
    if processor.tokenizer.eos_token_id is not None:
        found.add(int(processor.tokenizer.eos_token_id))
    try:
        configured = GenerationConfig.from_pretrained(model_path).eos_token_id
    except OSError:  # a checkpoint without generation_config.json
        configured = None
    if configured is not None:
        found |= {int(i) for i in (configured if isinstance(configured, list) else [configured])}
    return tuple(sorted(found))
