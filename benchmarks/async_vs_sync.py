"""Asynchronous against synchronous training of the demo's job, on this machine, in one run.

    python -m benchmarks.async_vs_sync --steps 30 --output runs/async_vs_sync

Runs `digits_cpu_stage1` from the warm-started checkpoint with eta = 0 and with eta = 4, in turn and repeatedly, so that
both see the same drift of the machine. Then measures the server alone (seconds per token at several batch sizes) and
writes `measured.json`, which `benchmarks.pipeline_simulation` reads: its prediction must come within 15 % of the
measured step times. Evaluation is off: it is the same in both modes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

CONFIG = "configs/digits_cpu_stage1.yaml"
SKIPPED = 5  # first steps: start-up, and the ring buffer still filling
BATCH_SIZES = (1, 8, 32, 64, 128)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=2, help="runs of each mode")
    parser.add_argument("--checkpoint", default="pretrained/tiny-llavaov15")
    parser.add_argument("--output", type=Path, default=Path("runs/async_vs_sync"))
    arguments = parser.parse_args(argv)
    records: dict[int, list[dict]] = {0: [], 4: []}
    for round_index in range(arguments.rounds):
        for eta in records:
            records[eta] += train(eta, round_index, arguments)
    steps = {
        eta: statistics.median(record["seconds"]["total"] for record in part) for eta, part in records.items()
    }
    decode = measure_decode(arguments.checkpoint, arguments.output)
    parameters = pipeline_parameters(records[4], decode, steps)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "measured.json").write_text(json.dumps(parameters, indent=2) + "\n")
    for eta, part in records.items():
        phases = {
            name: statistics.median(record["seconds"][name] for record in part)
            for name in ("rollout", "proximal", "update", "exchange")
        }
        shown = ", ".join(f"{name} {seconds:.2f}" for name, seconds in phases.items())
        print(f"eta = {eta}: median step {steps[eta]:.2f} s over {len(part)} steps ({shown})")
    print(f"asynchronous over synchronous: {steps[0] / steps[4]:.2f}x")
    print(f"parameters of the pipeline model: {arguments.output}/measured.json")
    return 0


def train(eta: int, round_index: int, arguments: argparse.Namespace) -> list[dict]:
    """One run of the demo's job; its step records without the first ones."""
    trial = f"eta{eta}-round{round_index}"
    command = [
        sys.executable, "-W", "ignore", "-m", "areal.launcher.local", "trains/grpo.py", "--config", CONFIG,
        f"actor.path={arguments.checkpoint}", f"rollout.max_head_offpolicyness={eta}", f"trial_name={trial}",
        f"cluster.fileroot={arguments.output}", f"cluster.name_resolve.nfs_record_root={arguments.output}/names",
        f"total_train_steps={arguments.steps}", "valid_dataset=null", "evaluator.eval_before_train=false",
        "stats_logger.wandb.mode=disabled",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    lines = (arguments.output / "digits-stage1" / trial / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines][SKIPPED:]


def measure_decode(checkpoint: str, output: Path) -> dict[str, float]:
    """Seconds per generated token of one request, by number of requests at once, from a server of its own."""
    from llavaonevision1_5 import sglang_environment
    from sglang_cpu.process import running_server

    options = {
        "max-running-requests": max(BATCH_SIZES),
        "skip-tokenizer-init": True,
        "enable-multimodal": True,
    }
    output.mkdir(parents=True, exist_ok=True)
    prompt, num_tokens, seconds = list(range(48)), 32, {}
    with running_server(
        checkpoint, log_path=output / "decode_server.log", options=options, environment=sglang_environment()
    ) as url:

        def generate(_: int) -> None:
            payload = {
                "input_ids": prompt,
                "sampling_params": {"max_new_tokens": num_tokens, "ignore_eos": True, "temperature": 1.0},
                "return_logprob": True,
            }
            requests.post(f"{url}/generate", json=payload, timeout=300).raise_for_status()

        for batch in BATCH_SIZES:
            with ThreadPoolExecutor(batch) as executor:
                list(executor.map(generate, range(batch)))  # warm-up
                start = time.perf_counter()
                for _ in range(3):
                    list(executor.map(generate, range(batch)))
                seconds[str(batch)] = (time.perf_counter() - start) / 3 / num_tokens
    return seconds


def pipeline_parameters(records: list[dict], decode: dict[str, float], steps: dict[int, float]) -> dict:
    """The parameter file of `benchmarks.pipeline_simulation` from what was measured."""

    def median(name: str) -> float:
        return statistics.median(record["seconds"][name] for record in records)

    tokens = statistics.median(record["num_sequence_tokens"] for record in records)
    lengths = [record["length_mean"] for record in records]
    writing = median("exchange") - statistics.median(record["exchange_pause"] for record in records)
    return {
        "notes": [f"measured by benchmarks.async_vs_sync over {len(records)} asynchronous steps"],
        "pipeline": {
            "num_servers": 1,
            "num_trainers": 1,
            "groups_per_step": records[0]["num_groups"],
            "group_size": records[0]["num_rollouts"] // records[0]["num_groups"],
            "eta": 4,
            "decode_seconds": decode,
            "train_seconds_per_token": (median("proximal") + median("update")) / tokens,
            "train_fixed_seconds": median("advantages") + max(writing, 0.0),
            "sync_seconds": statistics.median(record["exchange_pause"] for record in records),
            "median_tokens": statistics.median(lengths),
            "sigma_tokens": 0.4,
            "max_tokens": max(record["length_max"] for record in records),
            "prompt_tokens": int(
                (tokens - statistics.median(r["num_tokens"] for r in records)) / records[0]["num_rollouts"]
            ),
            "max_running_requests": 128,
            "max_concurrent_groups": 16,
            "contention": 1.0,
        },
        "measured": {"async_step_seconds": steps[4], "sync_step_seconds": steps[0]},
    }


if __name__ == "__main__":
    sys.exit(main())
