"""The curves of one or several runs as plain numbers; Bokeh draws them in the page (assets/viewer.js)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from utils.viewer.reading import RunFolder

MAX_POINTS = 600  # of a line; longer ones keep the extremes of each stretch
COLORS = (
    "#3b82c4",
    "#d1495b",
    "#3a9a5b",
    "#9a6fc0",
    "#e08a1e",
    "#8a6d5b",
    "#d16ba5",
    "#6f7d8c",
    "#a3a300",
    "#17a2b8",
)
DASHES = ("solid", "dashed", "dotted", "dotdash")
SMOOTHING = 0.02  # of a run's steps, in the bold line of the reward; 5 steps at least

Points = tuple[list[float], list[float]]


class Panel(NamedTuple):
    """A figure: what it shows, and the lines that it takes from a step's record, by name."""

    title: str
    lines: Callable[[dict[str, Any]], dict[str, float]]
    log: bool = False
    note: str = ""


def _keys(**names: str) -> Callable[[dict[str, Any]], dict[str, float]]:
    """Lines `name: value` from records, each under a path like `seconds/total`."""

    def lines(record: dict[str, Any]) -> dict[str, float]:
        found = {name.replace("_", " "): _at(record, path) for name, path in names.items()}
        return {name: value for name, value in found.items() if value is not None}

    return lines


def _members(section: str, key: str = "") -> Callable[[dict[str, Any]], dict[str, float]]:
    """A line for each member of a section, for example each source, of its `key`."""

    def lines(record: dict[str, Any]) -> dict[str, float]:
        members = record.get(section)
        values = {str(name): _at(value, key) if key else value for name, value in (members or {}).items()}
        return {name: value for name, value in values.items() if isinstance(value, int | float)}

    return lines


def _at(record: Any, path: str) -> float | None:
    for part in path.split("/"):
        record = record.get(part) if isinstance(record, dict) else None
    return record if isinstance(record, int | float) else None


PANELS = (
    Panel("reward by source", _members("by_source", "reward")),
    Panel("reward by answer type", _members("by_answer_type", "reward")),
    Panel("reward parts", _members("parts")),
    Panel(
        "share solved, and groups of equal rewards",
        _keys(solved="solved", equal_groups="groups_without_signal"),
    ),
    Panel("versions behind", _keys(mean="gap_mean", max="gap_max")),
    Panel("entropy, nats", _keys(entropy="entropy")),
    Panel("behavior weights", _keys(mean="behavior_weight_mean", max="behavior_weight_max")),
    Panel(
        "tokens capped or clipped, share",
        _keys(capped="behavior_capped", clipped_low="clipped_low", clipped_high="clipped_high"),
    ),
    Panel("effective share of tokens", _keys(effective="effective_sample_size")),
    Panel("KL divergence, nats", _keys(to_behavior="behavior_kl", to_reference="reference_kl")),
    Panel("tokens of an answer", _keys(mean="length_mean", max="length_max")),
    Panel("truncated, share", _keys(truncated="truncated")),
    Panel("verifier statuses, share", _members("statuses")),
    Panel("signs of hacking", _members("hacking")),
    Panel("trainer against server, nats", _keys(largest="parity_max", mean="parity_mean"), log=True),
    Panel("gradient norm before clipping", _keys(norm="grad_norm"), log=True),
    Panel("loss", _keys(loss="loss")),
    Panel("learning rate", _keys(rate="lr")),
    Panel("seconds a step, by phase", _members("seconds")),
    Panel(
        "waiting for rollouts, share of the step",
        _keys(waiting="waiting_share", exchange="exchange_pause_share"),
    ),
    Panel("tokens a second", _keys(generated="tokens_per_second", read="trainer_tokens_per_second")),
)


def figures(runs: Sequence[RunFolder]) -> list[tuple[str, dict[str, Any]]]:
    """(title, lines) of every figure that any of the runs has numbers for."""
    labels = ["" if len(runs) == 1 else _plain(run.name) + ": " for run in runs]
    drawn = [("reward", _drawn(_reward(runs, labels)))]
    for title, section in (
        ("held-out accuracy", None),
        ("held-out accuracy by source", "source"),
        ("held-out accuracy by answer type", "answer_type"),
    ):
        drawn.append((title, _drawn(_evaluations(runs, labels, section), markers=True)))
    drawn += [(panel.title, _drawn(_panel(runs, labels, panel), log=panel.log)) for panel in PANELS]
    return [(title, figure) for title, figure in drawn if figure is not None]


