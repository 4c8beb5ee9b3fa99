"""What lmms-eval wrote: points per task and metric, and the score of every sample.

A folder may hold several runs; of each task the newest counts. `FILE_results.json` and `FILE_samples_TASK.jsonl` of one
run belong together by the date in front.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.evaluate.benchmarks import BENCHMARKS
from utils.evaluate.prepare import MODES
from utils.evaluate.scoring import CLUSTER, SAMPLE_SCORE

RESULT_FILES = ("*_results.json", "results.json")
FAILURES = ("[LMMS_EVAL_REQUEST_FAILED", "[LMMS_EVAL_BUDGET_EXCEEDED")
NOT_METRICS = ("stderr", "samples", "alias", "expected_accuracy", "consensus_accuracy")


@dataclass(frozen=True)
class Files:
    """Where one task's newest results lie."""

    results: Path
    samples: Path | None


@dataclass(frozen=True)
class Measured:
    """One task of one run: `metrics` in points (0 to 100), and per document `scores` (0 to 1) and `clusters`."""

    name: str  # without the mode's ending, so that modes can be compared
    mode: str | None
    metrics: dict[str, float]
    main: str | None  # the metric that the recipe's table reports, or the only one
    scores: dict[str, float]
    clusters: dict[str, str]
    num_samples: int | None = None


def newest_files(folder: Path) -> dict[str, Files]:
    """task, as it is called in the results -> its newest files below `folder`."""
    paths = {path for pattern in RESULT_FILES for path in folder.rglob(pattern)}
    found: dict[str, Files] = {}
    for path in sorted(paths, key=lambda p: (p.stat().st_mtime, p.name)):
        date = path.name.removesuffix("results.json")
        for task in _results(path):
            samples = path.with_name(f"{date}samples_{task}.jsonl")
            found[task] = Files(path, samples if samples.is_file() else None)
    return found


def read(folder: Path) -> dict[str, Measured]:
    """task -> what was measured. Raises FileNotFoundError when there is no result file, ValueError for a broken one."""
    files = newest_files(folder)
    if not files:
        raise FileNotFoundError(f"{folder} holds no result file of lmms-eval ({' or '.join(RESULT_FILES)})")
    found = [_measured(task, place) for task, place in files.items()]
    names = [one.name for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{folder} has {', '.join(twice)} in both modes; give each mode a folder of its own")
    return {one.name: one for one in found}


def _measured(task: str, files: Files) -> Measured:
    name, mode = split_mode(task)
    benchmark = BENCHMARKS.get(name)
    wanted = benchmark.task(mode or "fast") if benchmark else None
    metrics: dict[str, float] = {}
    for key, value in _results(files.results)[task].items():
        metric, number = key.split(",")[0], _number(value)
        if number is None or any(part in metric for part in NOT_METRICS):
            continue
        if wanted is not None and metric == wanted.metric:
            metrics[metric] = 100 * number / wanted.scale
        else:
            metrics[metric] = 100 * number if 0 <= number <= 1 else number
    if wanted is not None and wanted.metric not in metrics and _is_zero(files, task, wanted.metric):
        metrics[wanted.metric] = 0.0
    main = wanted.metric if wanted is not None and wanted.metric in metrics else None
    if main is None and len(metrics) == 1:
        main = next(iter(metrics))
    scores, clusters = _samples(files.samples, main)
    counts = json.loads(files.results.read_text()).get("n-samples", {}).get(task, {})
    return Measured(
        name, mode, metrics, main, scores, clusters, counts.get("effective") or len(scores) or None
    )


def split_mode(task: str) -> tuple[str, str | None]:
    """The name of a task and the mode that it ends with.

    >>> split_mode("docvqa_thinking"), split_mode("docvqa_val")
    (('docvqa', 'thinking'), ('docvqa_val', None))
    """
    for mode in MODES:
        if task.endswith(f"_{mode}"):
            return task.removesuffix(f"_{mode}"), mode
    return task, None


def _number(value: Any) -> float | None:
    if isinstance(value, str) and value.endswith("%"):  # WeMath writes its score like this
        try:
            return float(value[:-1]) / 100
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _is_zero(files: Files, task: str, metric: str) -> bool:
    # MathVista gives None instead of 0 when no answer is right.
    return any(
        key.split(",")[0] == metric and value is None for key, value in _results(files.results)[task].items()
    )


def _samples(path: Path | None, main: str | None) -> tuple[dict[str, float], dict[str, str]]:
    scores: dict[str, float] = {}
    clusters: dict[str, str] = {}
    for record in records(path):
        document = str(record["doc_id"])
        value = record.get(SAMPLE_SCORE, record.get(main) if main else None)
        if isinstance(value, (bool, int, float)) and 0 <= value <= 1:
            scores[document] = float(value)
            clusters[document] = str(record.get(CLUSTER, f"document {document}"))
    return scores, clusters


def records(path: Path | None) -> list[dict[str, Any]]:
    """The samples of one file of lmms-eval; none without a file."""
    if path is None:
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def num_failed(files: Files) -> int:
    """Samples whose answer is lmms-eval's note that the request failed."""
    return sum(
        any(
            mark in json.dumps(record.get("resps", record.get("filtered_resps")), ensure_ascii=False)
            for mark in FAILURES
        )
        for record in records(files.samples)
    )


def _results(path: Path) -> Mapping[str, Mapping[str, Any]]:
    try:
        return json.loads(path.read_text()).get("results", {})
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
