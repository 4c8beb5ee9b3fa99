"""What is remembered of a run while it goes on: its first and last steps and its evaluations."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

SHORT, LONG = 5, 10  # steps that a mean is taken over
KEPT = 20  # last steps that are remembered; no mean is over more

Path = str | tuple[str, ...]  # of a number in a record


class Watch:
    """Told of a run step by step. `settings` may hold `device` and `parity_limit` of the run (`trains/report.py`)."""

    def __init__(self, settings: Mapping[str, Any] | None = None):
        self.settings = dict(settings or {})
        self.first: list[dict[str, Any]] = []
        self.last: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.evaluations: list[tuple[float, int, float]] = []  # accuracy, samples, mean reward then
        self.best_reward = 0.0  # largest mean of SHORT steps before the last one

    def note(self, record: Mapping[str, Any]) -> None:
        """Take note of a step's record."""
        self.best_reward = max(self.best_reward, self.mean("reward", SHORT) or 0.0)
        if len(self.first) < KEPT:
            self.first.append(dict(record))
        self.last.append(dict(record))

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """Take note of a held-out evaluation, after the step that it followed."""
        overall = record.get("overall") or {}
        if isinstance(overall.get("accuracy"), int | float):
            reward = self.mean("reward", LONG)
            self.evaluations.append(
                (
                    overall["accuracy"],
                    int(overall.get("num_samples") or 0),
                    math.nan if reward is None else reward,
                )
            )

    def mean(self, path: Path, steps: int) -> float | None:
        """Mean of the last `steps` values; None where fewer are recorded. Values that are not finite do not count."""
        return _mean([at(record, path) for record in list(self.last)[-steps:]], steps)

    def start(self, path: Path, steps: int) -> float | None:
        """Mean of the first `steps` values, once as many again have followed."""
        if len(self.first) < 2 * steps:
            return None
        return _mean([at(record, path) for record in self.first[:steps]], steps)

    def names(self, section: str) -> list[str]:
        """Members of a section of the last record."""
        return sorted(self.last[-1].get(section) or {})


def at(record: Mapping[str, Any], path: Path) -> float | None:
    """The number under `a/b/c`, or under its parts where a name holds a slash; None where there is none."""
    value: Any = record
    for part in path.split("/") if isinstance(path, str) else path:
        value = value.get(part) if isinstance(value, Mapping) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _mean(values: Sequence[float | None], wanted: int) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(values) == wanted and 2 * len(known) >= wanted else None