class _Line(NamedTuple):
    name: str
    points: Points
    color: str
    dash: str = "solid"
    alpha: float = 1.0
    width: float = 1.8


def _reward(runs: Sequence[RunFolder], labels: Sequence[str]) -> list[_Line]:
    lines = []
    for i, (run, label) in enumerate(zip(runs, labels, strict=True)):
        points = _points(run.steps, lambda record: record.get("reward"))
        color = COLORS[i % len(COLORS)]
        window = max(5, int(SMOOTHING * len(run.steps)))
        lines.append(_Line(f"{label}each step", points, color, alpha=0.35, width=1))
        lines.append(
            _Line(f"{label}mean of {window} steps", (points[0], _smooth(points[1], window)), color, width=2.4)
        )
    return lines


def _evaluations(runs: Sequence[RunFolder], labels: Sequence[str], section: str | None) -> list[_Line]:
    lines = []
    for i, (run, label) in enumerate(zip(runs, labels, strict=True)):
        if section is None:
            names = {"overall": lambda record: _at(record, "overall/accuracy")}
        else:
            found = sorted({name for record in run.evaluations for name in record.get(section) or {}})
            names = {name: _accuracy(section, name) for name in found}
        for j, (name, read) in enumerate(names.items()):
            color = COLORS[(i if section is None else j) % len(COLORS)]
            lines.append(
                _Line(label + _plain(name), _points(run.evaluations, read), color, DASHES[i % len(DASHES)])
            )
    return lines


def _accuracy(section: str, name: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda record: (record.get(section) or {}).get(name, {}).get("accuracy")


def _panel(runs: Sequence[RunFolder], labels: Sequence[str], panel: Panel) -> list[_Line]:
    lines = []
    for i, (run, label) in enumerate(zip(runs, labels, strict=True)):
        values = [panel.lines(record) for record in run.steps]
        names = sorted({name for found in values for name in found})
        for j, name in enumerate(names):
            x = [record["step"] for record, found in zip(run.steps, values, strict=True) if name in found]
            y = [float(found[name]) for found in values if name in found]
            lines.append(
                _Line(label + _plain(name), _finite(x, y), COLORS[j % len(COLORS)], DASHES[i % len(DASHES)])
            )
    return lines


def _points(records: Sequence[dict[str, Any]], read: Callable[[dict[str, Any]], Any]) -> Points:
    values = [(record["step"], read(record)) for record in records]
    values = [(x, float(y)) for x, y in values if isinstance(y, int | float)]
    return _finite([x for x, _ in values], [y for _, y in values])


def _finite(x: Sequence[float], y: Sequence[float]) -> Points:
    kept = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(b)]
    return [a for a, _ in kept], [b for _, b in kept]


def _smooth(values: Sequence[float], window: int) -> list[float]:
    smooth, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        smooth.append(total / min(i + 1, window))
    return smooth


def thinned(points: Points, limit: int = MAX_POINTS) -> Points:
    """At most about `limit` points: of each stretch its lowest and its highest, in order."""
    x, y = points
    if len(x) <= limit:
        return points
    size = math.ceil(len(x) / (limit // 2))
    kept: list[int] = []
    for start in range(0, len(x), size):
        places = range(start, min(start + size, len(x)))
        kept += sorted({min(places, key=y.__getitem__), max(places, key=y.__getitem__)})
    return [x[i] for i in kept], [y[i] for i in kept]


def _drawn(lines: Sequence[_Line], *, log: bool = False, markers: bool = False) -> dict[str, Any] | None:
    """A figure as the script draws it; None without anything to draw."""
    found = []
    for line in lines:
        x, y = thinned(line.points)
        kept = [(a, float(f"{b:.5g}")) for a, b in zip(x, y, strict=True) if b > 0 or not log]
        if kept:
            points = {
                "x": [a for a, _ in kept],
                "y": [b for _, b in kept],
                "markers": markers or len(kept) == 1,
            }
            found.append({**line._asdict(), **points})
            del found[-1]["points"]
    return {"log": log, "lines": found} if found else None


def _plain(name: str) -> str:
    """A name that data may have chosen: short, one line, and without the marks that Bokeh takes for formulas."""
    text = " ".join(str(name).split())[:60]
    return text.replace("$$", "$ $").replace("\\(", "( ").replace("\\[", "[ ") or "?"
