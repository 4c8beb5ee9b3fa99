"""From finished runs to the claims: gains with intervals, ablations against the plain variant, minutes to a target."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.learning.statistics import Estimate, estimate

TARGET = 0.85  # held-out accuracy of stage 1 that the leaderboard times
WANTED_LOWER_BOUND = 15.0  # points that stage 1 gains at least, one-sided at 95 %
ALLOWED_CONTROL = 2.0  # points that a control may gain in the mean


def gain(result: dict[str, Any], source: str = "overall") -> float:
    """Points of held-out accuracy from before training to after the last step."""
    first, last = result["evaluations"][0], result["evaluations"][-1]
    return 100 * (last["accuracy"][source] - first["accuracy"][source])


def minutes_to(result: dict[str, Any], target: float = TARGET) -> float | None:
    """Minutes of training until the first evaluation that reached `target`; None where none did."""
    return next((e["minutes"] for e in result["evaluations"] if e["accuracy"]["overall"] >= target), None)


def headline(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The claim and its control; each part only where runs of it have finished."""
    parts: dict[str, Any] = {}
    by_kind = defaultdict(list)
    for result in results:
        by_kind[result["variant"], result["settings"]["config"].rsplit("_", 1)[-1]].append(result)
    stage1 = by_kind["plain", "stage1.yaml"]
    if stage1:
        found = estimate([gain(r) for r in stage1])
        reached = [minutes_to(r) for r in stage1]
        times = [minutes for minutes in reached if minutes is not None]
        parts["stage 1"] = _part(stage1, found) | {
            "holds": found.lower_bound >= WANTED_LOWER_BOUND,
            f"minutes to {TARGET:.0%}": reached,
            f"median minutes to {TARGET:.0%}": statistics.median(times) if times else None,
        }
    control = by_kind["control", "stage1.yaml"]
    if control:
        found = estimate([gain(r) for r in control])
        parts["control"] = _part(control, found) | {"holds": found.mean <= ALLOWED_CONTROL}
    stage2 = by_kind["plain", "stage2.yaml"]
    if stage2:
        found = estimate([gain(r, "digits-sum") for r in stage2])
        parts["stage 2, sums"] = _part(stage2, found, "digits-sum")
    return parts


def _part(results: Sequence[dict[str, Any]], found: Estimate, source: str = "overall") -> dict[str, Any]:
    return {
        "gain": {name: round(value, 2) for name, value in found._asdict().items()},
        "runs": [
            {
                "seed": r["seed"],
                "before": round(100 * r["evaluations"][0]["accuracy"][source], 2),
                "after": round(100 * r["evaluations"][-1]["accuracy"][source], 2),
                "num_samples": r["evaluations"][-1]["num_samples"],
                "minutes": r["minutes"],
                "mean_gap": round(r["mean_gap"], 2),
                "parity_max": r["parity_max"],
                "commit": r["commit"],
                "machine": r["machine"],
            }
            for r in sorted(results, key=lambda r: r["seed"])
        ],
    }


def ablations(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Per variant: its gain, and the difference to the plain variant of the same seed (paired), in points."""
    by_variant: dict[str, dict[int, dict]] = defaultdict(dict)
    for result in results:
        by_variant[result["variant"]][result["seed"]] = result
    plain = by_variant.get("plain", {})
    table = {}
    for variant, by_seed in by_variant.items():
        common = sorted(by_seed.keys() & plain.keys())
        entry = {
            "gain": _rounded(estimate([gain(r) for r in by_seed.values()])),
            "step_seconds": round(statistics.median(r["step_seconds"] for r in by_seed.values()), 3),
            "mean_gap": round(statistics.fmean(r["mean_gap"] for r in by_seed.values()), 2),
        }
        if variant != "plain" and common:
            differences = [gain(by_seed[seed]) - gain(plain[seed]) for seed in common]
            entry["against plain"] = _rounded(estimate(differences))
        table[variant] = entry
    return table


def choice(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy on the validation split at the end, in percent, per variant."""
    by_variant = defaultdict(list)
    for result in results:
        by_variant[result["variant"]].append(100 * result["evaluations"][-1]["accuracy"]["overall"])
    return {variant: _rounded(estimate(values)) for variant, values in by_variant.items()}


def _rounded(found: Estimate) -> dict[str, float]:
    return {name: round(value, 2) for name, value in found._asdict().items()}


def describe(report: dict[str, Any]) -> str:
    """Markdown tables of what has been measured."""
    lines: list[str] = []
    if report.get("headline"):
        lines += ["| part | runs | gain in points, 95 % | lower bound | holds |", "|---|---|---|---|---|"]
        for name, part in report["headline"].items():
            found = Estimate(**part["gain"])
            holds = {True: "yes", False: "**no**", None: ""}[part.get("holds")]
            bound = f"{found.lower_bound:+.1f}"
            lines.append(f"| {name} | {found.num_runs} | {found} | {bound} | {holds} |")
    if report.get("ablations"):
        lines += ["", "| variant | runs | gain | against plain | seconds a step | mean gap |"]
        lines += ["|---|---|---|---|---|---|"]
        for name, entry in report["ablations"].items():
            found = Estimate(**entry["gain"])
            against = str(Estimate(**entry["against plain"])) if "against plain" in entry else ""
            lines.append(
                f"| {name} | {found.num_runs} | {found} | {against} | {entry['step_seconds']:.2f} | "
                f"{entry['mean_gap']:.2f} |"
            )
    if report.get("choice"):
        lines += ["", "| variant | runs | accuracy on validation, percent |", "|---|---|---|"]
        for name, entry in report["choice"].items():
            found = Estimate(**entry)
            lines.append(f"| {name} | {found.num_runs} | {found} |")
    return "\n".join(lines)


def write(report: dict[str, Any], path: Path) -> None:
    """The JSON file; a part that was not run this time keeps what the file had."""
    earlier = json.loads(path.read_text()) if path.exists() else {}
    merged = earlier | {name: part for name, part in report.items() if part}
    path.write_text(json.dumps(merged, indent=2) + "\n")


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Held-out accuracy of stage 1 over steps, each seed and each control."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 5), constrained_layout=True)
    colors = {"plain": "#1f77b4", "control": "#7f7f7f"}
    labelled = set()
    for result in results:
        if result["variant"] not in colors or not result["settings"]["config"].endswith("stage1.yaml"):
            continue
        x = [e["step"] for e in result["evaluations"]]
        y = [100 * e["accuracy"]["overall"] for e in result["evaluations"]]
        name = {"plain": "rewards", "control": "rewards dealt out at random"}[result["variant"]]
        axis.plot(
            x, y, "o-", color=colors[result["variant"]], alpha=0.8, label=None if name in labelled else name
        )
        labelled.add(name)
    axis.set(
        xlabel="step", ylabel="held-out accuracy, percent", title="stage 1 of the demo, one line per seed"
    )
    axis.grid(alpha=0.3)
    if labelled:
        axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
