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

    def __init__(self, configuration: str):
        self.configuration = configuration
        self.directory: Path | None = None  # beside the run's records; None: there is no place yet
        self.problems: list[str] = []
        self.remarks: list[str] = []
        self.facts: dict[str, Any] = {}

    def changes(self, made: list[Change]) -> None:
        """Note what is changed of the configuration, and print it at once."""
        self.facts["changes"] = [asdict(change) for change in made]
        print(f"[rehearsal] {self.configuration} as it is, except:")
        for change in made:
            print(f"  {change.key}: {change.configured} -> {change.value}  ({change.reason})")
        print(f"[rehearsal] model: {self.facts['model']}", flush=True)

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

    def write(self) -> Path | None:
        """The page as JSON; returns its path, None where there is no place for it."""
        if self.directory is None:
            return None
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / NAME
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
        return "\n".join(["", f"=== rehearsal of {self.configuration}", *self._lines(), *self._verdict()])

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


def _numbers(pairs: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in pairs)
