"""Asynchronous against synchronous training of the demo's job, on this machine, in one run.

    python -m benchmarks.async_vs_sync --steps 30 --output runs/async_vs_sync

Runs `digits_cpu_stage1` from the warm-started checkpoint with eta = 0 and with eta = 4, in turn and repeatedly, so that
both see the same drift of the machine. Then measures the server alone and the client alone, and
writes `measured.json`, which `benchmarks.pipeline_simulation` reads: its prediction must come within 15 % of the
measured step times. Evaluation is off: it is the same in both modes.
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
ETAS = (0, 4)  # synchronous, asynchronous


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=2, help="runs of each mode")
    parser.add_argument("--checkpoint", default="pretrained/tiny-llavaov15")
    parser.add_argument("--output", type=Path, default=Path("runs/async_vs_sync"))
    arguments = parser.parse_args(argv)
    records: dict[int, list[dict]] = {eta: [] for eta in ETAS}
    for round_index in range(arguments.rounds):
        for eta in records:
            records[eta] += train(eta, round_index, arguments)
    config = load(["--config", CONFIG, f"actor.path={arguments.checkpoint}"])
    server = measure_server(arguments.checkpoint, config, arguments.output)
    client_seconds = measure_client(arguments.checkpoint, config)
    parameters = pipeline_parameters(*records.values(), server, client_seconds, config)
    (arguments.output / "measured.json").write_text(json.dumps(parameters, indent=2) + "\n")
    for eta, part in records.items():
        phases = {
            name: statistics.median(record["seconds"][name] for record in part)
            for name in ("rollout", "proximal", "update", "exchange")
        }
        shown = ", ".join(f"{name} {seconds:.2f}" for name, seconds in phases.items())
        print(f"eta = {eta}: median step {median_step(part):.2f} s over {len(part)} steps ({shown})")
    print(f"asynchronous over synchronous: {median_step(records[0]) / median_step(records[4]):.2f}x")
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
            "eta": ETAS[-1],
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


if __name__ == "__main__":
    sys.exit(main())
