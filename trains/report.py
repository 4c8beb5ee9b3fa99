"""What a person sees of a run and what stays on disk of it: progress lines, `metrics.jsonl`, AReaL's loggers."""

from __future__ import annotations

import json
import shlex
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dataset.mixture import as_mixture
from trains import heartbeat
from trains.guards import PARITY_THRESHOLDS, FinalError
from trains.metrics import batch_metrics, flat, update_metrics
from trains.rollout_records import RolloutRecords
from trains.setup import Run, run_directory
from trains.trial import continue_from
from trains.types import Group
from utils import records
from utils.advice import Adviser
from utils.files import replacing
from utils.masking import masked_arguments
from utils.rollout_files import FOLDER
from utils.run_manifest import MANIFEST

FINAL = "[grpo] starting again would end the same way"  # the launcher reads it (areal.launcher.supervisor)
STEPS_TO_REPEAT = 20  # without a finding, before it is said again
COUNTED = ("submitted", "consumed", "evicted", "given_up", "dropped_without_signal", "failed")
PHASES = ("rollout", "proximal", "advantages", "update", "exchange", "save", "evaluate")


def mixture_of(data: Any) -> list[dict[str, Any]]:
    """Paths and weights that the training rows are drawn by."""
    parts = as_mixture(data.mixture or data.path)
    return [{"path": part.path, "weight": part.weight} for part in parts]


@contextmanager
def reported_failure():
    """Say in one line why the trainer ends; the traceback follows in its log. The launcher starts a trainer again
    (`recover.mode: on`) unless a second line says that this would be in vain: a `ValueError` names wrong settings or
    data, which no restart mends.
    """
    try:
        yield
    except Exception as error:
        print(f"[grpo] stopped by {type(error).__name__}: {error}", flush=True)
        if isinstance(error, FinalError | ValueError | FileNotFoundError):
            print(FINAL, flush=True)
        raise


