"""How long prompts and answers are: measured by a run or by a rehearsal, or assumed."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

NUM_DRAWN = 400  # answers that stand for the distribution
METRICS, PAGE = "metrics.jsonl", "rehearsal.json"
# Of what nobody has measured: median and spread (standard deviation of the logarithm) of answers in tokens.
SHORT, THINKING = (25, 0.6), (600, 0.9)


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt on average, and of answers as a sorted sample of their distribution; `what` says whose."""

    what: str
    prompt: float
    answers: tuple[int, ...]

    @property
    def mean(self) -> float:
        return sum(self.answers) / len(self.answers)

    @property
    def median(self) -> int:
        return self.answers[len(self.answers) // 2]


def assumed(what: str, shape: tuple[float, float], *, prompt: float, longest: int) -> Lengths:
    """Lognormal answers of (median, spread) `shape`, none above `longest`."""
    return Lengths(what, prompt, tuple(_lognormal(*shape, longest)))


def read(path: Path, *, longest: int) -> Lengths:
    """The lengths that a run (its folder or `metrics.jsonl`) or a rehearsal (folder or `rehearsal.json`) measured.

    Raises ValueError where there are none, or none in the model's own tokens.
    """
    if path.is_dir():
        path = next((path / name for name in (PAGE, METRICS) if (path / name).is_file()), path)
    if not path.is_file():
        raise ValueError(
            f"--lengths {path}: wanted a run's folder with {METRICS}, or a rehearsal's with {PAGE}"
        )
    if path.name == PAGE:
        return _of_rehearsal(path, longest)
    return _of_run(path)


def _of_run(path: Path) -> Lengths:
    answers: Counter[int] = Counter()
    prompt_tokens = rollouts = steps = 0
    for line in path.read_text().splitlines():
        record = json.loads(line)
        answers.update({int(size): count for size, count in record.get("length_histogram", {}).items()})
        prompt_tokens += record["num_sequence_tokens"] - record["num_tokens"]
        rollouts += record["num_rollouts"]
        steps += 1
    if not answers:
        raise ValueError(f"--lengths {path}: no step in it has a length_histogram")
    what = f"{path.parent} ({steps} steps, {rollouts} answers)"
    return Lengths(what, prompt_tokens / rollouts, tuple(_sample(answers, NUM_DRAWN)))


def _of_rehearsal(path: Path, longest: int) -> Lengths:
    """Answer-only rows are as long as their references; how long a model thinks, no reference says."""
    found: dict[str, Any] | None = json.loads(path.read_text()).get("lengths")
    if found is None:
        raise ValueError(f"--lengths {path}: the rehearsal ended before it had measured any")
    if found["is_bytes"]:
        raise ValueError(
            f"--lengths {path}: the rehearsal had no tokenizer of the model's and counted bytes; rehearse with the "
            "checkpoint's folder in place"
        )
    short = {int(size): count for size, count in found["references"].items()}
    share = found["thinking_share"]
    thinking = round(NUM_DRAWN * share)
    answers = _sample(short, NUM_DRAWN - thinking) + _lognormal(*THINKING, longest, count=thinking)
    what = f"the references of {path.parent}"
    if thinking:
        what += (
            f", and for the {share:.0%} of rows that think assumed answers of {THINKING[0]} tokens (median)"
        )
    return Lengths(what, found["prompt_mean"], tuple(sorted(min(size, longest) for size in answers)))


def _sample(histogram: Mapping[int, int], count: int) -> list[int]:
    """`count` lengths, evenly spaced in the sorted values of the histogram."""
    values = sorted(histogram.items())
    total, sample, seen = sum(histogram.values()), [], 0
    for size, number in values:
        seen += number
        sample += [size] * (math.floor(seen / total * count + 1e-9) - len(sample))
    return sample


def _lognormal(median: float, spread: float, longest: int, *, count: int = NUM_DRAWN) -> list[int]:
    normal = NormalDist(math.log(median), spread)
    places = ((i + 0.5) / count for i in range(count))
    return [min(max(round(math.exp(normal.inv_cdf(place))), 1), longest) for place in places]
