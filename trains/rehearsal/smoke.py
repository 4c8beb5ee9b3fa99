"""`--smoke`: the rehearsal's walk on the hardware as configured, for the first minutes on real GPUs.

    python -m areal.launcher.local trains/grpo.py --config configs/ANY.yaml --smoke [key=value ...]

Real weights, batch, group, lengths and exchange, the longest prompts of the data first; three steps, one more behind a
resume. Measured beside the estimate: memory of each role, time, tokens a second, disk. Exit status as the rehearsal's.
"""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from trains.arguments import config_file, read
from trains.config import Config
from trains.limits import value_of
from trains.rehearsal import data, walk
from trains.rehearsal.changes import APART, NUM_HELD_OUT, SMALL, WALK, Change
from trains.rehearsal.memory import MemoryWatch
from trains.rehearsal.report import Page
from utils.command_line import unwritable
from utils.doctor import report as doctor
from utils.doctor.machine import Machine

FOLDER = "smoke"  # below cluster.fileroot
NUM_STEPS = 3  # the first one warms up
GIB = 2**30


def main(argv: list[str], here: Machine | None = None) -> int:
    """`argv`: the entry script, `--config FILE`, and what stands behind. `here`: the machine, this one by default."""
    argv = [word for word in argv if word != "--smoke"]
    started = time.monotonic()
    page = Page(str(config_file(argv)), kind="smoke test")
    _smoke(argv, page, here)
    page.facts["minutes"] = round((time.monotonic() - started) / 60, 1)
    path = page.write("smoke.json")
    print(page.text())
    print("" if path is None else f"[smoke] as JSON: {path}")
    return 1 if page.problems else 0


def _smoke(argv: list[str], page: Page, here: Machine | None) -> None:
    """Fill `page`; returns early where going on would only repeat what was found."""
    diagnosis = doctor.examine(argv, here)
    page.problems += diagnosis.problems + diagnosis.missing
    page.remarks += diagnosis.remarks
    try:
        config, overrides_of_runs = read(argv, Config)
    except ValueError:  # the diagnosis holds it
        return
    if config.cluster.n_nodes > 1:
        page.problems.append(
            f"cluster.n_nodes={config.cluster.n_nodes}: --smoke runs on this machine alone; rehearse such a file, and "
            "smoke-test it with cluster.n_nodes=1 and an allocation that fits one node"
        )
    root = Path(config.cluster.fileroot) / FOLDER
    if unwritable(root) is None:
        page.directory = root / config.experiment_name / config.trial_name
    if page.problems:
        return
    walk.forget(root, config.experiment_name, config.trial_name)
    page.facts["model"] = f"{config.actor.path}, as it is"
    made = changes(config, root)
    page.changes(made)
    overrides = [*overrides_of_runs, *(change.override for change in made)]
    page.estimate(diagnosis.plan)

    from areal.utils.hf_utils import load_hf_processor_and_tokenizer

    processor, _ = load_hf_processor_and_tokenizer(config.actor.path)
    page.facts["data"], problems = data.examine(config, processor)
    page.problems += problems
    if problems:
        return
    page.facts["audit"], problems = data.audit_rewards(config)
    page.problems += problems
    if any(row["is_dead"] for row in page.facts["audit"]):
        return
    _launch(argv, overrides, config, page, root)
    for folder in root.glob(
        f"**/{config.experiment_name}/{config.trial_name}"
    ):  # 16 bytes a parameter and more
        for weights in (*folder.rglob("*.safetensors"), *folder.rglob("recover_checkpoint")):
            shutil.rmtree(weights) if weights.is_dir() else weights.unlink()


