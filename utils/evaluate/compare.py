"""`python -m utils.evaluate compare BEFORE AFTER...`: the table with its noise, and the forgetting gate.

Both runs answered the same samples, so each benchmark is compared sample by sample (`paired`). The gate watches the
benchmarks that are known to fall in thinking mode. It fails where one loses more than `--gate` points and the loss is
beyond noise: one-sided, at 5 % over all gated benchmarks of the comparison together (Holm). Where only the task's own
judge scores, in its aggregation, samples cannot be paired; two independent runs are assumed then, which is cautious.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from utils.evaluate import results
from utils.evaluate.benchmarks import BENCHMARKS, GROUPS
from utils.evaluate.paired import LEVEL, Comparison, compare_paired, holm
from utils.evaluate.results import Measured

GATED = ("docvqa", "charxiv", "vl_rewardbench")
GATE_POINTS = 2.0
OTHER_TASKS = "Other tasks"


@dataclass(frozen=True)
class Change:
    """One metric of one task in both runs, in points (0 to 100)."""

    task: str
    metric: str
    before: float
    after: float
    is_gated: bool
    noise: Comparison | None = None  # None: nothing is known of single samples
    p_loss: float | None = None

    @property
    def gain(self) -> float:
        return self.after - self.before

    @property
    def title(self) -> str:
        return BENCHMARKS[self.task].title if self.task in BENCHMARKS else self.task

    @property
    def group(self) -> str:
        return BENCHMARKS[self.task].group if self.task in BENCHMARKS else OTHER_TASKS


def changes_between(before: Mapping[str, Measured], after: Mapping[str, Measured]) -> list[Change]:
    """What both runs have: of each benchmark the metric of the table, of any other task every metric."""
    order = [*BENCHMARKS, *sorted(before.keys() - BENCHMARKS.keys())]
    found: list[Change] = []
    for task in (name for name in order if name in before and name in after):
        old, new = before[task], after[task]
        if old.main is not None and new.main is not None:
            noise = _noise(old, new)
            p_loss = noise.p_loss if noise else _unpaired(old, new)
            found.append(
                Change(
                    task,
                    new.main,
                    old.metrics[old.main],
                    new.metrics[new.main],
                    is_gated(task),
                    noise,
                    p_loss,
                )
            )
            continue
        found += [
            Change(task, metric, old.metrics[metric], new.metrics[metric], is_gated(task))
            for metric in sorted(old.metrics.keys() & new.metrics.keys())
        ]
    return found


def _noise(old: Measured, new: Measured) -> Comparison | None:
    if not old.scores.keys() & new.scores.keys():
        return None
    return compare_paired(old.scores, new.scores, old.clusters | new.clusters)


def _unpaired(old: Measured, new: Measured) -> float | None:
    """P of so great a loss between two independent runs of as many samples; None where their number is not known."""
    assert old.main is not None
    assert new.main is not None
    if not old.num_samples or not new.num_samples:
        return None
    shares = [min(max(run.metrics[run.main] / 100, 0.0), 1.0) for run in (old, new)]  # type: ignore[index]
    variance = sum(
        (share * (1 - share) + 1 / (run.num_samples + 1)) / run.num_samples
        for share, run in zip(shares, (old, new), strict=True)
    )
    return NormalDist().cdf((shares[1] - shares[0]) / math.sqrt(variance))


def is_gated(task: str) -> bool:
    """Whether the forgetting gate watches a task, however its name is written (docvqa_val, CharXiv, ...)."""
    plain = task.lower().replace("-", "_")
    return any(name in plain or name.replace("_", "") in plain.replace("_", "") for name in GATED)


def forgotten(changes: Sequence[Change], gate: float) -> list[Change]:
    """The gated losses that are greater than `gate` points and beyond noise. A loss of which nothing is known but its
    size counts by its size.
    """
    gated = [change for change in changes if change.is_gated]
    beyond = holm([1e-9 if change.p_loss is None else change.p_loss for change in gated])
    return [
        change
        for change, is_beyond in zip(gated, beyond, strict=True)
        if is_beyond and change.gain < -gate - 1e-9
    ]


def table(changes: Sequence[Change], gate: float) -> str:
    """The changes as text, one line each."""
    lost = forgotten(changes, gate)
    lines = [
        f"{'benchmark':<24}{'metric':<24}{'before':>7}{'after':>7}{'gain':>7}  {'95 % interval':<16}{'p':>7}"
        f"{'samples':>9}{'seen from':>11}{'for 1 point':>13}"
    ]
    for change in changes:
        line = f"{change.title:<24}{change.metric:<24}{change.before:>7.1f}{change.after:>7.1f}{change.gain:>+7.1f}  "
        noise = change.noise
        if noise is not None:
            interval = f"[{noise.low:+.1f}, {noise.high:+.1f}]"
            line += (
                f"{interval:<16}{noise.p_value:>7.3f}{noise.num_samples:>9}{noise.detectable:>11.1f}"
                f"{noise.num_needed(1.0):>13,}"
            )
        elif change.p_loss is not None:
            line += f"{'not paired':<16}"
        else:
            line += "noise not known"
        mark = " <- forgotten" if change in lost else " (gate)" if change.is_gated else ""
        lines.append(line.rstrip() + mark)
    return "\n".join(lines)


def verdict(changes: Sequence[Change], gate: float) -> list[str]:
    """What the gate says, a line each; of a loss that may be noise, how many samples would tell."""
    lines = []
    lost = forgotten(changes, gate)
    for change in changes:
        if not change.is_gated or change.gain >= -1e-9:
            continue
        if change in lost:
            lines.append(
                f"FORGOTTEN: {change.title} lost {-change.gain:.1f} points, beyond noise and {gate:g} points"
            )
        elif change.gain < -gate - 1e-9:
            known = change.noise
            wanted = (
                f"; {known.num_needed(max(gate, 1.0)):,} samples would show {max(gate, 1.0):g} points"
                if known
                else ""
            )
            lines.append(f"{change.title} lost {-change.gain:.1f} points, which may be noise{wanted}")
    measured = {
        name for name in GATED for change in changes if is_gated(change.task) and _is(name, change.task)
    }
    if missing := [name for name in GATED if name not in measured]:
        lines.append(f"not measured in both runs, so the gate says nothing of: {', '.join(missing)}")
    return lines


def _is(name: str, task: str) -> bool:
    return name.replace("_", "") in task.lower().replace("_", "").replace("-", "")


def markdown(columns: Mapping[str, Sequence[Change]], before: str, gate: float) -> str:
    """A table as on the project page: a line per benchmark, groups with averages, a column per run after."""
    names = list(columns)
    head = ["Task", "Benchmark", before, *names]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    by_task = {name: {change.task: change for change in changes} for name, changes in columns.items()}
    tasks = list(dict.fromkeys(c.task for changes in columns.values() for c in changes))
    tasks = [task for task in tasks if all(task in found for found in by_task.values())]
    for group in [*GROUPS, OTHER_TASKS]:
        members = [task for task in tasks if by_task[names[0]][task].group == group]
        for position, task in enumerate(members):
            first = by_task[names[0]][task]
            cells = [_cell(by_task[name][task], columns[name], gate) for name in names]
            label = group if position == 0 else ""
            lines.append(f"| {label} | {first.title} | {first.before:.1f} | {' | '.join(cells)} |")
        if len(members) > 1 and group != OTHER_TASKS:
            start = sum(by_task[names[0]][task].before for task in members) / len(members)
            means = [sum(by_task[name][task].after for task in members) / len(members) for name in names]
            cells = [f"{mean:.1f} ({mean - start:+.1f})" for mean in means]
            lines.append(f"| | **Avg.** | {start:.1f} | {' | '.join(cells)} |")
    lines += [
        "",
        "In points. In brackets the gain and half of its 95 % interval, sample by sample; * beyond noise"
        " (two-sided, 5 %, each line by itself); ! the forgetting gate.",
    ]
    return "\n".join(lines) + "\n"


def _cell(change: Change, changes: Sequence[Change], gate: float) -> str:
    text = f"{change.after:.1f} ({change.gain:+.1f}"
    if change.noise is not None:
        text += f" ± {(change.noise.high - change.noise.low) / 2:.1f}"
    text += ")"
    if change.noise is not None and change.noise.p_value < LEVEL:
        text += " *"
    return text + (" !" if change in forgotten(changes, gate) else "")


def figure(columns: Mapping[str, Sequence[Change]], path: Path) -> None:
    """Gains with their 95 % intervals, a row per benchmark."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    titles = list(dict.fromkeys(c.title for changes in columns.values() for c in changes))
    height = 1.2 + 0.32 * len(titles)
    plot, axes = pyplot.subplots(figsize=(7.5, height), layout="constrained")
    for column, (name, changes) in enumerate(columns.items()):
        shift = 0.16 * (column - (len(columns) - 1) / 2)
        rows = [titles.index(change.title) + shift for change in changes]
        gains = [change.gain for change in changes]
        # the interval is that of the samples' mean, drawn around it; the dot is what the task reports
        for row, change in zip(rows, changes, strict=True):
            if change.noise is not None:
                axes.plot(
                    [change.noise.low, change.noise.high], [row, row], color=f"C{column}", lw=1.6, alpha=0.6
                )
        axes.plot(gains, rows, "o", color=f"C{column}", ms=4.5, label=name)
    axes.axvline(0, color="0.6", lw=0.8)
    axes.set_yticks(range(len(titles)), titles, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("gain in points, with 95 % intervals")
    axes.legend(fontsize=8, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    plot.savefig(path, dpi=150)
    pyplot.close(plot)


def as_record(columns: Mapping[str, Sequence[Change]]) -> dict[str, Any]:
    """Everything in numbers, for comparison.json."""

    def one(change: Change) -> dict[str, Any]:
        record = asdict(change) | {"title": change.title, "gain": change.gain}
        if change.noise is not None:
            record["noise"] |= {
                "detectable": change.noise.detectable,
                "needed_for_a_point": change.noise.num_needed(1.0),
            }
        return record

    return {name: [one(change) for change in changes] for name, changes in columns.items()}


def labels_of(folders: Sequence[Path], runs: Sequence[Mapping[str, Measured]]) -> list[str]:
    """A short name for each run: its mode where modes tell them apart, else its folder."""
    modes = [{task.mode for task in run.values()} for run in runs]
    if len(folders) > 1 and all(len(mode) == 1 and None not in mode for mode in modes):
        names = [str(next(iter(mode))) for mode in modes]
        if len(set(names)) == len(names):
            return names
    names = [folder.name or str(folder) for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def read_columns(before: Path, after: Sequence[Path]) -> dict[str, list[Change]]:
    """Changes of each run after, by its label. Raises ValueError where one has nothing in common with `before`."""
    start = results.read(before)
    runs = [results.read(folder) for folder in after]
    columns = {}
    for name, folder, run in zip(labels_of(after, runs), after, runs, strict=True):
        changes = changes_between(start, run)
        if not changes:
            raise ValueError(f"{before} and {folder} have no task and metric in common")
        columns[name] = changes
    return columns
