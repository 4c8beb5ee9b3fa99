"""`python -m reward bench`: how fast rewards are, beside the plain way of computing the same formulas.

Prints, per answer type, rewards per second of the pool and of the baseline, and the wall time of a mixed step of 512
trajectories with both; every pair is measured one right after the other in the same run. The pool's side is the path
that training takes: `RewardPool.score` for every rollout with its sample's prompt type, spec and other arguments, so
that format and boxes in the thinking count too; the baseline computes accuracies alone. Accuracies of the two are
compared as they go, so that a fast wrong answer is noticed.
"""

import asyncio
import json
import os
import statistics
import time
from typing import NamedTuple

from reward.pool import RewardPool
from reward.settings import DEFAULT_SETTINGS
from reward.spec import WEIGHTS
from reward.tools import bench_baseline
from reward.tools.bench_data import GROUP, STEP_MIX, Prompt, make_prompt, make_step
from utils.command_line import Parser
from utils.sample import SPATIAL_PROBLEM_TYPE, Sample

KINDS = [*STEP_MIX, "ocrtext-long", "general-code"]
# Prompts of 16 rollouts per type and round; the baseline of the slow types gets fewer, or it would take minutes.
_NUM_PROMPTS = {"ocrtext-long": 4, "general-code": 1, "svg-code": 4, "math-expressions": 4}
_BASELINE_ROLLOUTS = {"ocrtext-long": 2, "svg-code": 8}


class Row(NamedTuple):
    """One line of the table: seconds per reward of both, and the largest difference in accuracy between them."""

    kind: str
    pool_seconds: float
    baseline_seconds: float
    difference: float

    @property
    def ratio(self) -> float:
        return self.baseline_seconds / self.pool_seconds


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; returns 0."""
    parser = Parser(prog="python -m reward bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="measurements of which the median counts")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the pool")
    parser.add_argument(
        "--types", nargs="*", choices=KINDS, default=KINDS, help="answer types to time one by one"
    )
    parser.add_argument("--no-step", action="store_true", help="leave out the mixed step")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args(argv)

    with RewardPool(arguments.workers) as pool:
        _score_with_pool(pool, make_step(0))  # workers up, libraries warm
        rows = [measure_type(pool, kind, arguments.rounds) for kind in arguments.types]
        if not arguments.no_step:
            rows.append(measure_step(pool, arguments.rounds))
        counters = pool.counters()
    report = {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "workers": arguments.workers,
        "step_mix": {kind: count * GROUP for kind, count in STEP_MIX.items()},
        "rows": [{**row._asdict(), "ratio": row.ratio} for row in rows],
        "pool": counters,
    }
    print(json.dumps(report, indent=2) if arguments.json else _table(report, rows))
    return 0


def measure_type(pool: RewardPool, kind: str, rounds: int) -> Row:
    """Seconds per reward of one answer type. Every round has new prompts: nothing is warm but the processes."""
    ours, plain, difference = [], [], 0.0
    for round_number in range(1, rounds + 1):
        prompts = [make_prompt(kind, 1000 * round_number + i) for i in range(_NUM_PROMPTS.get(kind, 8))]
        seconds, accuracies = _score_with_pool(pool, prompts)
        ours.append(seconds / (GROUP * len(prompts)))
        few = _BASELINE_ROLLOUTS.get(kind, GROUP)
        sample = prompts[0]._replace(completions=prompts[0].completions[:few])
        seconds, expected = _score_plainly([sample])
        plain.append(seconds / few)
        difference = max(difference, _largest_difference([accuracies[0][:few]], expected))
    return Row(kind, statistics.median(ours), statistics.median(plain), difference)


def measure_step(pool: RewardPool, rounds: int) -> Row:
    """Seconds per mixed step of 512 trajectories."""
    ours, plain, difference = [], [], 0.0
    for round_number in range(1, rounds + 1):
        prompts = make_step(round_number)
        seconds, accuracies = _score_with_pool(pool, prompts)
        ours.append(seconds)
        seconds, expected = _score_plainly(prompts)
        plain.append(seconds)
        difference = max(difference, _largest_difference(accuracies, expected))
    return Row("step of 512", statistics.median(ours), statistics.median(plain), difference)


def _score_with_pool(pool: RewardPool, prompts: list[Prompt]) -> tuple[float, list[list[float]]]:
    async def score_prompt(prompt: Prompt) -> list[float]:
        sample = as_sample(prompt)
        rollouts = (
            pool.score(**DEFAULT_SETTINGS.arguments(sample, completion, num_tokens=num_tokens, progress=0.5))
            for completion, num_tokens in zip(prompt.completions, map(len, prompt.completions), strict=True)
        )
        return [output.parts["accuracy"] for output in await asyncio.gather(*rollouts)]

    async def score_all() -> list[list[float]]:
        return await asyncio.gather(*map(score_prompt, prompts))

    start = time.perf_counter()
    accuracies = asyncio.run(score_all())
    return time.perf_counter() - start, accuracies


def as_sample(prompt: Prompt) -> Sample:
    """A row of curated data, with a thinking prompt and a spec, as the loader would give it to the workflow."""
    kind = SPATIAL_PROBLEM_TYPE if prompt.answer_type == "bbox" else "math"
    spec = {"weights": WEIGHTS, "max_answer_fraction": 0.5}
    return Sample("bench/0", (), "?", (prompt.answer,), kind, prompt.answer_type, "bench", "think", spec)


def _score_plainly(prompts: list[Prompt]) -> tuple[float, list[list[float]]]:
    start = time.perf_counter()
    accuracies = [bench_baseline.score_prompt(prompt) for prompt in prompts]
    return time.perf_counter() - start, accuracies


def _largest_difference(left: list[list[float]], right: list[list[float]]) -> float:
    pairs = (
        (a, b) for ours, theirs in zip(left, right, strict=True) for a, b in zip(ours, theirs, strict=True)
    )
    return max(abs(a - b) for a, b in pairs)


def _table(report: dict, rows: list[Row]) -> str:
    lines = [
        "RewardPool.score for every rollout with prompt type and spec, as training asks, against accuracies alone",
        f"{report['cores']} cores, {report['workers']} workers, load {report['load']}",
        f"{'type':<18}{'rewards/s':>12}{'baseline/s':>12}{'ratio':>9}{'largest difference':>20}",
    ]
    for row in rows:
        if row.kind in KINDS:
            rates = f"{1 / row.pool_seconds:>12.0f}{1 / row.baseline_seconds:>12.1f}"
        else:
            rates = f"{row.pool_seconds:>10.3f} s{row.baseline_seconds:>10.2f} s"
        lines.append(f"{row.kind:<18}{rates}{row.ratio:>8.1f}x{row.difference:>20.1e}")
    mix = ", ".join(f"{count} {kind}" for kind, count in report["step_mix"].items())
    return "\n".join([*lines, f"step of 512: {mix}", f"pool: {report['pool']}"])
