"""The page that a rehearsal ends with, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trains.rehearsal.changes import Change
from utils.doctor import memory_model

NAME = "rehearsal.json"
GIB = memory_model.GIB


class Page:
    """Collects what the rehearsal finds; `problems` decide the verdict, `remarks` do not."""

    def __init__(self, configuration: str, kind: str = "rehearsal"):
        self.configuration, self.kind = configuration, kind
        self.directory: Path | None = None  # beside the run's records; None: there is no place yet
        self.problems: list[str] = []
        self.remarks: list[str] = []
        self.facts: dict[str, Any] = {}

    def changes(self, made: list[Change]) -> None:
        """Note what is changed of the configuration, and print it at once."""
        self.facts["changes"] = [asdict(change) for change in made]
        print(f"[{self.kind}] {self.configuration} as it is, except:")
        for change in made:
            print(f"  {change.key}: {change.configured} -> {change.value}  ({change.reason})")
        print(f"[{self.kind}] model: {self.facts['model']}", flush=True)

    def estimate(self, plan: Any) -> None:
        """Note what the real run takes by the doctor's plan; None: there is no plan for this model."""
        if plan is None:
            return
        peaks = {role: memory_model.peak(lines) / GIB for role, lines in plan.roles.items()}
        self.facts["estimate"] = {
            "gib_per_gpu": {role: round(peak, 1) for role, peak in peaks.items()},
            "gpu_gib": round(plan.gpu_memory_bytes / GIB),
            "shared_gpu": plan.is_shared,
            "step_seconds": round(max(plan.seconds["trainer"], plan.seconds["servers"])),
            "gpus": plan.num_gpus,
            "model": plan.assumed_model or plan.config.actor.path,
            "device": "this CPU" if plan.is_cpu else plan.speed_name,
        }

    def write(self, name: str = NAME) -> Path | None:
        """The page as JSON; returns its path, None where there is no place for it."""
        if self.directory is None:
            return None
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / name
        content = {
            "configuration": self.configuration,
            "verdict": "not ready" if self.problems else "ready",
            "problems": self.problems,
            "remarks": self.remarks,
            **self.facts,
        }
        path.write_text(json.dumps(content, indent=2, default=str) + "\n")
        return path

    def text(self) -> str:
        return "\n".join(["", f"=== {self.kind} of {self.configuration}", *self._lines(), *self._verdict()])

    def _lines(self) -> Iterator[str]:
        facts = self.facts
        if "model" in facts:
            yield f"model       {facts['model']}"
        for part in facts.get("data", ()):
            yield from _data_lines(part)
        if facts.get("audit"):
            good = [row for row in facts["audit"] if not row["failures"]]
            yield f"rewards     references of {len(good)} of {len(facts['audit'])} sources and types pay as they should"
            for row in facts["audit"]:
                means = ", ".join(f"{n} {v:.2f}" for n, v in row["means"].items() if v is not None)
                yield f"            {row['source']}, {row['answer_type']} ({row['samples']}): {means}"
        yield from map(_step_line, facts.get("steps", ()))
        if facts.get("references"):
            yield f"answers     mean accuracy of the reference as a rollout: {_numbers(facts['references'].items())}"
        for found in facts.get("evaluation", ()):
            overall = found["overall"]
            text = f"accuracy {overall['accuracy']:.3f} on {overall['num_samples']} rows"
            yield f"evaluation  after step {found['step']}: {text}"
        if "steps" in facts and not facts.get("evaluation"):
            yield "evaluation  none: valid_dataset is null"
        for what, where in facts.get("written", {}).items():
            yield f"written     {what}: {where}"
        if "estimate" in facts:
            yield from _estimate_lines(facts["estimate"])
        if "memory_gib" in facts:
            yield from _memory_lines(facts["memory_gib"], facts.get("estimate"))
        if "speed" in facts:
            yield from _speed_lines(facts["speed"], facts.get("estimate"))
        yield from (f"remark      {text}" for text in self.remarks)

    def _verdict(self) -> Iterator[str]:
        yield from (f"PROBLEM     {text}" for text in self.problems)
        minutes = self.facts.get("minutes", 0)
        verdict = f"NOT READY: {len(self.problems)} found" if self.problems else "READY"
        yield f"verdict     {verdict} ({minutes} min)"


def _step_line(step: dict[str, Any]) -> str:
    norms = list(step["gradient_norms"].values())
    return (
        f"step {step['step']}      reward {step['reward']:.3f}, gradient norms {min(norms):.2g} to "
        f"{max(norms):.2g}, parity mean {step['parity_mean']:.1e} max {step['parity_max']:.1e} of "
        f"{step['parity_tokens']} tokens, exchange {step['seconds']['exchange']:.2f} s"
    )


def _data_lines(part: dict[str, Any]) -> Iterator[str]:
    lengths = part.get("lengths")
    prompts = (
        f"; prompts of {lengths['measured']} rows: median {lengths['median']}, longest {lengths['longest']} of "
        f"{part['max_length']} tokens"
        if lengths
        else ""
    )
    yield (
        f"data        {part['path']} ({part['for']}): {part['rows']} rows, {part['kept']} used, {part['too_long']} too "
        f"long, {part['unusable']} unusable{prompts}"
    )
    yield from (f"            left out: {reason}" for reason in part["reasons"])


def _estimate_lines(estimate: dict[str, Any]) -> Iterator[str]:
    roles = ", ".join(f"{role} {peak}" for role, peak in estimate["gib_per_gpu"].items())
    shared = ", both on each GPU" if estimate["shared_gpu"] else ""
    if estimate["device"] == "this CPU":
        yield f"estimate    {estimate['model']}: {roles} GiB on this CPU"
        return
    yield (
        f"estimate    {estimate['model']} on {estimate['gpus']} GPUs: {roles} GiB of {estimate['gpu_gib']}{shared}; a "
        f"step about {estimate['step_seconds']} s on {estimate['device']}"
    )


def _memory_lines(measured: dict[str, float], estimate: dict[str, Any] | None) -> Iterator[str]:
    estimated = dict(estimate["gib_per_gpu"]) if estimate else {}
    if estimate and estimate["shared_gpu"]:
        estimated = {"both": round(sum(estimated.values()), 1)}
    if not measured:
        yield "memory      not measured: the processes were not seen"
    for role, peak in measured.items():
        beside = f"{estimated[role]}" if role in estimated else "none"
        yield f"memory      {role}: {peak} GiB at its peak, estimate {beside}"


def _speed_lines(speed: dict[str, Any], estimate: dict[str, Any] | None) -> Iterator[str]:
    beside = (
        f" (estimate {estimate['step_seconds']} s)" if estimate and estimate["device"] != "this CPU" else ""
    )
    yield (
        f"time        a step {speed['step_seconds']:.2f} s{beside}, the run's {speed['total_steps']} steps "
        f"{speed['run_hours']:.1f} h at that pace with the longest prompts; waiting {speed['waiting_share']:.0%}"
    )
    yield (
        f"speed       servers {speed['server_tokens_per_second']:,.0f} tokens/s, trainer "
        f"{speed['trainer_tokens_per_second']:,.0f} tokens/s; weight exchange {speed['exchange_seconds']:.2f} s, "
        f"servers paused {speed['exchange_pause']:.2f} s"
    )


def _numbers(pairs: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in pairs)
