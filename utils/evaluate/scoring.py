"""What our tasks do inside lmms-eval: take the answer out of the text, keep the task's scoring, note each sample.

lmms-eval imports this by name from the task files that `prepare` writes; it runs in the evaluation environment and
imports nothing of this project but the table of benchmarks. Of a sample's record lmms-eval keeps what `process_results`
returns, so `sample_score` (0 to 1) and `cluster` (which document it asks about) are put there, for paired comparisons.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from utils.evaluate.benchmarks import BENCHMARKS

SAMPLE_SCORE, CLUSTER = "sample_score", "cluster"
PREFIX = "process_results_"
WEMATH, WEMATH_PROBLEMS = "wemath/reasoning/wemath_testmini_thinking.yaml", 525
ANSWER = re.compile(r"<answer>([\s\S]*?)</answer>")
JUDGEMENT = re.compile(r"(?:answer\s*)?([12])\.?", re.IGNORECASE)


def answer_of(text: str) -> str:
    """The text in the last <answer></answer>; without one what follows the thinking; "" where thinking was cut off.

    >>> answer_of("<think>3 + 4</think><answer> 7 </answer>"), answer_of("B"), answer_of("<think>Let me see")
    ('7', 'B', '')
    """
    _, thought, rest = text.rpartition("</think>")
    if not thought and "<think>" in text:
        return ""
    found = ANSWER.findall(rest)
    return (found[-1] if found else rest).strip()


class AnswerFilter:
    """lmms-eval's filter for a shipped task: `answer_of`, then the filters that the task ships with.

    `file` is the task's file below `lmms_eval/tasks`; of a reasoning variant, which reads the tags itself, nothing is
    taken away.
    """

    def __init__(self, file: str) -> None:
        self._is_reasoning = "reasoning/" in file
        self._is_judgement = file.startswith("vl_rewardbench/")
        pipelines = shipped(file).get("filter_list") or []
        self._then = [_filter(component) for component in (pipelines[0]["filter"] if pipelines else [])]

    def apply(self, resps: Any, docs: Any) -> list[Any]:
        """`resps`: a list per document of the texts written for it; what comes back is what the task scores."""
        if self._is_reasoning:
            answers = [list(texts) for texts in resps]
        else:
            answers = [[self._answer(text) for text in texts] for texts in resps]
        for then in self._then:
            answers = list(then.apply(answers, docs))
        return [answer[0] if isinstance(answer, list) else answer for answer in answers]

    def _answer(self, text: str) -> str:
        answer = answer_of(text)
        judged = JUDGEMENT.fullmatch(answer) if self._is_judgement else None
        # in the words that the task looks for; it would ask a judge to read any other
        return f"Overall Judgment: Answer {judged[1]} is better." if judged else answer


def _filter(component: dict[str, Any]) -> Any:
    from lmms_eval.filters import get_filter

    options = {key: value for key, value in component.items() if key != "function"}
    return get_filter(component["function"])(**options)


def __getattr__(name: str) -> Any:
    """`process_results_NAME` for every benchmark NAME, `process_results_NAME__thinking` for its reasoning variant."""
    benchmark, _, mode = name.removeprefix(PREFIX).partition("__")
    if not name.startswith(PREFIX) or benchmark not in BENCHMARKS:
        raise AttributeError(name)
    return noted(benchmark, mode or "fast")


@cache
def noted(name: str, mode: str) -> Callable[..., dict[str, Any]]:
    """The `process_results` of a benchmark's task, with the sample's score and its document beside the metrics."""
    row = BENCHMARKS[name]
    task = row.task(mode)
    score = shipped(task.file).get("process_results", _anls)

    def process_results(doc: dict[str, Any], results: Sequence[str]) -> dict[str, Any]:
        metrics = score(doc, results)
        record = {SAMPLE_SCORE: sample_score(metrics.get(task.metric), doc)}
        if row.cluster and doc.get(row.cluster) is not None:
            record[CLUSTER] = str(doc[row.cluster])
        return metrics | record

    return process_results


def _anls(doc: dict[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """What lmms-eval does by itself for a task whose metric is `anls` (DocVQA, InfoVQA)."""
    from lmms_eval.api.metrics import anls

    return {"anls": anls(doc["answers"], list(results))["anls"]}


def sample_score(value: Any, doc: dict[str, Any]) -> float | None:  # noqa: PLR0911 - a case a line
    """What one sample's metric says, from 0 to 1, whatever the task keeps of it; None where only the task's own
    aggregation, with a judge, can say.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return None if value is None else float(value)
    for key in ("score", "acc_score", "true_false", "is_correct"):
        if key in value:
            return float(value[key])
    if "scores" in value:
        return float(bool(value["scores"][0]))
    if (
        "question_type" in value and "parsed_pred" in value
    ):  # MMMU, whose open questions have a rule of their own
        from lmms_eval.tasks.mmmu.utils import evaluate_mmmu

        return float(evaluate_mmmu([value])[1]["acc"])
    given = next((value[key] for key in ("pred", "pred_answer", "parsed_pred") if key in value), None)
    if given is not None:
        return float(str(given).strip().lower() == str(value["answer"]).strip().lower())
    if "L2-category" in value:  # MMBench
        from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer

        options = [letter for letter in "ABCDE" if str(doc.get(letter, "nan")) not in ("nan", "None")]
        return float(extract_mcq_answer(value["prediction"], choices=options) == value["answer"])
    return None


def wemath_loose(samples: Sequence[dict[str, Any]]) -> Any:
    """WeMath's loose score. As shipped it divides by the problems that are right in the end, and fails without any."""
    score = next(m for m in shipped(WEMATH)["metric_list"] if m["metric"] == "wemath_loose")["aggregation"]
    try:
        return score(samples)
    except ZeroDivisionError:
        return _wemath_unmastered(samples)


def _wemath_unmastered(samples: Sequence[dict[str, Any]]) -> float:
    # (525 - IG / 2 - RM - IK) / 525 of the task, where nothing is learned by rote, as nothing is right in the end.
    import pandas
    from lmms_eval.tasks.wemath.wemath_utils import calculate_metrics, process_steps_data

    data = pandas.DataFrame(samples)
    data["joker"] = data["acc_score"] == 1.0
    parts = calculate_metrics(
        *(process_steps_data(data[data["key"].str.contains(f"{n}steps")], n) for n in (2, 3))
    )
    lacking = sum(len(parts[f"steps{n}_filtered_rows_3"]) for n in (2, 3))
    narrow = sum(len(parts[f"steps{n}_filtered_rows_2"]) for n in (2, 3))
    return (WEMATH_PROBLEMS - narrow / 2 - lacking) / WEMATH_PROBLEMS


@cache
def shipped(file: str) -> dict[str, Any]:
    """A task of lmms-eval as it ships. Raises FileNotFoundError: this version has no such file."""
    import lmms_eval
    from lmms_eval.utils import load_yaml_config

    path = Path(lmms_eval.__file__).parent / "tasks" / file
    if not path.is_file():
        raise FileNotFoundError(f"lmms-eval has no task file {file}: was it renamed?")
    return load_yaml_config(str(path))
