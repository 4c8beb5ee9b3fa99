"""N answers to one encoded prompt from an SGLang server, over HTTP."""

import asyncio
import json
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from dataset.curate.sampling import attempt_seed, seeded_processor
from dataset.media_tokens import logit_bias

NUM_TRIES = 4
BACKOFF_SECONDS = 0.5
HEALTH_TIMEOUT_SECONDS = 10.0
MAX_ERROR_CHARS = 500


class EngineDead(RuntimeError):
    """The server does not answer any more; its work must go elsewhere."""


class RequestFailed(RuntimeError):
    """The server is well but refuses or cannot finish this request: the sample is rejected, the run goes on."""


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How answers are sampled; the same for every sample of a run."""

    num_attempts: int
    temperature: float
    max_tokens: int
    seed: int
    seeded: bool  # one request per attempt with its own seed; else one request with n = num_attempts
    stop_token_ids: tuple[int, ...] = ()
    forbidden_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """One generated answer."""

    output_ids: list[int]
    finish_reason: str  # "stop" or "length"
    seed: int | None


class Engine:
    """A client of one server. Transport errors are retried; a server that is gone raises ``EngineDead``."""

    def __init__(self, address: str, *, request_timeout_seconds: float = 1800.0) -> None:
        self.address = address if address.startswith("http") else f"http://{address}"
        self._timeout = aiohttp.ClientTimeout(total=request_timeout_seconds, sock_connect=10)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Open the connection pool; the event loop that calls this must make all later calls."""
        self._session = aiohttp.ClientSession(timeout=self._timeout, connector=aiohttp.TCPConnector(limit=0))

    async def close(self) -> None:
        """Close the connection pool."""
        if self._session is not None:
            await self._session.close()

    async def server_info(self) -> dict[str, Any]:
        """The server's settings. Raises ``EngineDead`` when it does not answer."""
        return await self._get_json("/server_info")

    async def healthy(self) -> bool:
        """Whether the server answers its health check."""
        assert self._session is not None
        try:
            timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_SECONDS)
            async with self._session.get(f"{self.address}/health", timeout=timeout) as reply:
                return reply.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def generate(
        self, sample_id: str, input_ids: list[int], image_data: Sequence[str], options: SamplingOptions
    ) -> list[Generation]:
        """`options.num_attempts` answers to one prompt, in the order of attempts.

        Raises ``RequestFailed`` for a request that the server cannot serve, ``EngineDead`` when the server is gone.
        """
        base: dict[str, Any] = {"input_ids": input_ids}
        if image_data:
            base["image_data"] = list(image_data)
        parameters: dict[str, Any] = {
            "temperature": options.temperature,
            "max_new_tokens": options.max_tokens,
            "skip_special_tokens": False,
        }
        if options.stop_token_ids:
            parameters["stop_token_ids"] = list(options.stop_token_ids)
        if options.forbidden_token_ids:
            parameters["logit_bias"] = logit_bias(options.forbidden_token_ids)
        if not options.seeded:
            payload = {**base, "sampling_params": {**parameters, "n": options.num_attempts}}
            if image_data and options.num_attempts > 1:
                payload["image_data"] = [
                    list(image_data)
                ]  # a batch of one, or several images would be a batch
            return _generations(await self._post(payload), [None] * options.num_attempts)
        seeds = [attempt_seed(options.seed, sample_id, i) for i in range(options.num_attempts)]
        replies = await _all_or_cancel(
            [self._post(self._seeded(base, parameters, s, options)) for s in seeds]
        )
        return _generations(replies, seeds)

    def _seeded(
        self, base: dict[str, Any], parameters: dict[str, Any], seed: int, options: SamplingOptions
    ) -> dict[str, Any]:
        if options.temperature == 0:
            return {**base, "sampling_params": parameters}
        custom = {"seed": seed, "temperature": options.temperature}
        return {
            **base,
            "sampling_params": {**parameters, "custom_params": custom},
            "custom_logit_processor": seeded_processor(),
        }

    async def _post(self, payload: dict[str, Any]) -> Any:
        assert self._session is not None
        last = ""
        for attempt in range(NUM_TRIES):
            if attempt:
                await asyncio.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
            try:
                async with self._session.post(f"{self.address}/generate", json=payload) as reply:
                    text = await reply.text()
                    status = reply.status
            except TimeoutError as error:
                raise RequestFailed(f"no answer within {self._timeout.total:.0f} s") from error
            except (aiohttp.ClientError, OSError) as error:
                last = f"{type(error).__name__}: {error}"
                continue
            if status == 200:
                reply_json = json.loads(text)
                if not _aborted(reply_json):
                    return reply_json
                last = "the server aborted the request"
            elif 400 <= status < 500:
                raise RequestFailed(f"status {status}: {text[:MAX_ERROR_CHARS]}")
            else:
                last = f"status {status}: {text[:MAX_ERROR_CHARS]}"
        if await self.healthy():
            raise RequestFailed(f"{NUM_TRIES} tries, last: {last}")
        raise EngineDead(f"{self.address} does not answer ({last})")

    async def _get_json(self, path: str) -> dict[str, Any]:
        assert self._session is not None
        try:
            async with self._session.get(self.address + path) as reply:
                return json.loads(await reply.text()) if reply.status == 200 else {}
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EngineDead(f"{self.address} does not answer: {error}") from error


def accepts_seeds(address: str) -> bool:
    """Whether the server at an address runs custom logit processors; False when it does not say."""
    url = (address if address.startswith("http") else f"http://{address}") + "/server_info"
    try:
        with urllib.request.urlopen(url, timeout=HEALTH_TIMEOUT_SECONDS) as reply:
            return bool(json.loads(reply.read()).get("enable_custom_logit_processor"))
    except (OSError, ValueError):
        return False


async def _all_or_cancel(calls: Sequence[Any]) -> list[Any]:
    """Results of all calls in order; the first failure cancels the rest, so that no request is left behind."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _aborted(reply: Any) -> bool:
    replies = reply if isinstance(reply, list) else [reply]
    return any(
        ((r.get("meta_info") or {}).get("finish_reason") or {}).get("type") == "abort" for r in replies
    )


def _generations(replies: Any, seeds: Sequence[int | None]) -> list[Generation]:
    replies = replies if isinstance(replies, list) else [replies]
    if len(replies) != len(seeds):
        raise RequestFailed(f"asked for {len(seeds)} answers, got {len(replies)}")
    generations = []
    for reply, seed in zip(replies, seeds, strict=True):
        if not isinstance(reply.get("output_ids"), list):
            raise RequestFailed(f"the reply has no output_ids: {str(reply)[:MAX_ERROR_CHARS]}")
        finish = ((reply.get("meta_info") or {}).get("finish_reason") or {}).get("type") or "stop"
        generations.append(Generation([int(i) for i in reply["output_ids"]], finish, seed))
    return generations
