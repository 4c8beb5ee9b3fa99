"""Asynchronous against synchronous training of the demo's job, on this machine, in one run.

    python -m benchmarks.async_vs_sync --steps 30 --output runs/async_vs_sync

Runs `digits_cpu_stage1` from the warm-started checkpoint with eta = 0, with eta = 4 as shipped (rollouts are submitted
just in time) and with eta = 4 and a buffer that is kept full (`buffer.freshness=off`), in turn and repeatedly, so that
all see the same drift of the machine. Then measures the server alone and the client alone, and
writes `measured.json`, which `benchmarks.pipeline_simulation` reads: its prediction must come within 15 % of the
measured step times. Evaluation is off: it is the same in all modes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure_client import measure_client
from benchmarks.measure_server import measure_server
from trains.config import load

CONFIG = "configs/digits_cpu_stage1.yaml"
SKIPPED = 5  # first steps: start-up, and the ring buffer still filling
ETA = 4
MODES = {
    "synchronous": ("rollout.max_head_offpolicyness=0",),
    "asynchronous": (f"rollout.max_head_offpolicyness={ETA}",),
    "asynchronous, buffer full": (f"rollout.max_head_offpolicyness={ETA}", "buffer.freshness=off"),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=2, help="runs of each mode")
    parser.add_argument("--checkpoint", default="pretrained/tiny-llavaov15")
    parser.add_argument("--output", type=Path, default=Path("runs/async_vs_sync"))
    arguments = parser.parse_args(argv)
    records: dict[str, list[dict]] = {mode: [] for mode in MODES}
    for round_index in range(arguments.rounds):
        for mode in records:
            records[mode] += train(mode, round_index, arguments)
    config = load(["--config", CONFIG, f"actor.path={arguments.checkpoint}"])
    server = measure_server(arguments.checkpoint, config, arguments.output)
    client_seconds = measure_client(arguments.checkpoint, config)
    synchronous, asynchronous, full = records.values()
    parameters = pipeline_parameters(synchronous, asynchronous, server, client_seconds, config)
    (arguments.output / "measured.json").write_text(json.dumps(parameters, indent=2) + "\n")
    for mode, part in records.items():
        phases = {
            name: statistics.median(record["seconds"][name] for record in part)
            for name in ("rollout", "proximal", "update", "exchange")
        }
        shown = ", ".join(f"{name} {seconds:.2f}" for name, seconds in phases.items())
        print(
            f"{mode}: {mean_step(part):.3f} s a step in the mean of {len(part)}, median {median_step(part):.3f} "
            f"({shown}), mean gap {mean_gap(part):.2f}"
        )
    print(f"asynchronous over synchronous: {mean_step(synchronous) / mean_step(asynchronous):.2f}x")
    print(
        f"just in time over a full buffer: {mean_step(full) / mean_step(asynchronous):.1%} of its throughput"
    )
    print(f"parameters of the pipeline model: {arguments.output}/measured.json")
    return 0


def train(mode: str, round_index: int, arguments: argparse.Namespace) -> list[dict]:
    """One run of the demo's job; its step records without the first ones."""
    trial = f"{'-'.join(mode.replace(',', '').split())}-round{round_index}"
    command = [
        sys.executable, "-W", "ignore", "-m", "areal.launcher.local", "trains/grpo.py", "--config", CONFIG,
        f"actor.path={arguments.checkpoint}", *MODES[mode], f"trial_name={trial}",
        f"cluster.fileroot={arguments.output}", f"cluster.name_resolve.nfs_record_root={arguments.output}/names",
        f"total_train_steps={arguments.steps}", "valid_dataset=null", "evaluator.eval_before_train=false",
        "stats_logger.wandb.mode=disabled",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    lines = (arguments.output / "digits-stage1" / trial / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines][SKIPPED:]


def pipeline_parameters(
    synchronous: list[dict],
    asynchronous: list[dict],
    server: dict[str, Any],
    client_seconds: float,
    config: Any,
) -> dict[str, Any]:
    """The parameter file of `benchmarks.pipeline_simulation`.

    The server's numbers come from the server alone, the client's from the client alone. The trainer's come from the
    synchronous steps, where nothing else computes. One number is taken from the asynchronous steps: how much slower
    the trainer is beside a decoding server. The two share the machine's cores, so decoding beside the trainer is taken
    to slow down as much. No step time is an input.
    """
    seconds_per_token = {
        name: statistics.median(
            (r["seconds"]["proximal"] + r["seconds"]["update"]) / r["num_sequence_tokens"] for r in records
        )
        for name, records in (("alone", synchronous), ("beside", asynchronous))
    }
    contention = max(seconds_per_token["beside"] / seconds_per_token["alone"], 1.0)
    pauses = [record["exchange_pause"] for record in synchronous]
    fixed = [
        r["seconds"]["total"] - r["waiting_seconds"] - r["seconds"]["proximal"] - r["seconds"]["update"]
        for r in synchronous
    ]
    tokens = statistics.median(r["num_sequence_tokens"] - r["num_tokens"] for r in synchronous)
    return {
        "notes": "measured by benchmarks.async_vs_sync",
        "pipeline": {
            "num_servers": 1,
            "num_trainers": 1,
            "groups_per_step": config.train_dataset.batch_size,
            "group_size": config.gconfig.n_samples,
            "eta": ETA,
            **server,
            "client_seconds": client_seconds,
            "median_tokens": statistics.median(server["measured_tokens"]),
            "sigma_tokens": 0.0,  # unused: lengths are drawn from the measured ones
            "max_tokens": config.gconfig.max_new_tokens,
            "prompt_tokens": round(tokens / (config.train_dataset.batch_size * config.gconfig.n_samples)),
            "train_seconds_per_token": seconds_per_token["alone"],
            "train_fixed_seconds": max(statistics.median(fixed) - statistics.median(pauses), 0.0),
            "sync_seconds": statistics.median(pauses),
            "max_running_requests": config.sglang.max_running_requests,
            "max_concurrent_groups": config.rollout.max_concurrent_rollouts,
            "contention": contention,
            "train_contention": contention,
        },
        "measured": {
            "async_step_seconds": median_step(asynchronous),
            "sync_step_seconds": median_step(synchronous),
        },
    }


def median_step(records: list[dict]) -> float:
    """Seconds of the middle step."""
    return statistics.median(record["seconds"]["total"] for record in records)


def mean_step(records: list[dict]) -> float:
    """Seconds of all steps over their number: what throughput is made of."""
    return statistics.fmean(record["seconds"]["total"] for record in records)


def mean_gap(records: list[dict]) -> float:
    """Weight versions between a token's sampling and its training, over all tokens."""
    histograms = [record["gap_histogram"] for record in records]
    tokens = sum(sum(histogram.values()) for histogram in histograms)
    return sum(int(gap) * count for histogram in histograms for gap, count in histogram.items()) / tokens


if __name__ == "__main__":
    sys.exit(main())
