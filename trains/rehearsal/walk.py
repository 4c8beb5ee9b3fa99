"""The way that a rehearsal goes: two launches of the normal launcher, an export, and what they left on disk."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from llavaonevision1_5 import MODEL_TYPE
from llavaonevision1_5.shards import read_json
from reward.tools.audit import SELF_MINIMUM
from trains.guards import PARITY_THRESHOLDS
from utils.checkpoint import cli as checkpoint
from utils.checkpoint import qwen

TIMEOUT_SECONDS = 900
GRACE_SECONDS = 30
# Times the threshold of the mean, for a single token of a reduced model. In bfloat16 9,600 sampled tokens of a random
# Qwen2.5-VL were off by up to 0.26 nats; wrong mRoPE positions by 0.7.
LARGEST = {"float32": 2.0, "bfloat16": 10.0, "float16": 2.0}
PROGRESS = tuple(f"[launcher] {word}" for word in ("remark", "started", "resolved"))
WRITTEN = {
    "checkpoint for people": "checkpoints/*/{}/default/*/*.safetensors",
    "recovery": "checkpoints/*/{}/recover_?/recover_checkpoint/*",
    "final checkpoint": "{}/final/*.safetensors",
}


def launch(argv: list[str], *, on_cpu: bool = True, timeout: int = TIMEOUT_SECONDS) -> tuple[int, list[str]]:
    """Run the local launcher with `argv`, its lines passed on; (exit status, lines). `on_cpu`: GPUs stay unseen."""
    command = [sys.executable, "-W", "ignore", "-m", "areal.launcher.local", *argv]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if on_cpu else {})},
    )
    previous = signal.signal(signal.SIGALRM, lambda *_: process.terminate())
    signal.alarm(timeout)
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip())
            print(f"  {lines[-1]}", flush=True)
        return process.wait(), lines
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        if process.poll() is None:
            process.terminate()
            process.wait(GRACE_SECONDS)


def forget(root: Path, experiment: str, trial: str) -> None:
    """Remove what an earlier rehearsal of the same name left: it would be resumed."""
    for folder in (root / experiment / trial, *root.glob(f"*/*/{experiment}/{trial}")):
        shutil.rmtree(folder, ignore_errors=True)


def cause(lines: list[str]) -> str:
    """Why a launch failed, in its own words: the trainer's or the launcher's last message, else the last line."""
    stopped = [line.removeprefix("[grpo] ") for line in lines if line.startswith("[grpo] stopped by ")]
    said = [line for line in lines if line.startswith("[launcher] ") and not line.startswith(PROGRESS)]
    if stopped or said:
        return stopped[0] if stopped else said[-1]
    return next((line for line in reversed(lines) if line.strip()), "no output")


def records(run: Path, name: str) -> list[dict[str, Any]]:
    """The records of a `.jsonl` file of a run; none where there is no such file."""
    path = run / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def check_steps(
    run: Path, config: Any, wanted: list[int], *, is_reduced: bool = True
) -> tuple[list[dict[str, Any]], list[str]]:
    """(a record for each step, what is wrong with them).

    A real model (not `is_reduced`) may have no signal in a step, and then no gradient; single tokens of it that it
    finds very improbable may be further off than rounding of the mean explains.
    """
    limit = config.actor.parity_threshold or PARITY_THRESHOLDS[config.actor.dtype]
    steps, problems = records(run, "metrics.jsonl"), []
    if [step["step"] for step in steps] != wanted:
        problems.append(
            f"{run}/metrics.jsonl holds steps {[step['step'] for step in steps]}, wanted {wanted}"
        )
    for step in steps:
        name, norms = f"step {step['step']}", step["gradient_norms"]
        dead = [part for part, norm in norms.items() if not (math.isfinite(norm) and norm > 0)]
        frozen = {"vision_": config.actor.freeze_vision_tower, "projector": config.actor.freeze_projector}
        dead = [
            part for part in dead if not any(is_frozen and key in part for key, is_frozen in frozen.items())
        ]
        if dead and (is_reduced or step["groups_without_signal"] < 1):
            problems.append(f"{name}: no gradient, or none that is finite, in {', '.join(dead)}: {norms}")
        if not step["parity_mean"] <= limit:
            problems.append(
                f"{name}: trainer and servers differ by {step['parity_mean']:.2g} nats a token on average; "
                f"{config.actor.dtype} explains {limit:g}"
            )
        elif (
            is_reduced and not step["parity_max"] <= LARGEST[config.actor.dtype] * limit
        ):  # single tokens far off are not rounding
            problems.append(
                f"{name}: trainer and servers differ by {step['parity_max']:.2g} nats in a token; "
                f"{config.actor.dtype} explains {LARGEST[config.actor.dtype] * limit:g}"
            )
    return steps, problems


def check_references(run: Path, sound: set[tuple[str, str]]) -> tuple[dict[str, float], list[str]]:
    """(mean accuracy of the placed reference answers by source and type, those of `sound` that were not rewarded)."""
    rewards, problems = defaultdict(list), []
    for step in records(run, "rollouts.jsonl"):
        for rollout in step["rollouts"]:
            if rollout.get("is_reference"):
                rewards[rollout["source"], rollout["answer_type"]].append(rollout)
    for (source, answer_type), found in rewards.items():
        poor = [rollout for rollout in found if rollout["accuracy"] < SELF_MINIMUM]
        if poor and (source, answer_type) in sound:
            problems.append(
                f"{source}, {answer_type}: the reference answer as a rollout scored {poor[0]['accuracy']:.3f} "
                f"({poor[0]['status']}, id {poor[0]['id']}), although the audit accepts it"
            )
    means = {
        f"{source}, {answer_type}": sum(r["accuracy"] for r in found) / len(found)
        for (source, answer_type), found in rewards.items()
    }
    return means, problems


def export(run: Path, model: Path, target: Path) -> tuple[str, list[str]]:
    """Export the run's final checkpoint beside the model it started from, and load both: (what was said, problems).

    Other families than LLaVA-OneVision-1.5 are saved as they are published: theirs is only loaded.
    """
    if read_json(model / "config.json")["model_type"] != MODEL_TYPE:
        _, found = qwen.load(run / "final")
        faults = [f"export: {kind}: {sorted(found[kind])[:3]}" for kind in qwen.FAULTS if found[kind]]
        return "none needed: the final checkpoint loads as it is", faults
    shutil.rmtree(target, ignore_errors=True)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = checkpoint.main(["export", str(run), str(target), "--original", str(model)])
        status = status or checkpoint.main(["verify", str(run), str(target), "--new-tokens", "4"])
    lines = said.getvalue().strip().splitlines()
    return f"{target}: {lines[-1]}", [f"export: {lines[-1]}"] if status else []


def written(root: Path, config: Any) -> tuple[dict[str, str], list[str]]:
    """(what the run left on disk, by kind, with its size; what is not there), folders relative to `root`."""
    found, problems = {}, []
    for kind, pattern in WRITTEN.items():
        files = sorted(root.glob(pattern.format(f"{config.experiment_name}/{config.trial_name}")))
        if not files:
            problems.append(f"no {kind} was written: {root / pattern}")
            continue
        size = sum(
            file.stat().st_size for place in files for file in (place, *place.rglob("*")) if file.is_file()
        )
        found[kind] = f"{files[-1].parent.relative_to(root)} ({size / 2**20:.1f} MiB)"
    return found, problems
