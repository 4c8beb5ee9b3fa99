"""The chat interface of OpenAI in front of SGLang servers, so that lmms-eval asks in the way of training.

lmms-eval's model `async_openai` sends messages with images; this renders them with the checkpoint's chat template,
brings images to the model's size, and sends token ids to the servers' `/generate`, through `dataset.encode` and
`dataset.curate.engine` as curation and offline evaluation do. The servers may be those of a training run; nothing is
tokenised twice.
A request that cannot be served is answered with status 400 and the reason, which the evaluation counts afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import copy
import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web

from dataset.curate.engine import Engine, EngineDead, RequestFailed, SamplingOptions
from dataset.curate.worker import (
    MIN_ANSWER_TOKENS,
    NUM_ENCODER_THREADS,
    context_length,
    decode,
    stop_token_ids,
)
from dataset.encode import EncodedPrompt, encode_messages, image_limits
from dataset.images import decode_image, resize_to_limits
from dataset.media_tokens import media_token_ids
from llavaonevision1_5.shims import check_code

MAX_BODY_BYTES = 2**30  # a prompt of many photographs
DATA_URL = "base64,"


class BadRequest(ValueError):
    """A request that no server can answer; the message says why."""


class Gateway:
    """One checkpoint behind `http://127.0.0.1:PORT/v1`; requests go to the servers in turn."""

    def __init__(self, model_path: str, addresses: Sequence[str]) -> None:
        self.model_path = model_path
        self._engines = [Engine(address) for address in addresses]
        self._turn = itertools.cycle(self._engines)
        self._per_thread = threading.local()
        self._runner: web.AppRunner | None = None
        self.num_served, self.num_refused, self.num_cut = 0, 0, 0  # cut: ended by max_tokens

    async def start(self, port: int = 0) -> str:
        """Serve on 127.0.0.1; returns the base URL. Raises ``EngineDead`` when a server does not answer, OSError for
        a port that is taken.
        """
        from transformers import AutoProcessor

        lengths = []
        for engine in self._engines:
            await engine.open()
            lengths.append(context_length(self.model_path, await engine.server_info()))
        self._context_length = min(lengths)
        trusted = check_code(self.model_path)
        self._processor = AutoProcessor.from_pretrained(self.model_path, trust_remote_code=trusted)
        self._stop = stop_token_ids(self.model_path, self._processor)
        self._forbidden = tuple(media_token_ids(self.model_path))
        self._threads = ThreadPoolExecutor(NUM_ENCODER_THREADS)
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def close(self) -> None:
        """Stop serving; the servers stay."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._threads.shutdown(wait=False, cancel_futures=True)
        for engine in self._engines:
            await engine.close()

    async def _complete(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
            reply = await self._answer(body)
        except (BadRequest, RequestFailed, ValueError) as error:
            self.num_refused += 1
            return web.json_response(
                {"error": {"message": str(error), "type": "invalid_request"}}, status=400
            )
        except EngineDead as error:
            return web.json_response({"error": {"message": str(error), "type": "server_error"}}, status=503)
        self.num_served += 1
        return web.json_response(reply)

    async def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        encoded = await loop.run_in_executor(self._threads, self._encode, body.get("messages"))
        # SGLang refuses what could exceed the context.
        room = self._context_length - len(encoded.input_ids) - 1
        if room < MIN_ANSWER_TOKENS:
            raise BadRequest(
                f"a prompt of {len(encoded.input_ids)} tokens, the context holds {self._context_length}"
            )
        sampling = SamplingOptions(
            num_attempts=1,
            temperature=float(body.get("temperature") or 0.0),
            max_tokens=min(int(body.get("max_tokens") or room), room),
            seed=0,
            seeded=False,
            stop_token_ids=self._stop,
            forbidden_token_ids=self._forbidden,
        )
        engine = next(self._turn)
        (answer,) = await engine.generate("chat", encoded.input_ids, encoded.image_data, sampling)
        self.num_cut += answer.finish_reason == "length"
        num_prompt, num_answer = len(encoded.input_ids), len(answer.output_ids)
        message = {"role": "assistant", "content": decode(self._processor, answer.output_ids)}
        return {
            "id": f"chatcmpl-{self.num_served}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.get("model", ""),
            "choices": [{"index": 0, "message": message, "finish_reason": answer.finish_reason}],
            "usage": {
                "prompt_tokens": num_prompt,
                "completion_tokens": num_answer,
                "total_tokens": num_prompt + num_answer,
            },
        }

    def _encode(self, messages: Any) -> EncodedPrompt:
        if not hasattr(self._per_thread, "processor"):
            # A fast tokenizer must not be used by two threads: it raises "Already borrowed".
            self._per_thread.processor = copy.deepcopy(self._processor)
        processor = self._per_thread.processor
        parts, contents = chat_parts(messages)
        limits = image_limits(processor)
        images = [
            resize_to_limits(
                decode_image({"bytes": content}, "chat"),
                factor=limits.factor,
                min_pixels=limits.min_pixels,
                max_pixels=limits.max_pixels,
            )
            for content in contents
        ]
        return encode_messages(processor, parts, images, "chat")


def chat_parts(messages: Any) -> tuple[list[dict], list[bytes]]:
    """Messages with `{"type": "image"}` and `{"type": "text"}` parts, and the images' bytes in their order.

    Raises ``BadRequest`` for anything but texts and images as data URLs.
    """
    if not isinstance(messages, list) or not messages:
        raise BadRequest("the request has no messages")
    found: list[dict] = []
    images: list[bytes] = []
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        parts = []
        for part in content:
            if part["type"] == "text":
                parts.append({"type": "text", "text": part["text"]})
            elif part["type"] == "image_url":
                images.append(_bytes_of(part["image_url"]["url"]))
                parts.append({"type": "image"})
            else:
                raise BadRequest(f"a part of type {part['type']!r}; wanted text or image_url")
        found.append({"role": message["role"], "content": parts})
    return found, images


def _bytes_of(url: str) -> bytes:
    head, mark, data = url.partition(DATA_URL)
    if not mark or not head.startswith("data:image/"):
        raise BadRequest(f"an image at {url[:40]!r}; wanted a data URL")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise BadRequest(f"an image that is not base64: {error}") from error
