"""The rollout client: AReaL's SGLang engine with a strict staleness bound, exact versions and no media tokens."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import requests
from areal.api import ModelRequest, WeightUpdateMeta
from areal.api.cli_args import InferenceEngineConfig
from areal.api.io_struct import HttpGenerationResult, HttpRequest
from areal.engine.sglang_remote import RemoteSGLangEngine, SGLangBackend

from dataset.media_tokens import logit_bias
from trains.buffer import Prompts, RingBuffer
from trains.config import BufferConfig
from trains.host.executor import Executor
from trains.host.servers import Keeper, Membership, ServedEngine
from trains.host.streak import SharedStreak
from trains.types import Group

ABORT_SECONDS = 1.0  # to wait for the answers to aborted requests; SGLang itself would wait as long
IDLE_SECONDS = 60  # for a scheduler to clear away the requests that it has answered


class RecordingBackend(SGLangBackend):
    """Notes under which version each piece of an answer was requested, and forbids tokens at sampling.

    AReaL tags tokens with the version read after the response has arrived, which may already be the next one. A
    weight update aborts every request, so all tokens of a request come from the weights at its start.
    """

    def __init__(self, forbidden_token_ids: list[int]):
        self.logit_bias = logit_bias(forbidden_token_ids)
        self.num_open = 0  # requests that were sent and not answered
        self.num_generated = 0  # tokens of all answers so far
        self.stop_token_ids: frozenset[int] = frozenset()  # of this client's requests, which are all alike
        self._answers: dict[str, list[int]] = {}  # by request: answers that are given, not drawn

    def build_generation_request(self, req: ModelRequest, with_lora: bool, version: int) -> HttpRequest:
        request = super().build_generation_request(req, with_lora, version)
        if self.logit_bias:
            request.payload["sampling_params"]["logit_bias"] = self.logit_bias
        self.stop_token_ids = frozenset(request.payload["sampling_params"].get("stop_token_ids") or ())
        req.metadata["segments"].append((len(req.input_ids), version))
        self.num_open += 1
        if "answer" in req.metadata:
            self._score_instead(request.payload, req)
        return request

    def _score_instead(self, payload: dict[str, Any], req: ModelRequest) -> None:
        """Ask for the log-probabilities of `metadata["answer"]`, token ids, in place of an answer of the server's."""
        request_id, answer = uuid.uuid4().hex, req.metadata["answer"]  # `req.rid` is that of the whole group
        self._answers[request_id] = answer
        payload |= {
            "rid": request_id,
            "input_ids": req.input_ids + answer,
            "logprob_start_len": len(req.input_ids) - 1,
            "sampling_params": {"max_new_tokens": 1, "temperature": req.gconfig.temperature},
        }

    def parse_generation_response(self, response: dict[str, Any]) -> HttpGenerationResult:
        self.num_open -= 1
        answer, meta = self._answers.pop(response["meta_info"].get("id"), None), response["meta_info"]
        if answer is None:
            result = super().parse_generation_response(response)
            self.num_generated += len(result.output_tokens)
            if result.stop_reason == "abort" and self._has_ended(result.output_tokens):
                # SGLang calls an answer aborted although its last token was its end; asked for more, it would go on
                result.stop_reason = "stop"
            return result
        if meta["finish_reason"]["type"] == "abort":  # by a weight update: asked again afterwards
            return HttpGenerationResult(output_tokens=[], output_logprobs=[], stop_reason="abort")
        # the entry of the token before the answer comes first
        logprobs = [entry[0] for entry in meta["input_token_logprobs"][1:]]
        return HttpGenerationResult(output_tokens=answer, output_logprobs=logprobs, stop_reason="stop")

    def _has_ended(self, tokens: list[int]) -> bool:
        return bool(tokens) and tokens[-1] in self.stop_token_ids


