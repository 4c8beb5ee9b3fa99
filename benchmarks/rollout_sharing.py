"""What a server spends on a rollout whose prompt and image fifteen others share, with the sharing and without it.

    python -m benchmarks.rollout_sharing --output runs/rollout_sharing.json

Groups of G requests with one image each, short answers, one CPU server, SGLang's scheduling as AReaL sets it (longest
prefix first). `apart`: each request carries its image and its patches travel to the scheduler with it, features are
not kept, and attention is SGLang's own, as it was before groups shared anything. `shared`: as training asks now, by a
path, with patches in memory that the processes share, features kept, attention for new tokens alone and decoding in
batches, and one token of the prompt before the group's requests. Both in turn and repeatedly on one machine, each on a
server that has answered as many other prompts before; processor time is that of all processes of the server. Each
prompt comes once.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
from areal.utils.hf_utils import load_hf_processor_and_tokenizer
from PIL import Image

from dataset.encode import EncodedPrompt, encode_prompt
from llavaonevision1_5 import sglang_environment
from llavaonevision1_5.tiny import build_config, build_tiny_checkpoint
from sglang_cpu.process import running_server
from trains.image_files import ImageFiles
from utils.sample import Sample

SIDES = (504, 1008)
GROUP, ANSWER_TOKENS, PROMPTS, ROUNDS = 16, 16, 4, 3
MODES: dict[str, dict[str, Any]] = {
    "apart": {"environment": {"SGLANG_VLM_CACHE_SIZE_MB": "0"}, "module": "benchmarks.plain_server"},
    "shared": {},
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--sides",
        type=int,
        nargs="+",
        default=SIDES,
        metavar="PIXELS",
        help="of the square images; multiples of 28",
    )
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args(argv)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = build_tiny_checkpoint(
            Path(folder) / "checkpoint", config=build_config(suppress_media_tokens=True), max_pixels=1_300_000
        )
        for side in arguments.sides:
            measured: dict[str, list[tuple[dict[str, float], float]]] = {mode: [] for mode in MODES}
            for index in range(arguments.rounds):
                for mode in MODES:
                    measured[mode].append(measure(mode, checkpoint, side, seed=index, folder=Path(folder)))
            results.append(summary(side, measured))
            print(line(results[-1]), flush=True)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def make_prompts(checkpoint: Path, side: int, count: int, seed: int) -> list[EncodedPrompt]:
    """Prompts with one square image of coarse noise each, which no other call gives again."""
    processor, _ = load_hf_processor_and_tokenizer(str(checkpoint))
    generator = np.random.default_rng((seed, side))
    prompts = []
    for index in range(count):
        noise = generator.integers(0, 256, (side // 14, side // 14, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).resize((side, side)).save(file, "PNG")
        row = {
            "id": str(index), "images": [file.getvalue()], "problem": "<image>What is it?", "answer": ["1"],
            "problem_type": "noise", "answer_type": "number", "source": "noise", "prompt_type": "answer",
        }  # fmt: skip
        prompts.append(encode_prompt(processor, Sample.from_row(row)))
    return prompts


def measure(
    mode: str, checkpoint: Path, side: int, *, seed: int, folder: Path
) -> tuple[dict[str, float], float]:
    """(processor milliseconds a rollout by process, prompts a second) of a fresh server."""
    options = {"max-running-requests": 128, "schedule-policy": "lpm"}
    choice = dict(MODES[mode])
    environment = sglang_environment() | choice.pop("environment", {})
    with running_server(
        checkpoint, log_path=folder / f"{mode}.log", options=options, environment=environment, **choice
    ) as url:
        server = psutil.Process().children(recursive=True)
        files = ImageFiles(folder / "images") if mode == "shared" else None
        asyncio.run(roll_out(url, make_prompts(checkpoint, side, PROMPTS, 1000 + seed), files))  # warms up
        prompts = make_prompts(checkpoint, side, PROMPTS, seed)
        used, start = processor_seconds(server), time.perf_counter()
        asyncio.run(roll_out(url, prompts, files))
        seconds = time.perf_counter() - start
        spent = {name: value - used[name] for name, value in processor_seconds(server).items()}
        return {name: value / (PROMPTS * GROUP) * 1e3 for name, value in spent.items()}, PROMPTS / seconds


def processor_seconds(processes: list[psutil.Process]) -> dict[str, float]:
    """Since they began, of SGLang's scheduler (vision tower, prefill, decoding), its detokenizer, and the rest: the
    process that takes requests, decodes images and cuts them into patches.
    """
    found = {"scheduler": 0.0, "detokenizer": 0.0, "requests": 0.0}
    for process in processes:
        title = " ".join(process.cmdline())
        name = next((name for name in found if name in title), "requests")
        found[name] += sum(process.cpu_times()[:2])
    return found


async def roll_out(url: str, prompts: list[EncodedPrompt], files: ImageFiles | None) -> None:
    """All groups at once."""
    limits = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(timeout=limits, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def generate(prompt: EncodedPrompt, num_tokens: int = ANSWER_TOKENS) -> None:
            sampling = {"temperature": 1.0, "max_new_tokens": num_tokens, "ignore_eos": True}
            payload = {"input_ids": prompt.input_ids, "image_data": prompt.image_data, "return_logprob": True}
            async with session.post(f"{url}/generate", json=payload | {"sampling_params": sampling}) as reply:
                reply.raise_for_status()
                await reply.read()

        async def group(prompt: EncodedPrompt) -> None:
            if files is None:
                await asyncio.gather(*(generate(prompt) for _ in range(GROUP)))
                return
            async with files.placed(prompt.image_data) as paths:
                named = replace(prompt, image_data=paths)
                await generate(named, 1)  # as the workflow does
                await asyncio.gather(*(generate(named) for _ in range(GROUP)))

        await asyncio.gather(*(group(prompt) for prompt in prompts))


def summary(side: int, measured: dict[str, list[tuple[dict[str, float], float]]]) -> dict[str, Any]:
    """Medians of the rounds."""
    result: dict[str, Any] = {"side": side, "group": GROUP, "answer_tokens": ANSWER_TOKENS}
    for mode, rounds in measured.items():
        result[mode] = {
            "processor_ms_per_rollout": statistics.median(sum(first.values()) for first, _ in rounds),
            "by_process": {
                name: statistics.median(first[name] for first, _ in rounds) for name in rounds[0][0]
            },
            "prompts_per_second": statistics.median(second for _, second in rounds),
        }
    return result


def line(result: dict[str, Any]) -> str:
    """One row for people."""
    apart, shared = result["apart"], result["shared"]
    cost, rate = "processor_ms_per_rollout", "prompts_per_second"
    return (
        f"{result['side']} x {result['side']}: processor time a rollout {apart[cost]:.1f} ms apart, "
        f"{shared[cost]:.1f} ms shared ({apart[cost] / shared[cost]:.1f}x); "
        f"prompts a second {apart[rate]:.2f} and {shared[rate]:.2f} "
        f"({shared[rate] / apart[rate]:.1f}x); shared by process: "
        + ", ".join(f"{name} {value:.1f} ms" for name, value in shared["by_process"].items())
    )


if __name__ == "__main__":
    sys.exit(main())
