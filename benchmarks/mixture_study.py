"""MoDoMoDo's question on the demo: 16 mixtures of its five tasks, a fit, and one mixture that the fit has not seen.

    make mixture-study            # python -m benchmarks.mixture_study; about 40 minutes on two idle cores

Every run starts from the same warm-started checkpoint and trains `--steps` steps on another mixture of the four tasks
of stage 1 and the sums of stage 2; measured on the validation split. The fit (`dataset.mixture_fit`) is made
before the unseen mixture is run, and its 95 % interval is then compared with what was measured. Finished runs are kept
and not started again. Writes `mixture_study.json` and `predicted.png` to `--output`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.runs import commit, machine
from dataset.digits import build_rows
from dataset.mixture_fit import analyse, describe, objective_weights, predict, read_study
from dataset.schema import write_shard

CONFIG = "configs/digits_cpu_stage1.yaml"
TASKS = (
    "digits-bbox",
    "digits-boolean",
    "digits-choice",
    "digits-number",
    "digits-sum",
)  # sorted, as a study has them
UNSEEN = (0.30, 0.05, 0.15, 0.20, 0.30)  # in the order of TASKS; no run of the design is near


def design() -> list[tuple[float, ...]]:
    """16 mixtures, a simplex-centroid design drawn to the middle: even, one task at 60 %, two tasks at 35 %."""
    k = len(TASKS)
    mixtures = [tuple([1 / k] * k)]
    mixtures += [tuple(0.6 if i == j else 0.1 for j in range(k)) for i in range(k)]
    mixtures += [tuple(0.35 if j in pair else 0.1 for j in range(k)) for pair in combinations(range(k), 2)]
    return mixtures


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("runs/mixture-study"))
    parser.add_argument("--steps", type=int, default=40, help="of every run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=219, help="of the warm start (default: %(default)s)")
    arguments = parser.parse_args(argv)
    root = arguments.output.resolve()
    prepare(root, arguments.seed)
    folders = []
    for number, mixture in enumerate(design(), 1):
        folders.append(train(root, f"mixture{number:02d}", mixture, number, arguments.steps))
        print(f"{number}/16 {shown(mixture)}: {100 * objective_of(folders[-1]):.1f} %", flush=True)
    study = read_study(folders)
    objective = objective_weights("mean", list(study.accuracy))
    found = analyse(study, objective, min_weight=0.05)
    found["unseen"] = predict(study, objective, np.array(UNSEEN))
    measured = objective_of(train(root, "unseen", UNSEEN, 17, arguments.steps))
    interval = found["unseen"]["objective"]
    inside = interval["low"] <= measured <= interval["high"]
    found["unseen"] |= {"measured": measured, "inside": inside}
    found |= {"machine": machine(), "commit": commit(), "steps": arguments.steps}
    (root / "mixture_study.json").write_text(json.dumps(found, indent=2) + "\n")
    draw(study, found, root / "predicted.png")
    print(describe(found, study))
    print(
        f"unseen mixture {shown(UNSEEN)}: predicted {100 * interval['mean']:.1f} % "
        f"[{100 * interval['low']:.1f}, {100 * interval['high']:.1f}], measured {100 * measured:.1f} %: "
        + ("inside" if inside else "OUTSIDE")
    )
    return 0 if inside else 1


def prepare(root: Path, seed: int) -> None:
    """One shard per task for training, one for measuring, and the checkpoint that every run starts from."""
    shards = root / "data"
    if not (shards / "validation.parquet").exists():
        by_task = defaultdict(list)
        for stage in ("stage1", "stage2"):
            for row in build_rows(stage, "train"):
                by_task[row["source"]].append(row)
        for task in TASKS:
            write_shard(shards / f"{task}.parquet", by_task[task], None)
        write_shard(shards / "validation.parquet", validation_rows(), None)
    if not (root / "warm" / "warm_start.json").exists():
        _run([sys.executable, "-W", "ignore", "-m", "trains.demo.warm_start", "--seed", str(seed),
              "--output", str(root / "warm")])  # fmt: skip


def validation_rows() -> list[dict[str, Any]]:
    """200 rows of every task: the mean over tasks is the mean over rows."""
    return [*build_rows("stage1", "validation"), *build_rows("stage2", "validation")[:200]]


def train(root: Path, trial: str, mixture: tuple[float, ...], seed: int, steps: int) -> Path:
    """The run folder of one mixture, trained now unless it has finished before."""
    folder = root / "digits-stage1" / trial
    manifest = folder / "run.json"
    if manifest.exists() and json.loads(manifest.read_text())["finished"]:
        return folder
    parts = ",".join(
        f"{{path:{root}/data/{task}.parquet,weight:{weight:.4f}}}"
        for task, weight in zip(TASKS, mixture, strict=True)
    )
    _run(
        [
            sys.executable, "-W", "ignore", "-m", "areal.launcher.local", "trains/grpo.py", "--config", CONFIG,
            f"seed={seed}", f"trial_name={trial}", f"actor.path={root}/warm", f"cluster.fileroot={root}",
            f"cluster.name_resolve.nfs_record_root={root}/names", f"total_train_steps={steps}",
            f"train_dataset.path={root}/data/{TASKS[0]}.parquet", f"train_dataset.mixture=[{parts}]",
            f"valid_dataset.path={root}/data/validation.parquet", "valid_dataset.max_samples=null",
            "evaluator.eval_before_train=false", f"evaluator.freq_steps={steps}",
            "stats_logger.wandb.mode=disabled", "stats_logger.tensorboard.path=null",
        ],
        log=root / "logs" / f"{trial}.log",
    )  # fmt: skip
    return folder


def objective_of(folder: Path) -> float:
    """Mean held-out accuracy over the five tasks after the last step."""
    last = json.loads((folder / "evaluations.jsonl").read_text().splitlines()[-1])
    return sum(part["accuracy"] for part in last["source"].values()) / len(last["source"])


def shown(mixture: tuple[float, ...]) -> str:
    return ", ".join(
        f"{task.split('-')[1]} {weight:.2f}" for task, weight in zip(TASKS, mixture, strict=True)
    )


def draw(study: Any, found: dict[str, Any], path: Path) -> None:
    """Measured against leave-one-out predictions, and the unseen mixture with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from utils.response_surface import fit

    values = np.mean(list(study.accuracy.values()), axis=0)
    left_out = []
    for i in range(len(values)):
        others = np.arange(len(values)) != i
        left_out.append(fit(study.weights[others], values[others]).expected(study.weights[i : i + 1])[0][0])
    figure, axis = plt.subplots(figsize=(6, 6), constrained_layout=True)
    axis.plot(
        100 * np.array(left_out), 100 * values, "o", label="16 mixtures, each predicted from the others"
    )
    unseen = found["unseen"]
    mean, low, high = (100 * unseen["objective"][key] for key in ("mean", "low", "high"))
    axis.errorbar(
        [mean], [100 * unseen["measured"]], xerr=[[mean - low], [high - mean]], fmt="s", color="#d62728",
        label="the unseen mixture, 95 %",
    )  # fmt: skip
    ends = [min(*axis.get_xlim(), *axis.get_ylim()), max(*axis.get_xlim(), *axis.get_ylim())]
    axis.plot(ends, ends, "k:", linewidth=1)
    axis.set(xlabel="predicted accuracy, percent", ylabel="measured accuracy, percent")
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _run(command: list[str], log: Path | None = None) -> None:
    if log is None:
        subprocess.run(command, check=True)
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as sink:
        status = subprocess.run(command, stdout=sink, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        raise SystemExit(f"mixture_study: a run ended with status {status}; see {log}")


if __name__ == "__main__":
    sys.exit(main())
