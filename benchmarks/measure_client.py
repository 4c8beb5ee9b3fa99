"""What the trainer's own side of a rollout costs: AReaL's executor, workflow and verifiers, without generation.

A stub in a process of its own answers every request at once with a fixed text, so what remains is preparing prompts,
requests and responses, scoring, and making tensors.
"""

from __future__ import annotations

import multiprocessing
import time
import urllib.error
import urllib.request
from dataclasses import replace
from itertools import islice
from typing import Any

from aiohttp import web
from areal.utils.hf_utils import load_hf_processor_and_tokenizer

from dataset.loader import create_dataloader
from reward.pool import RewardPool
from sglang_cpu.process import free_port
from trains.buffer import Prompts
from trains.host.rollout import BoundedRollout
from trains.workflow import VisionRolloutWorkflow

ANSWER = "<answer>7</answer>"
NUM_GROUPS = 64


def measure_client(checkpoint: str, config: Any) -> float:
    """Seconds of the trainer's process per group of G rollouts (`client_seconds` of the pipeline model)."""
    processor, _ = load_hf_processor_and_tokenizer(checkpoint)
    tokens = [*processor.tokenizer(ANSWER)["input_ids"], config.gconfig.stop_token_ids[0]]
    port = free_port()
    stub = multiprocessing.get_context("spawn").Process(target=_serve, args=(port, tokens), daemon=True)
    stub.start()
    pool = RewardPool(num_workers=config.reward.num_workers)
    unbounded = replace(config.rollout, max_head_offpolicyness=10**6)  # room for all groups at once
    rollout = BoundedRollout(unbounded, config.buffer, [])
    try:
        _wait_for(f"http://127.0.0.1:{port}/health")
        rollout.initialize(addr=f"127.0.0.1:{port}", train_data_parallel_size=1)
        workflow = VisionRolloutWorkflow(processor, config.gconfig, pool, forbidden_token_ids=[])
        loader = create_dataloader(config.train_dataset.path, processor, batch_size=16)
        rows = list(islice(Prompts(loader), 2 * NUM_GROUPS))
        _roll_out(rollout, workflow, rows[:NUM_GROUPS])  # warm-up
        start = time.perf_counter()
        _roll_out(rollout, workflow, rows[NUM_GROUPS:])
        return (time.perf_counter() - start) / NUM_GROUPS
    finally:
        rollout.destroy()
        pool.close()
        stub.kill()


def _roll_out(rollout: BoundedRollout, workflow: VisionRolloutWorkflow, rows: list[dict]) -> None:
    executor = rollout.workflow_executor
    for key, row in enumerate(rows):
        executor.submit({"key": key, "prompt": row}, workflow)
    for group in executor.wait(len(rows), timeout=300):
        if "failure" in group:
            raise RuntimeError(group["failure"].message)


def _serve(port: int, tokens: list[int]) -> None:
    async def generate(request: web.Request) -> web.Response:
        wanted = (await request.json())["sampling_params"]["max_new_tokens"]
        logprobs = [[-0.5, token, None] for token in tokens[:wanted]]
        reason = "stop" if wanted >= len(tokens) else "length"
        return web.json_response(
            {"text": "", "meta_info": {"finish_reason": {"type": reason}, "output_token_logprobs": logprobs}}
        )

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(client_max_size=2**30)
    app.add_routes([web.post("/generate", generate), web.get("/health", health)])
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


def _wait_for(url: str, timeout_seconds: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")
