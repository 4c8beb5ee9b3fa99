"""What one CPU server does alone, on the demo's own prompts: the rollout side of the pipeline model's parameters.

Requests are those of training: prompts with an image, G at once for each, tokens in and tokens out, with
log-probabilities. The server's first answers are thrown away.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
from areal.utils.hf_utils import load_hf_processor_and_tokenizer

from dataset.encode import EncodedPrompt, encode_prompt
from dataset.shards import open_rows
from utils.sample import Sample

BATCH_SIZES = (1, 8, 32, 64, 128)  # requests at once
NUM_TOKENS = 33  # of a timed answer; the first one is the prefill's
REPEATS = 3
NUM_PROMPTS = 256  # at least (1 + 2 REPEATS) x the groups in BATCH_SIZES
NUM_LENGTHS = 512  # answers sampled for the distribution of lengths


def measure_server(checkpoint: str, config: Any, output: Path) -> dict[str, Any]:
    """Parameters `decode_seconds`, `prefill_seconds` and `measured_tokens` of `utils.doctor.pipeline_parameters`.

    `config` is the checked configuration of the job (`trains.config.Config`).
    """
    from llavaonevision1_5 import sglang_environment
    from sglang_cpu.process import running_server

    options = {
        "max-running-requests": config.sglang.max_running_requests,
        "skip-tokenizer-init": True,
        "enable-multimodal": True,
    }
    output.mkdir(parents=True, exist_ok=True)
    prompts = _prompts(checkpoint, config)
    with running_server(
        checkpoint, log_path=output / "server_alone.log", options=options, environment=sglang_environment()
    ) as url:
        return asyncio.run(_measure(url, prompts, config.gconfig))


def _prompts(checkpoint: str, config: Any) -> list[EncodedPrompt]:
    processor, _ = load_hf_processor_and_tokenizer(checkpoint)
    rows = open_rows(config.train_dataset.path)
    samples = [
        Sample.from_row(rows.read(index)) for index in range(0, len(rows), max(len(rows) // NUM_PROMPTS, 1))
    ]
    return [
        encode_prompt(processor, sample, max_pixels=config.train_dataset.max_pixels) for sample in samples
    ]


async def _measure(url: str, prompts: list[EncodedPrompt], gconfig: Any) -> dict[str, Any]:
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=600), connector=aiohttp.TCPConnector(limit=0)
    ) as session:

        async def generate(index: int, **sampling: Any) -> int:
            prompt = prompts[index // gconfig.n_samples % len(prompts)]
            payload = {
                "input_ids": prompt.input_ids,
                "image_data": prompt.image_data,
                "sampling_params": {"temperature": gconfig.temperature, **sampling},
                "return_logprob": True,
            }
            async with session.post(f"{url}/generate", json=payload) as response:
                response.raise_for_status()
                return (await response.json())["meta_info"]["completion_tokens"]

        async def seconds(num_requests: int, num_tokens: int) -> float:
            first = next_index[0]
            next_index[0] += -(-num_requests // gconfig.n_samples) * gconfig.n_samples
            start = time.perf_counter()
            await asyncio.gather(
                *(
                    generate(first + i, max_new_tokens=num_tokens, ignore_eos=True)
                    for i in range(num_requests)
                )
            )
            return time.perf_counter() - start

        next_index = [0]  # no prompt comes twice: the server would remember it
        decode, prefill = {}, {}
        for num_requests in BATCH_SIZES:
            await seconds(num_requests, NUM_TOKENS)
            short = long = 0.0
            for _ in range(REPEATS):
                long += await seconds(num_requests, NUM_TOKENS)
                short += await seconds(num_requests, 1)
            decode[str(num_requests)] = (long - short) / REPEATS / (NUM_TOKENS - 1)
            prefill[num_requests] = short / REPEATS / num_requests
        lengths = await asyncio.gather(
            *(
                generate(i, max_new_tokens=gconfig.max_new_tokens, stop_token_ids=gconfig.stop_token_ids)
                for i in range(NUM_LENGTHS)
            )
        )
    return {
        "decode_seconds": decode,
        "prefill_seconds": prefill[max(BATCH_SIZES)],
        "measured_tokens": sorted(lengths),
    }