def _launch(argv: list[str], overrides: list[str], config: Config, page: Page, root: Path) -> None:
    """Two launches, and what they measured."""
    run, allocation = page.directory, config.allocation
    num_gpus = (
        0 if page.facts.get("estimate", {}).get("device") == "this CPU" else config.cluster.n_gpus_per_node
    )
    watch = MemoryWatch(allocation.gen.world_size, allocation.train.world_size, num_gpus)
    with watch:
        for last in (NUM_STEPS, NUM_STEPS + 1):
            print(f"[smoke] {'steps 1 to' if last == NUM_STEPS else 'resumed: step'} {last}", flush=True)
            begun = time.monotonic()
            status, lines = walk.launch(
                [*argv, *overrides, f"++total_train_steps={last}"], on_cpu=not num_gpus
            )
            if status:
                page.problems.append(f"the run ended with status {status}: {walk.cause(lines)}")
                break
            if last == NUM_STEPS:
                page.facts["launch_seconds"] = round(time.monotonic() - begun, 1)
            elif not any(f": steps {last} to {last}, " in line for line in lines):
                page.problems.append(
                    f"the run did not begin behind step {NUM_STEPS}: recovery was not taken up"
                )
    page.facts["memory_gib"] = {role: round(peak / GIB, 2) for role, peak in sorted(watch.peaks.items())}
    steps, problems = walk.check_steps(run, config, list(range(1, NUM_STEPS + 2)), is_reduced=False)
    page.facts["steps"] = steps
    page.problems += problems if not page.problems else []
    if len(steps) > 1:
        page.facts["speed"] = speed(steps, num_steps(config, page.facts["data"]))
    page.facts["evaluation"] = walk.records(run, "evaluations.jsonl")
    if not page.problems:
        page.facts["written"], problems = walk.written(root, config)
        page.problems += problems


def changes(config: Any, root: Path) -> list[Change]:
    """Every key in which the smoke test differs from `config`: where it writes, how long it goes on, what first."""
    wanted: list[tuple[str, Any, str]] = [
        ("cluster.fileroot", str(root), APART),
        ("cluster.name_resolve.nfs_record_root", str(root / "names"), APART),
        ("stats_logger.wandb.mode", "disabled", APART),
        ("rehearsal.longest_first", True, "what fits then fits always"),
        ("total_train_steps", NUM_STEPS, WALK),
        ("saver.freq_steps", NUM_STEPS, WALK),
        ("evaluator.freq_steps", NUM_STEPS, WALK),
        ("recover.mode", "on", WALK),
        ("recover.freq_steps", NUM_STEPS, WALK),
        ("recover.retries", 0, "a failure ends the smoke test"),
    ]
    if config.valid_dataset is not None:
        wanted.append(("valid_dataset.max_samples", NUM_HELD_OUT, SMALL))
    found = [Change(key, value_of(config, key), value, reason) for key, value, reason in wanted]
    return [change for change in found if change.value != change.configured]


def num_steps(config: Any, parts: list[dict[str, Any]]) -> int:
    """Steps of the whole run. An epoch is the rows of the first source with what the others add by weight, as the
    loader counts."""
    training = [part for part in parts if part["for"] == "training"]
    total = sum(part["weight"] for part in training)
    rows = max(round(training[0]["kept"] * total / training[0]["weight"]), 1)
    steps = config.total_train_epochs * -(-rows // config.train_dataset.batch_size)
    return config.total_train_steps or steps


def speed(steps: list[dict[str, Any]], total_steps: int) -> dict[str, Any]:
    """Medians of the steps behind the first, and the whole run at that pace (evaluation and checkpoints left out)."""
    behind = steps[1:]

    def median(value: Any) -> float:
        return statistics.median(value(step) for step in behind)

    phases = ("save", "evaluate")
    seconds = median(lambda s: s["seconds"]["total"] - sum(s["seconds"][phase] for phase in phases))
    return {
        "step_seconds": seconds,
        "total_steps": total_steps,
        "run_hours": seconds * total_steps / 3600,
        "server_tokens_per_second": median(lambda s: s["server_tokens_per_second"]),
        "trainer_tokens_per_second": median(lambda s: s["trainer_tokens_per_second"]),
        "exchange_seconds": median(lambda s: s["seconds"]["exchange"]),
        "exchange_pause": median(lambda s: s["exchange_pause"]),
        "waiting_share": median(lambda s: s["waiting_share"]),
        "longest_sequence": max(step["length_max"] for step in steps),
    }
