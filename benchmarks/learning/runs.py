"""Starts the runs of a benchmark one after another and reads what they left; a finished one is not started again."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.learning.trials import NUM_HELDOUT, STAGE1, Trial


def run(trial: Trial, root: Path, results: Path) -> dict[str, Any]:
    """The result of a trial: its own in `results` from earlier, or that of a run started now below `root`.

    Raises RuntimeError with the log's place where the run fails, ValueError where an earlier result of the same name
    came from other settings.
    """
    result_file = results / f"{trial.stage}-{trial.name}.json"
    settings = {"config": trial.config, "overrides": list(trial.overrides), "split": trial.split}
    if result_file.exists():
        result = json.loads(result_file.read_text())
        if result["settings"] != settings:
            raise ValueError(f"{result_file} came from other settings; remove it or name other --results")
        return result
    prepare(trial.seed, root)
    command = launch_command(trial, root)
    started = time.monotonic()
    log = root / "logs" / f"{trial.stage}-{trial.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as sink:
        status = subprocess.run(command, stdout=sink, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        raise RuntimeError(f"{trial.name} ended with status {status}; see {log}")
    folder = root / f"digits-{trial.stage}" / trial.name
    result = {
        "settings": settings,
        "group": trial.group,
        "variant": trial.variant,
        "seed": trial.seed,
        "command": shlex.join(["python", *command[1:]]).replace(f"{Path.cwd()}/", ""),
        "commit": commit(),
        "machine": machine(),
        "minutes": round((time.monotonic() - started) / 60, 2),
        **read(folder),
    }
    result_file.parent.mkdir(parents=True, exist_ok=True)
    partial = result_file.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(partial, result_file)
    return result


def prepare(seed: int, root: Path) -> None:
    """The data and the warm-started checkpoint of a seed, made once."""
    if not (root / "digits" / "manifest.json").exists():
        _module("dataset.digits", "--output-dir", str(root / "digits"))
    if not (root / "warm" / f"seed{seed}" / "warm_start.json").exists():
        _module("trains.demo.warm_start", "--output", str(root / "warm" / f"seed{seed}"), "--seed", str(seed))


def launch_command(trial: Trial, root: Path) -> list[str]:
    """The launch of a trial, as a person would type it."""
    data = root / "digits" / trial.stage
    overrides = [
        f"seed={trial.seed}",
        f"trial_name={trial.name}",
        f"cluster.fileroot={root}",
        f"cluster.name_resolve.nfs_record_root={root}/names",
        f"valid_dataset.path={data}/{trial.split}.parquet",
        "stats_logger.wandb.mode=disabled",
        "stats_logger.tensorboard.path=null",
        f"evaluator.freq_steps={trial.evaluate_every}",
    ]
    if trial.config == STAGE1:
        overrides += [
            f"actor.path={root}/warm/seed{trial.seed}",
            f"train_dataset.path={data}/train.parquet",
            f"valid_dataset.max_samples={NUM_HELDOUT}",
        ]
    else:
        mixture = ",".join(
            f"{{path:{root}/digits/{stage}/train.parquet,weight:{weight}}}"
            for stage, weight in (("stage2", 0.8), ("stage1", 0.2))
        )
        overrides += [f"train_dataset.path={data}/train.parquet", f"train_dataset.mixture=[{mixture}]"]
    launcher = [sys.executable, "-W", "ignore", "-m", "areal.launcher.local", "trains/grpo.py"]
    return [*launcher, "--config", trial.config, *overrides, *trial.overrides]


def read(folder: Path) -> dict[str, Any]:
    """From a finished run: every evaluation (step, accuracies, minutes of training before it) and its step records.

    The minutes are those of the steps without their evaluations, from the first step's beginning.
    """
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seconds = {0: 0.0}
    for record in steps:
        spent = record["seconds"]["total"] - record["seconds"]["evaluate"]
        seconds[record["step"]] = seconds[record["step"] - 1] + spent
    evaluations = []
    for line in (folder / "evaluations.jsonl").read_text().splitlines():
        found = json.loads(line)
        evaluations.append(
            {
                "step": found["step"],
                "minutes": round(seconds[found["step"]] / 60, 3),
                "num_samples": found["overall"]["num_samples"],
                "accuracy": {
                    "overall": found["overall"]["accuracy"],
                    **{source: part["accuracy"] for source, part in found["source"].items()},
                },
            }
        )
    tokens = sum(sum(record["gap_histogram"].values()) for record in steps)
    gaps = sum(int(gap) * n for record in steps for gap, n in record["gap_histogram"].items())
    return {
        "num_steps": len(steps),
        "evaluations": evaluations,
        "mean_gap": gaps / max(tokens, 1),
        "parity_max": max(record["parity_max"] for record in steps),
        "step_seconds": sorted(r["seconds"]["total"] - r["seconds"]["evaluate"] for r in steps)[
            len(steps) // 2
        ],
    }


def machine() -> dict[str, Any]:
    """Where the numbers come from."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[2], 2),
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }


def commit() -> str:
    """Of the working tree, with a + where files differ from it; empty outside of a repository."""
    found = subprocess.run(
        ["git", "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return found.stdout.strip()


def _module(name: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-m", name, *arguments], check=True)


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
