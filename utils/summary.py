"""One page about finished runs: `python -m utils.summary RUN [RUN ...] --output FOLDER`.

Reads what each run left in its folder (`run.json`, `metrics.jsonl`, `evaluations.jsonl`) and writes `summary.png` and
`summary.json`. Every number is recomputed from those files; nothing else is needed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from utils.command_line import Parser, check_output

SMOOTHING = 8  # steps in the moving average of the reward curve
COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b")


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m utils.summary",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, in the order of the stages")
    parser.add_argument("--output", type=Path, required=True, help="folder for summary.png and summary.json")
    arguments = parser.parse_args(argv)
    try:
        check_output(arguments.output)
        runs = [load_run(path) for path in arguments.runs]
    except (FileNotFoundError, ValueError) as error:
        print(f"summary: {error}", file=sys.stderr)
        return 1
    arguments.output.mkdir(parents=True, exist_ok=True)
    summary = {"runs": [summarise(run) for run in runs]}
    (arguments.output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    draw(runs, arguments.output / "summary.png")
    for entry in summary["runs"]:
        print(describe(entry))
    print(f"one page: {arguments.output / 'summary.png'}; numbers: {arguments.output / 'summary.json'}")
    return 0


def load_run(folder: Path) -> dict[str, Any]:
    """The three files of a run folder. Raises ValueError when the run has no step yet."""
    steps = _json_lines(folder / "metrics.jsonl")
    if not steps:
        raise ValueError(f"{folder}/metrics.jsonl holds no step")
    return {
        "folder": str(folder),
        "manifest": json.loads((folder / "run.json").read_text()),
        "steps": steps,
        "evaluations": _json_lines(folder / "evaluations.jsonl"),
    }


def summarise(run: dict[str, Any]) -> dict[str, Any]:
    """The numbers of one run: gain, staleness, parity, time."""
    steps, evaluations = run["steps"], run["evaluations"]
    gaps = gap_histogram(steps)
    num_tokens = sum(gaps.values())
    seconds: Counter[str] = Counter()
    for record in steps:
        seconds.update(record["seconds"])
    return {
        "folder": run["folder"],
        "command": run["manifest"]["command"],
        "checkpoint": run["manifest"]["checkpoint"],
        "logs": run["manifest"]["logs"],
        "finished": run["manifest"]["finished"],
        "num_steps": len(steps),
        "held_out": {
            "before": _accuracies(evaluations[0]) if evaluations else None,
            "after": _accuracies(evaluations[-1]) if evaluations else None,
            "num_samples": evaluations[-1]["overall"]["num_samples"] if evaluations else 0,
        },
        "reward": {"first": steps[0]["reward"], "last": steps[-1]["reward"]},
        "version_gap": {
            "histogram": {str(gap): gaps[gap] for gap in sorted(gaps)},
            "mean": sum(gap * count for gap, count in gaps.items()) / max(num_tokens, 1),
            "max": max(gaps, default=0),
        },
        "parity_max": max(record["parity_max"] for record in steps),
        "num_rollouts": sum(record["num_rollouts"] for record in steps),
        "num_tokens": num_tokens,
        "num_skipped": sum(record["num_skipped"] for record in steps),
        "evicted": steps[-1]["buffer"].get("evicted", 0),
        "submitted": steps[-1]["buffer"].get("submitted", 0),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "exchange_pause_mean": sum(record["exchange_pause"] for record in steps) / len(steps),
    }


def gap_histogram(steps: list[dict[str, Any]]) -> Counter[int]:
    """Consumed tokens by version gap, over all steps."""
    gaps: Counter[int] = Counter()
    for record in steps:
        gaps.update({int(gap): count for gap, count in record["gap_histogram"].items()})
    return gaps


def describe(entry: dict[str, Any]) -> str:
    """A run in a few lines for the terminal."""
    lines = [f"{entry['folder']}: {entry['num_steps']} steps, {entry['num_rollouts']} rollouts"]
    held_out = entry["held_out"]
    if held_out["before"]:
        lines.append(f"  held-out accuracy, {held_out['num_samples']} samples    before   after    gain")
        for name, after in held_out["after"].items():
            before = held_out["before"].get(name, float("nan"))
            lines.append(f"    {name:<34} {before:8.1%} {after:7.1%} {100 * (after - before):+7.1f}")
    gap = entry["version_gap"]
    share = entry["evicted"] / max(entry["submitted"], 1)
    lines.append(
        f"  version gap: mean {gap['mean']:.2f}, max {gap['max']}; evicted {share:.1%} of the prompts; "
        f"trainer and server differ by at most {entry['parity_max']:.1e} in log-probability"
    )
    lines.append(f"  checkpoint: {entry['checkpoint']}; logs: {entry['logs']}")
    lines.append(f"  again with: {entry['command']}")
    return "\n".join(lines)


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """The page: reward, held-out accuracy over time, gain per answer type, version gaps, time per phase."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(16, 9), constrained_layout=True)
    _draw_reward(axes[0, 0], runs)
    _draw_evaluations(axes[0, 1], runs)
    _draw_gains(axes[0, 2], runs)
    _draw_gaps(axes[1, 0], runs)
    _draw_seconds(axes[1, 1], runs)
    _draw_parity(axes[1, 2], runs)
    figure.suptitle(
        "  →  ".join(dict.fromkeys(run["manifest"]["experiment_name"] for run in runs)), fontsize=14
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_reward(axis: Any, runs: list[dict[str, Any]]) -> None:
    for color, run, offset in _laid_out(runs):
        x = [offset + record["step"] for record in run["steps"]]
        y = [record["reward"] for record in run["steps"]]
        axis.plot(x, y, color=color, alpha=0.3, linewidth=1)
        axis.plot(x, _moving_average(y), color=color, linewidth=2, label=_name(run, runs))
    axis.set(title=f"training reward (bold: mean of {SMOOTHING} steps)", xlabel="step", ylabel="mean reward")
    axis.legend()


def _draw_evaluations(axis: Any, runs: list[dict[str, Any]]) -> None:
    for color, run, offset in _laid_out(runs):
        x = [offset + evaluation["step"] for evaluation in run["evaluations"]]
        y = [evaluation["overall"]["accuracy"] for evaluation in run["evaluations"]]
        axis.plot(x, y, color=color, marker="o", linewidth=2, label=_name(run, runs))
    axis.set(title="held-out accuracy", xlabel="step", ylabel="accuracy", ylim=(0, 1))
    axis.legend()


def _draw_gains(axis: Any, runs: list[dict[str, Any]]) -> None:
    bars = []
    for color, run in zip(COLORS, runs, strict=False):
        if not run["evaluations"]:
            continue
        before, after = _accuracies(run["evaluations"][0]), _accuracies(run["evaluations"][-1])
        bars += [(f"{name}\n{_name(run, runs)}", before.get(name, 0.0), after[name], color) for name in after]
    for position, (_, before, after, color) in enumerate(bars):
        axis.bar(position - 0.2, before, 0.4, color=color, alpha=0.35)
        axis.bar(position + 0.2, after, 0.4, color=color)
        axis.text(position + 0.2, after + 0.01, f"{after:.0%}", ha="center", fontsize=6.5)
        axis.text(position - 0.2, before + 0.01, f"{before:.0%}", ha="center", fontsize=6.5, color="#555555")
    axis.set_xticks(range(len(bars)), [label for label, *_ in bars], rotation=45, ha="right", fontsize=8)
    axis.set(title="held-out accuracy before (pale) and after (full) each run", ylim=(0, 1.08))


def _draw_gaps(axis: Any, runs: list[dict[str, Any]]) -> None:
    width = 0.8 / len(runs)
    for index, (color, run) in enumerate(zip(COLORS, runs, strict=False)):
        gaps = gap_histogram(run["steps"])
        total = max(sum(gaps.values()), 1)
        x = [gap + (index - (len(runs) - 1) / 2) * width for gap in sorted(gaps)]
        axis.bar(x, [gaps[gap] / total for gap in sorted(gaps)], width, color=color, label=_name(run, runs))
    axis.set(
        title="version gap of the tokens trained on",
        xlabel="weight versions behind",
        ylabel="share of tokens",
    )
    axis.legend()


def _draw_seconds(axis: Any, runs: list[dict[str, Any]]) -> None:
    phases = [name for name in runs[0]["steps"][0]["seconds"] if name != "total"]
    for index, run in enumerate(runs):
        bottom = 0.0
        for phase_index, phase in enumerate(phases):
            mean = sum(record["seconds"].get(phase, 0.0) for record in run["steps"]) / len(run["steps"])
            axis.bar(
                index, mean, 0.6, bottom=bottom, color=f"C{phase_index}", label=phase if index == 0 else None
            )
            bottom += mean
    axis.set_xticks(range(len(runs)), [_name(run, runs) for run in runs])
    axis.set(title="seconds per step, by phase", ylabel="seconds")
    axis.legend(fontsize=8)


def _draw_parity(axis: Any, runs: list[dict[str, Any]]) -> None:
    for color, run, offset in _laid_out(runs):
        fresh = [(offset + r["step"], r["parity_max"]) for r in run["steps"] if r["parity_tokens"]]
        axis.plot(
            [x for x, _ in fresh], [max(y, 1e-9) for _, y in fresh], ".", color=color, label=_name(run, runs)
        )
    axis.set(
        title="trainer against server: largest |difference| of\nlog-probabilities under the same weights",
        xlabel="step",
        ylabel="nats",
        yscale="log",
    )
    axis.legend()


def _laid_out(runs: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any], int]]:
    """Colour, run, and the step at which it begins: experiments stand one after another, trials of one side by side."""
    laid_out, starts, end = [], {}, 0
    for color, run in zip(COLORS, runs, strict=False):
        start = starts.setdefault(run["manifest"]["experiment_name"], end)
        laid_out.append((color, run, start))
        end = max(end, start + run["steps"][-1]["step"])
    return laid_out


def _accuracies(evaluation: dict[str, Any]) -> dict[str, float]:
    by_source = {name: value["accuracy"] for name, value in evaluation["source"].items()}
    return {"overall": evaluation["overall"]["accuracy"], **by_source}


def _moving_average(values: list[float]) -> list[float]:
    return [
        sum(values[max(0, i - SMOOTHING + 1) : i + 1]) / min(i + 1, SMOOTHING) for i in range(len(values))
    ]


def _name(run: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    """Of its stage; of the trial where several of these runs are of one experiment."""
    experiment = run["manifest"]["experiment_name"]
    if sum(other["manifest"]["experiment_name"] == experiment for other in runs) > 1:
        return run["manifest"]["trial_name"]
    return experiment.rsplit("-", 1)[-1]


def _json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
