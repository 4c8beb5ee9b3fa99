"""Which mixture of sources is best? A fit over finished runs that differ in their mixture.

    python -m dataset.mixture_fit runs/mixture/* --objective mean
    python -m dataset.mixture_fit runs/mixture/* --objective digits-sum=0.5,digits-bbox=0.5 --min-weight 0.05

Each run's `run.json` names the paths and weights that its rows were drawn by, its last evaluation what came of it. The
held-out accuracy (of the objective, and of each source) is fitted by a quadratic surface over the weights
(utils/response_surface.py; the idea is MoDoMoDo's, arXiv:2505.24871). Printed: the best mixture with the range in which
it may lie and what to expect of it, ready to paste into a configuration, and the next mixture to try.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.command_line import Parser
from utils.response_surface import Surface, best, candidates, fit, next_to_try


@dataclass(frozen=True)
class Study:
    """Finished runs. `weights` `[n, k]` by `names` `[k]` of the mixed parts; `accuracy` maps a source to `[n]`."""

    runs: tuple[str, ...]
    names: tuple[str, ...]
    paths: tuple[Any, ...]
    weights: np.ndarray
    accuracy: Mapping[str, np.ndarray]


def read_study(folders: Sequence[Path]) -> Study:
    """The mixtures and last evaluations of run folders; runs that have not finished are left out with a remark.

    Raises ValueError for folders that are no runs, runs without an evaluation or mixture, runs that mix different
    parts or measured different sources.
    """
    mixtures, evaluations, used = [], [], []
    for folder in folders:
        manifest = _manifest(folder)
        if not manifest["finished"]:
            print(f"mixture_fit: {folder} has not finished and is left out", file=sys.stderr)
            continue
        if not manifest.get("mixture"):
            raise ValueError(f"{folder}/run.json names no mixture: it is older than this command")
        mixtures.append({_key(part["path"]): float(part["weight"]) for part in manifest["mixture"]})
        evaluations.append(_last_evaluation(folder))
        used.append(str(folder))
    if not used:
        raise ValueError("none of these runs has finished")
    paths = sorted({path for mixture in mixtures for path in mixture})
    sources = sorted(evaluations[0])
    for folder, evaluation in zip(used, evaluations, strict=True):
        if sorted(evaluation) != sources:
            raise ValueError(f"{folder} measured {sorted(evaluation)}, {used[0]} measured {sources}")
    weights = np.array([[mixture.get(path, 0.0) for path in paths] for mixture in mixtures])
    weights /= weights.sum(1, keepdims=True)
    accuracy = {source: np.array([e[source] for e in evaluations]) for source in sources}
    return Study(tuple(used), _short(paths), tuple(json.loads(path) for path in paths), weights, accuracy)


def objective_weights(text: str, sources: Sequence[str]) -> dict[str, float]:
    """`mean`, or `source=weight,...` over measured sources, scaled to sum to 1. Raises ValueError."""
    if text == "mean":
        return {source: 1 / len(sources) for source in sources}
    weights = _pairs(text, sources, "--objective")
    return {source: weight / sum(weights.values()) for source, weight in weights.items()}


def analyse(study: Study, objective: Mapping[str, float], min_weight: float) -> dict[str, Any]:
    """The fit in plain numbers: best mixture, its range, expectations, what to try next."""
    values = sum(weight * study.accuracy[source] for source, weight in objective.items())
    surface = fit(study.weights, values)
    among = candidates(len(study.names), min_weight)
    chosen, low, high = best(surface, among)
    by_source = {source: fit(study.weights, measured) for source, measured in study.accuracy.items()}
    tried = int(values.argmax())
    return {
        "objective": dict(objective),
        "runs": len(study.runs),
        "noise": float(np.median(surface.noise)),
        "best": {
            "mixture": _named(study, chosen),
            "low": _named(study, low),
            "high": _named(study, high),
            "expected": _expectation(surface, chosen),
            "by_source": {source: _expectation(part, chosen) for source, part in by_source.items()},
        },
        "best_tried": {
            "run": study.runs[tried],
            "mixture": _named(study, study.weights[tried]),
            "measured": float(values[tried]),
        },
        "next": {"mixture": _named(study, next_to_try(surface, study.weights, among))},
    }


def predict(study: Study, objective: Mapping[str, float], mixture: np.ndarray) -> dict[str, Any]:
    """What one run at `mixture` `[k]` is expected to reach, with the 95 % interval: objective and each source."""
    values = sum(weight * study.accuracy[source] for source, weight in objective.items())
    return {
        "mixture": _named(study, mixture),
        "objective": _expectation(fit(study.weights, values), mixture),
        "by_source": {
            source: _expectation(fit(study.weights, measured), mixture)
            for source, measured in study.accuracy.items()
        },
    }


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m dataset.mixture_fit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs")
    parser.add_argument(
        "--objective", default="mean", help="mean, or source=weight,... (default: %(default)s)"
    )
    parser.add_argument("--min-weight", type=float, default=0.0, help="of every part of a proposed mixture")
    parser.add_argument("--at", metavar="PART=WEIGHT,...", help="predict this mixture, too")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    arguments = parser.parse_args(argv)
    try:
        study = read_study(arguments.runs)
        objective = objective_weights(arguments.objective, list(study.accuracy))
        found = analyse(study, objective, arguments.min_weight)
        if arguments.at:
            found["at"] = predict(study, objective, _mixture(arguments.at, study))
    except ValueError as error:
        print(f"mixture_fit: {error}", file=sys.stderr)
        return 1
    print(describe(found, study))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def describe(found: Mapping[str, Any], study: Study) -> str:
    """The result for the terminal."""
    top = found["best"]
    lines = [
        f"{found['runs']} runs; one run differs from the next by {100 * found['noise']:.1f} points (std)"
    ]
    lines += [f"{'part':<24} {'best':>6} {'may lie in':>15} {'next to try':>12}"]
    for name, weight in top["mixture"].items():
        span = f"{top['low'][name]:.2f} .. {top['high'][name]:.2f}"
        lines.append(f"{name:<24} {weight:6.2f} {span:>15} {found['next']['mixture'][name]:12.2f}")
    lines.append(f"one run at the best mixture: {_shown(top['expected'])}")
    lines += [f"  {source:<22} {_shown(expected)}" for source, expected in top["by_source"].items()]
    tried = found["best_tried"]
    lines.append(f"best run so far: {tried['run']} with {100 * tried['measured']:.1f} %")
    if "at" in found:
        lines.append(f"at {found['at']['mixture']}: {_shown(found['at']['objective'])}")
    lines.append("train_dataset:\n  mixture:")
    for path, weight in zip(study.paths, top["mixture"].values(), strict=True):
        lines.append(f"    - {{path: {json.dumps(path)}, weight: {weight:.2f}}}")
    return "\n".join(lines)


def _expectation(surface: Surface, mixture: np.ndarray) -> dict[str, float]:
    low, high = surface.interval(mixture[None])
    return {
        "mean": float(surface.expected(mixture[None])[0][0]),
        "low": float(low[0]),
        "high": float(high[0]),
    }


def _shown(expected: Mapping[str, float]) -> str:
    return (
        f"{100 * expected['mean']:.1f} % [{100 * expected['low']:.1f}, {100 * expected['high']:.1f}] "
        "(95 %, one run)"
    )


def _named(study: Study, weights: np.ndarray) -> dict[str, float]:
    return {name: round(float(weight), 4) for name, weight in zip(study.names, weights, strict=True)}


def _mixture(text: str, study: Study) -> np.ndarray:
    weights = _pairs(text, study.names, "--at")
    values = np.array([weights.get(name, 0.0) for name in study.names])
    return values / values.sum()


def _pairs(text: str, known: Sequence[str], flag: str) -> dict[str, float]:
    found = {}
    for pair in text.split(","):
        name, _, weight = pair.partition("=")
        try:
            found[name.strip()] = float(weight)
        except ValueError:
            raise ValueError(f"{flag}: got {pair!r}; wanted name=weight") from None
    unknown = [name for name in found if name not in known]
    if unknown:
        raise ValueError(f"{flag}: no {', '.join(unknown)} here; there are {', '.join(known)}")
    if not all(np.isfinite(weight) and weight >= 0 for weight in found.values()) or not sum(found.values()):
        raise ValueError(f"{flag}: got {text!r}; wanted weights of at least 0, one of them above")
    return found


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "run.json").read_text())
    except OSError:
        raise ValueError(f"{folder} is no run: there is no run.json in it") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder}/run.json cannot be read: {error}") from error


def _last_evaluation(folder: Path) -> dict[str, float]:
    path = folder / "evaluations.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    if not lines:
        raise ValueError(f"{folder} has no evaluation: set valid_dataset")
    return {source: part["accuracy"] for source, part in json.loads(lines[-1])["source"].items()}


def _key(path: str | list[str]) -> str:
    return json.dumps(path)


def _short(paths: Sequence[str]) -> tuple[str, ...]:
    """A name for each part: the last word of its path that tells it from the others."""
    parsed = [json.loads(path) for path in paths]
    words = [Path(path if isinstance(path, str) else path[0]).with_suffix("").parts for path in parsed]
    for length in range(1, max(map(len, words), default=1) + 1):
        names = tuple("/".join(parts[-length:]) for parts in words)
        if len(set(names)) == len(names):
            return names
    return tuple(paths)


if __name__ == "__main__":
    sys.exit(main())