class BoundedRollout(RemoteSGLangEngine):
    """AReaL's remote SGLang engine whose `prepare_batch` serves from a `RingBuffer`."""

    def __init__(self, config: InferenceEngineConfig, buffer: BufferConfig, forbidden_token_ids: list[int]):
        super().__init__(config)
        self._buffer_options = buffer
        self._engine = ServedEngine(config, RecordingBackend(forbidden_token_ids))
        self.keeper: Keeper | None = None  # of the first trainer rank
        self.executor: Executor | None = None
        self.buffer: RingBuffer | None = None
        self.waited_seconds = 0.0  # for the last batch; sharing it out among the ranks is not in it
        self._prompts = None

    def initialize(self, engine_id=None, addr=None, train_data_parallel_size: int | None = None) -> None:
        """Connect to the servers; `train_data_parallel_size` shares batch and capacity among the ranks."""
        super().initialize(engine_id, addr or self._engine.members.wait_for_all(), train_data_parallel_size)
        ranks = train_data_parallel_size or 1
        self.executor = Executor(self._engine.workflow_executor)
        self.buffer = RingBuffer(
            self.executor,
            batch_size=self.config.consumer_batch_size // ranks,
            max_staleness=self.config.max_head_offpolicyness,
            dropped=SharedStreak("without_signal") if ranks > 1 else None,
            num_ranks=ranks,
            **asdict(self._buffer_options),
        )

    def keep_servers(self, meta: WeightUpdateMeta) -> None:
        """On the first rank: hand over weights from here, and look after servers that come back."""
        self.keeper = Keeper(self._engine, meta)
        if self._engine.members.folder is not None:
            self.keeper.start()

    def load_weights(self, meta: WeightUpdateMeta) -> None:
        """Have all servers read the files of `meta`, those that are lost meanwhile aside."""
        self._engine.load_weights(meta)

    @property
    def servers(self) -> Membership:
        """Which servers there are."""
        return self._engine.members

    def destroy(self) -> None:
        """As AReaL's."""
        super().destroy()
        if self.keeper is not None:
            self.keeper.close()

    def prepare_batch(
        self, dataloader, workflow, *args, give_up: Callable[[], bool] | None = None, **kwargs
    ) -> list[Group] | None:
        """One batch of groups within the staleness bound; generation goes on meanwhile and afterwards. None where
        `give_up` says so before it is there; what is there stays for the next call.
        """
        del args, kwargs  # AReaL's grouping and filters: the workflow and the buffer do both
        if self._prompts is None:
            self._prompts = Prompts(dataloader)
            self.buffer.leave_out = lambda row, reason: dataloader.leave_out(row["place"], row["id"], reason)
        start = time.perf_counter()
        batch = self.buffer.next_batch(self._prompts, workflow, self.get_version, give_up)
        if batch is None:
            return None
        self.waited_seconds = time.perf_counter() - start
        # the first one is probed (trains/parity.py); images need not travel with the others
        for group in batch[1:]:
            group["info"][0].image_data = group["info"][0].rollout_image_data = None
        return batch

    def pause_generation(self) -> None:
        """As AReaL's, with every request aborted beforehand and none left afterwards.

        Asked to pause while one is under way, SGLang 0.5.10 aborts it and looks again after a whole second. It counts
        as paused as soon as all are answered, but its scheduler lets go of them one turn of its loop later; new weights
        that come in between, as on a machine with more to do than processors, are the end of it (its assertion that
        the cache could be flushed).
        """
        self._engine._run_request_on_all_servers(HttpRequest("/abort_request", {"abort_all": True}))
        backend, deadline = self._engine.backend, time.monotonic() + ABORT_SECONDS
        while backend.num_open > 0 and time.monotonic() < deadline:
            time.sleep(0.002)
        super().pause_generation()
        self._engine._run_request_on_all_servers(HttpRequest(f"/flush_cache?timeout={IDLE_SECONDS}", {}))
        backend.num_open = 0  # a request that failed has no answer

    def state_dict(self) -> dict[str, Any]:
        """The ring buffer's state, with the prompts that were drawn from the data and not yet submitted."""
        state = self.buffer.state_dict()
        drawn = list(self._prompts.drawn) if self._prompts is not None else []
        return {**state, "undelivered": state["undelivered"] + drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore before the first `prepare_batch`."""
        self.buffer.load_state_dict(state)

    @property
    def num_generated(self) -> int:
        """Tokens that the servers have answered this client with since the start, whatever became of them."""
        return self._engine.backend.num_generated

    @property
    def server_url(self) -> str:
        """Address of one of the servers. Raises `requests.ConnectionError` where none is there."""
        addresses = self._engine.addresses
        if not addresses:
            raise requests.ConnectionError("no server is there")
        return f"http://{addresses[0]}"

    def recover(self, version: int) -> None:
        """Go on behind `version` after a restart."""
        self.executor.recover(version)


def token_versions(segments: list[tuple[int, int]], num_prompt: int, num_tokens: int) -> list[int]:
    """Version of each token of a finished sequence `[num_tokens]`; -1 on the prompt.

    `segments` holds (tokens known at the start of a request, weights version of that request), in order. A request
    that was aborted before its first token leaves an empty segment.

    >>> token_versions([(3, 7), (5, 8)], num_prompt=3, num_tokens=6)
    [-1, -1, -1, 7, 7, 8]
    """
    versions = [-1] * num_prompt
    starts = [start for start, _ in segments] + [num_tokens]
    for (start, version), end in zip(segments, starts[1:], strict=True):
        versions += [version] * (end - start)
    return versions
