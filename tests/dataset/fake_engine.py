"""A server that speaks SGLang's `/generate` for tests: answers depend on prompt and seed alone, no model runs.

    python tests/dataset/fake_engine.py --checkpoint DIR --port-file FILE [--latency SECONDS] [--fail-first N]

`--fail-first` makes the first N requests end without an answer. POST /die makes it vanish like a killed process.
"""

import argparse
import asyncio
import hashlib
import os
from pathlib import Path

from aiohttp import web
from tokenizers import Tokenizer

ANSWERS = {"even or odd": ("yes", "no"), "A. ": tuple("ABCD"), "box": ("[0, 0, 56, 56]", "[28, 28, 84, 84]")}
DIGITS = tuple("0123456789")


def answer_ids(tokenizer, input_ids: list[int], seed: int) -> list[int]:
    """A plausible answer: which one is a function of the prompt's ids and the seed."""
    prompt = tokenizer.decode(input_ids)
    choices = next((a for words, a in ANSWERS.items() if words in prompt), None)
    if choices is None:
        choices = ("yes", "no") if "even?" in prompt or "odd?" in prompt else DIGITS
    digest = hashlib.sha256(f"{seed}:{input_ids}".encode()).digest()
    return tokenizer.encode(
        f"<answer>{choices[digest[0] % len(choices)]}</answer>", add_special_tokens=False
    ).ids


def make_app(checkpoint: str, latency: float, fail_first: int) -> web.Application:
    tokenizer = Tokenizer.from_file(str(Path(checkpoint) / "tokenizer.json"))
    state = {"requests": 0, "in_flight": 0, "most_in_flight": 0}

    async def generate(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        state["requests"] += 1
        if not body["sampling_params"].get(
            "logit_bias"
        ):  # a policy that may sample media tokens is no measurement
            return web.Response(status=400, text="no logit_bias")
        if state["requests"] <= fail_first:
            request.transport.close()
            return web.Response(status=500)
        state["in_flight"] += 1
        state["most_in_flight"] = max(state["most_in_flight"], state["in_flight"])
        parameters = body["sampling_params"]
        seed = (parameters.get("custom_params") or {}).get("seed")
        replies = []
        for i in range(parameters.get("n", 1)):
            ids = answer_ids(tokenizer, body["input_ids"], i if seed is None else seed)
            info = {"finish_reason": {"type": "stop"}, "completion_tokens": len(ids)}
            replies.append({"output_ids": ids, "meta_info": info})
        await asyncio.sleep(latency)
        state["in_flight"] -= 1
        return web.json_response(replies if "n" in parameters else replies[0])

    async def info(request: web.Request) -> web.Response:
        return web.json_response({"enable_custom_logit_processor": True, **state})

    async def health(request: web.Request) -> web.Response:
        return web.Response()

    async def die(request: web.Request) -> web.Response:
        os._exit(9)

    app = web.Application(client_max_size=1 << 28)
    app.add_routes(
        [
            web.post("/generate", generate),
            web.get("/server_info", info),
            web.get("/health", health),
            web.post("/die", die),
        ]
    )
    return app


async def serve(arguments: argparse.Namespace) -> None:
    runner = web.AppRunner(make_app(arguments.checkpoint, arguments.latency, arguments.fail_first))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    temporary = Path(arguments.port_file + ".tmp")
    temporary.write_text(str(port))
    temporary.rename(arguments.port_file)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--port-file", required=True)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--fail-first", type=int, default=0)
    asyncio.run(serve(parser.parse_args()))