class Report:
    """Times the phases of a step and writes one record per step; only rank 0 writes."""

    def __init__(self, run: Run):
        self.run = run
        self.is_writer = run.actor.rank == 0
        self.directory = run_directory(run.config)
        self.seconds: dict[str, float] = {}
        self.generated = 0
        self.held_out: dict[str, Any] | None = None
        self.rollout_records = self._open_records()
        self.adviser, self.advised = Adviser(self._settings()), {}
        self.started = self.step_started = time.perf_counter()
        if self.is_writer:
            self._write_manifest(finished=False)
            if run.start_step > 0:
                continue_from(self.directory, run.start_step)
                self._look_back()
            if self.rollout_records is not None:
                self.rollout_records.forget_steps_after(run.start_step)
            name = f"{run.config.experiment_name}/{run.config.trial_name}"
            self.say(
                f"{name}: steps {run.start_step + 1} to {run.total_steps}, "
                f"{run.config.train_dataset.batch_size} prompts x {run.config.gconfig.n_samples} rollouts a step, at "
                f"most {run.config.rollout.max_head_offpolicyness} versions behind"
                if run.start_step < run.total_steps
                else f"{name}: its checkpoint is of step {run.start_step}, total_steps are {run.total_steps}: no step "
                "is left to do"
            )

    @contextmanager
    def phase(self, name: str):
        """Time a phase of the step under its name."""
        start = time.perf_counter()
        heartbeat.enter(name, self.run.progress.step)
        yield
        heartbeat.enter("bookkeeping")
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def step(self, step: int, batch: list[Group], update: dict[str, float]) -> dict[str, Any]:
        """Collect, write and print the record of a finished step; returns it (on every rank)."""
        run = self.run
        tracker_stats = run.actor.export_stats()
        total = time.perf_counter() - self.step_started
        of_update = update_metrics(tracker_stats)
        generated = run.actor.sum_over_ranks(
            torch.tensor(float(run.rollout.num_generated - self.generated), device=run.actor.device)
        )
        self.generated = run.rollout.num_generated
        metrics = batch_metrics(run.actor, batch, version=step)
        record = {
            "step": step + 1,
            "version": step,
            **metrics,
            **of_update,
            **update,
            **({"critic": of_update["critic"] | update["critic"]} if "critic" in update else {}),
            "buffer": {
                **{name: run.rollout.buffer.counts[name] for name in COUNTED},
                "ready": run.rollout.buffer.num_ready,
                "target": run.rollout.buffer.target,
            },
            "seconds": {name: round(self.seconds.get(name, 0.0), 4) for name in PHASES}
            | {"total": round(total, 4)},
            "exchange_pause": run.actor.exchange_seconds,
            "exchange_pause_share": run.actor.exchange_seconds / total,
            "tokens_per_second": metrics["num_tokens"] / total,
            "server_tokens_per_second": float(generated) / total,
            "trainer_tokens_per_second": metrics["num_sequence_tokens"]
            / max(self.seconds.get("proximal", 0) + self.seconds.get("update", 0), 1e-9),
            "waiting_seconds": run.rollout.waited_seconds,
            "waiting_share": run.rollout.waited_seconds / total,
        }
        if self.is_writer:
            self._append("metrics.jsonl", record)
            self._advise(record)
            shown = batch if batch[0]["info"][0].num_references else batch[:2]
            self._append(
                "rollouts.jsonl", {"step": step + 1, "rollouts": [_example(group) for group in shown]}
            )
            self.say(self._line(record))
        self._keep_rollouts(step, batch)
        info = run.step_info(step)
        run.stats_logger.commit(info.epoch, info.epoch_step, info.global_step, flat(record))
        self.seconds, self.step_started = {}, time.perf_counter()
        return record

    def evaluation(self, step: int, result: dict[str, Any]) -> None:
        """Write and print an evaluation of the weights after `step` steps (0: before training)."""
        self.held_out = result
        if not self.is_writer:
            return
        self._append("evaluations.jsonl", {"step": step, **result})
        self.adviser.evaluation(result)
        types = ", ".join(f"{name} {value['accuracy']:.3f}" for name, value in result["answer_type"].items())
        overall = result["overall"]
        self.say(
            f"held-out accuracy after step {step}: {overall['accuracy']:.3f} on {overall['num_samples']} ({types})"
        )

    def has_evaluation(self, step: int) -> bool:
        """Whether the evaluation after `step` steps is on the disk."""
        return any(record["step"] == step for record in records.read(self.directory / "evaluations.jsonl"))

    def finish(self, checkpoint: Path) -> None:
        if self.is_writer:
            self._write_manifest(finished=True, checkpoint=str(checkpoint))
            minutes = (time.perf_counter() - self.started) / 60
            self.say(
                f"done in {minutes:.1f} min; checkpoint: {checkpoint}; metrics: {self.directory}/metrics.jsonl"
            )

    def say(self, text: str) -> None:
        if self.is_writer:
            print(f"[grpo] {text}", flush=True)

    def _line(self, record: dict[str, Any]) -> str:
        seconds = record["seconds"]
        phases = " ".join(f"{name} {seconds[name]:.2f}" for name in PHASES if seconds[name] >= 0.005)
        held_out = f" | held-out {self.held_out['overall']['accuracy']:.3f}" if self.held_out else ""
        skipped = " | SKIPPED: gradient not finite" if record["num_skipped"] else ""
        return (
            f"step {record['step']}/{self.run.total_steps} | reward {record['reward']:.3f} solved "
            f"{record['solved']:.3f}{held_out} | version gap mean {record['gap_mean']:.2f} max {record['gap_max']} | "
            f"parity {record['parity_max']:.0e} | {record['tokens_per_second']:.0f} tok/s | "
            f"{seconds['total']:.2f} s ({phases}){skipped}"
        )

    def _write_manifest(self, finished: bool, checkpoint: str | None = None) -> None:
        config = self.run.config
        manifest = {
            "command": shlex.join(["python", "-m", "areal.launcher.local", *masked_arguments(sys.argv)]),
            "experiment_name": config.experiment_name,
            "trial_name": config.trial_name,
            "started_from": config.actor.path,
            "mixture": mixture_of(config.train_dataset),  # for `dataset.mixture_fit`
            "prompts": asdict(config.prompt_settings()),  # for evaluation of this run
            "checkpoint": checkpoint,
            "logs": self.run.stats_logger.get_log_path(config.stats_logger),
            "settings": self._settings(),  # for advice
            "total_steps": self.run.total_steps,
            "finished": finished,
        }
        with replacing(self.directory / MANIFEST) as file:  # whole or not at all: the next stage reads it
            file.write((json.dumps(manifest, indent=2) + "\n").encode())

    def _settings(self) -> dict[str, Any]:
        """What advice about this run depends on beside its records."""
        actor = self.run.config.actor
        return {
            "device": self.run.actor.device.type,
            "parity_limit": actor.parity_threshold or PARITY_THRESHOLDS[actor.dtype],
        }

    def _advise(self, record: dict[str, Any]) -> None:
        """Say what can be said of the run, once when it appears and again when it comes back."""
        found = {item.name: item for item in self.adviser.step(record)}
        for name, item in found.items():
            if name not in self.advised or record["step"] - self.advised[name] > STEPS_TO_REPEAT:
                self.say(f"advice after step {record['step']}, {item}")
            self.advised[name] = record["step"]

    def _open_records(self) -> RolloutRecords | None:
        options, actor = self.run.config.records, self.run.actor
        if not options.rollouts or not actor.is_data_parallel_head():
            return None
        return RolloutRecords(
            self.directory / FOLDER,
            actor.rank,
            actor.tokenizer,
            max_gigabytes=options.max_gigabytes,
            token_share=options.token_share,
        )

    def _keep_rollouts(self, step: int, batch: list[Group]) -> None:
        """Every rank its own; training goes on without them where the disk is full."""
        if self.rollout_records is None:
            return
        try:
            self.rollout_records.write(step + 1, step, batch)
        except OSError as error:
            print(f"[grpo] the rollouts of step {step + 1} are not kept: {error}", flush=True)

    def _append(self, name: str, record: dict[str, Any]) -> None:
        records.append(self.directory / name, record)

    def _look_back(self) -> None:
        """Show the watch what a resumed run has recorded."""
        for record in records.read(self.directory / "metrics.jsonl"):
            self.advised |= {item.name: record["step"] for item in self.adviser.step(record)}


def _example(group: Group) -> dict[str, Any]:
    info = group["info"][0]
    is_reference = {"is_reference": True} if info.num_references else {}
    conversation = info.trajectories[0] if info.trajectories else {}
    return {
        **is_reference,
        "id": info.sample_id,
        "source": info.source,
        "answer_type": info.answer_type,
        "completion": info.completions[0],
        "reward": info.scores[0].total,
        "accuracy": info.scores[0].parts["accuracy"],
        "status": info.scores[0].status,
        **conversation,
    }
