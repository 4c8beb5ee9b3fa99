"""The figures of the report, as PNG files. All numbers come from the manifest or from the decided rows."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from dataset.curate.writer import Decided

KEPT, DROPPED, INK = "#1b7f5c", "#c0c4cc", "#22252b"
REASON_COLOURS = ("#d8a13c", "#c65d3b", "#8d5a97", "#5078b3", "#7a8b99", "#b0607f", "#94a35b", "#4fa3a5")
MAX_POINTS = 4000
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
}


def draw_all(folder: Path, manifest: Mapping[str, Any], decided: Sequence[Decided]) -> list[tuple[str, Path]]:
    """Draw every figure into `folder`; returns (caption, path) in the order of the report."""
    folder.mkdir(parents=True, exist_ok=True)
    measured = [d for d in decided if d.statistics is not None]
    figures: list[tuple[str, str, tuple[float, float], Callable[..., None], tuple]] = [
        ("Pass@1 against Pass@N, one point per sample", "pass_at_1_vs_n", (5.2, 3.6), _scatter, (measured,)),
        ("Gap Pass@N - Pass@1", "gap_histogram", (5.2, 3.6), _gap_histogram, (measured,)),
        ("Mean Pass@k before and after selection", "pass_at_k", (5.2, 3.6), _pass_curve, (manifest,)),
        ("Mean reward per sample", "reward_histogram", (5.2, 3.6), _reward_histogram, (measured,)),
        (
            "Kept, dropped and rejected by source",
            "by_source",
            (10.6, 1.6 + 0.45 * len(manifest["by_source"])),
            _by_source,
            (manifest,),
        ),
        ("How many would be kept at other thresholds", "threshold_sweep", (10.6, 3.4), _sweep, (manifest,)),
    ]
    drawn = []
    with plt.rc_context(STYLE):
        for caption, name, size, draw, arguments in figures:
            panels = 3 if draw is _sweep else 1
            figure, axes = plt.subplots(1, panels, figsize=size, layout="constrained")
            draw(axes, *arguments)
            path = folder / f"{name}.png"
            # Without the software's name and version the same run gives the same bytes.
            figure.savefig(path, dpi=130, metadata={"Software": None})
            plt.close(figure)
            drawn.append((caption, path))
    return drawn


def _scatter(axes: Axes, measured: Sequence[Decided]) -> None:
    generator = np.random.default_rng(0)
    for kept, colour, label in ((False, DROPPED, "dropped"), (True, KEPT, "kept")):
        points = [d.statistics for d in measured if (d.outcome == "kept") is kept][:MAX_POINTS]
        x = np.array([s.pass_at_1 for s in points if s])
        y = np.array([s.pass_at[s.num_attempts] for s in points if s])
        # Both take few values, so points are spread a little; Pass@N of N attempts is 0 or 1.
        x, y = x + generator.uniform(-0.015, 0.015, len(x)), y + generator.uniform(-0.05, 0.05, len(y))
        axes.scatter(
            x, y, s=11, alpha=0.6, color=colour, label=f"{label} ({len(points)} shown)", linewidths=0
        )
    axes.plot([0, 1], [0, 1], color="#8a8f98", linewidth=0.8, linestyle=":")
    n = measured[0].statistics.num_attempts if measured and measured[0].statistics else "N"
    axes.set(xlabel="Pass@1", ylabel=f"Pass@{n}", xlim=(-0.05, 1.05), ylim=(-0.12, 1.12))
    axes.legend(frameon=False, loc="center right")


def _gap_histogram(axes: Axes, measured: Sequence[Decided]) -> None:
    _stacked(axes, measured, lambda d: d.statistics.gap, "gap Pass@N - Pass@1")


def _reward_histogram(axes: Axes, measured: Sequence[Decided]) -> None:
    _stacked(axes, measured, lambda d: d.statistics.mean_reward, "mean reward of a sample")


def _stacked(axes: Axes, measured: Sequence[Decided], value: Callable[[Decided], float], label: str) -> None:
    kept = [value(d) for d in measured if d.outcome == "kept"]
    dropped = [value(d) for d in measured if d.outcome != "kept"]
    low, high = min([0.0, *kept, *dropped]), max([1.0, *kept, *dropped])
    bins = np.linspace(low - 0.025, high + 0.025, 22)
    axes.hist([kept, dropped], bins=bins, stacked=True, color=[KEPT, DROPPED], label=["kept", "dropped"])
    axes.set(xlabel=label, ylabel="samples")
    axes.legend(frameon=False)


def _pass_curve(axes: Axes, manifest: Mapping[str, Any]) -> None:
    for key, colour, label in (("raw", "#6b717c", "all measured"), ("kept", KEPT, "kept")):
        curve = manifest[key]["pass_at"]
        ks = [int(k) for k in curve]
        axes.plot(ks, list(curve.values()), marker="o", markersize=4, color=colour, label=label)
    ks = [int(k) for k in manifest["raw"]["pass_at"]]
    axes.set(xscale="log", xlabel="k", ylabel="mean Pass@k", ylim=(-0.03, 1.05))
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.legend(frameon=False)


def _by_source(axes: Axes, manifest: Mapping[str, Any]) -> None:
    groups = manifest["by_source"]
    totals: Counter[str] = Counter()
    for count in groups.values():
        totals.update({**count["dropped_by_reason"], **count["rejected_by_reason"]})
    reasons = [reason for reason, _ in totals.most_common()]
    names = list(groups)
    left = np.zeros(len(names))
    series = [("kept", KEPT, [groups[name]["kept"] for name in names])]
    for i, reason in enumerate(reasons):
        numbers = [
            groups[name]["dropped_by_reason"].get(reason, 0)
            + groups[name]["rejected_by_reason"].get(reason, 0)
            for name in names
        ]
        series.append((reason, REASON_COLOURS[i % len(REASON_COLOURS)], numbers))
    for label, colour, numbers in series:
        bars = axes.barh(
            names, numbers, left=left, color=colour, label=f"{label} ({sum(numbers)})", height=0.6
        )
        shown = [
            str(n) if n >= 0.04 * max(sum(c["examined"] for c in groups.values()), 1) else "" for n in numbers
        ]
        axes.bar_label(bars, shown, label_type="center", color="white", fontsize=8)
        left += np.array(numbers)
    axes.set(xlabel="rows")
    axes.invert_yaxis()
    axes.legend(frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left")


def _sweep(axes: Sequence[Axes], manifest: Mapping[str, Any]) -> None:
    labels = {"min_gap": "gap > t", "min_reward": "mean reward > t", "max_reward": "mean reward < t"}
    for panel, (name, label) in zip(axes, labels.items(), strict=True):
        points = [(t, n) for t, n in manifest["sweep"][name] if t != "off"]
        panel.plot(*zip(*points, strict=True), marker="o", markersize=4, color=KEPT)
        used = manifest["selection"][name]
        if used is not None and not manifest["selection"]["keep_all"]:
            panel.axvline(used, color="#c65d3b", linewidth=1, linestyle="--", label=f"used: {used:g}")
            panel.legend(frameon=False)
        panel.set(xlabel="t", ylabel="samples kept", title=label, ylim=(0, None))
