"""`python -m reward audit PATH`: do the references of curated data pay for themselves and for nothing else?

Probes per source: the reference itself, blank answers, boilerplate, every wrong option, another sample's answer.
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from reward import score
from reward.registry import ANSWER_TYPES, VERIFIERS
from reward.settings import DEFAULT_SETTINGS, RewardSettings
from utils.sample import Sample, parse_spec
from utils.tables import table_rows

SELF_MINIMUM = 0.999
NOTHING_MAXIMUM = 1e-9  # blank answers, boilerplate and wrong options
OTHER_MAXIMUM = {"binary": 0.1, "graded": 0.5}  # mean accuracy of another sample's answer
BLANKS = ("", "<answer></answer>", "<answer> </answer>", "\\boxed{}", "<think>hm</think>")
BOILERPLATE = ("I don't know", "The answer is in the image.", "unknown", "Sorry, I cannot help with that.")
_COLUMNS = ("id", "answer", "answer_type", "source", "spec", "problem_type", "prompt_type", "problem")
_OPTIONAL = {"spec", "problem_type", "prompt_type", "problem"}
LOST = ("timeout", "crash")  # how a verifier that is dead answers
DEAD_AFTER = 3  # answers lost in a row: the others would be lost too, each after its deadline
_PROBES = ("self", "blank", "boilerplate", "wrong option", "other answer")


class SourceAudit(NamedTuple):
    """Mean accuracy per probe of one source and answer type (None: does not apply), and what is wrong with it."""

    source: str
    answer_type: str
    num_samples: int
    means: Mapping[str, float | None]
    failures: tuple[str, ...]
    is_dead: bool = False  # its verifier answers no more


def audit(
    path: str | Path,
    num_samples: int = 64,
    seed: int = 219,
    settings: RewardSettings = DEFAULT_SETTINGS,
    columns: Mapping[str, str] | None = None,
) -> list[SourceAudit]:
    """Audit all data that `path` names (see `utils.tables`), scored as a training with `settings` would.

    FileNotFoundError or ValueError: there is nothing to read.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in references(path, columns):
        groups[row["source"], row["answer_type"]].append(row)
    if not groups:
        raise ValueError(f"{path}: holds no rows")
    chooser = random.Random(seed)
    results = []
    for (source, answer_type), rows in sorted(groups.items()):
        chosen = rows if len(rows) <= num_samples else chooser.sample(rows, num_samples)
        results.append(audit_rows(source, answer_type, chosen, settings))
    return results


def references(path: str | Path, columns: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """The reward's columns of every row; images are not read."""
    for row in table_rows(str(path), columns or {}, _COLUMNS):
        if missing := set(_COLUMNS) - row.keys() - _OPTIONAL:
            raise ValueError(f"{path}: columns {sorted(missing)} are missing")
        yield {**row, "spec": parse_spec(row.get("spec"), row["id"])}


def audit_rows(
    source: str, answer_type: str, rows: list[dict[str, Any]], settings: RewardSettings = DEFAULT_SETTINGS
) -> SourceAudit:
    """Probe the samples of one source and answer type."""
    values: dict[str, list[float]] = {name: [] for name in _PROBES}
    failures: list[str] = []
    lost = 0
    for index, row in enumerate(rows):
        for probe, completion in probes(row, rows[(index + 1) % len(rows)]):
            try:
                output = score(**settings.arguments(_sample(row), completion, num_tokens=0))
            except ValueError as error:
                failures.append(f"{row['id']}: {error}")
                break
            lost = lost + 1 if output.status in LOST else 0
            if lost == DEAD_AFTER:
                dead = f"its verifier is dead: {output.status} on {lost} answers in a row, the last one {completion!r}"
                return SourceAudit(
                    source, answer_type, len(rows), dict.fromkeys(_PROBES), (dead,), is_dead=True
                )
            values[probe].append(output.parts["accuracy"])
            if probe == "self" and output.parts["accuracy"] < SELF_MINIMUM:
                failures.append(
                    f"{row['id']}: its own reference scores {output.parts['accuracy']:.3f} ({output.status})"
                )
    means = {name: sum(found) / len(found) if found else None for name, found in values.items()}
    graded = answer_type in ANSWER_TYPES and VERIFIERS[answer_type].defaults.get("solved_threshold", 1.0) < 1
    for name, maximum in (
        ("blank", NOTHING_MAXIMUM),
        ("boilerplate", NOTHING_MAXIMUM),
        ("wrong option", NOTHING_MAXIMUM),
        ("other answer", OTHER_MAXIMUM["graded" if graded else "binary"]),
    ):
        if means[name] is not None and means[name] > maximum:
            failures.append(f"{name}: mean accuracy {means[name]:.3f}, wanted at most {maximum:g}")
    return SourceAudit(source, answer_type, len(rows), means, tuple(failures))


def _sample(row: Mapping[str, Any]) -> Sample:
    """What a reward sees of a row."""
    unread = {"images": (), "problem": "", "problem_type": "", "prompt_type": "answer"}
    return Sample.from_row({**unread, **{name: value for name, value in row.items() if value is not None}})


def probes(row: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(probe, completion) pairs for one sample. References of general-code are tests, no answers: it has no `self`."""
    if row["answer_type"] != "general-code":
        for reference in row["answer"]:
            yield "self", f"<answer>{reference}</answer>"
    for completion in BLANKS:
        yield "blank", completion
    for text in BOILERPLATE:
        if text.casefold() not in {reference.casefold().strip(" .") for reference in row["answer"]}:
            yield "boilerplate", f"<answer>{text}</answer>"
    if row["answer_type"] == "multiple-choice":
        options = (row["spec"] or {}).get("options") or (row["spec"] or {}).get("params", {}).get("options")
        num_options = len(options) if options else 4
        wanted = {letter for reference in row["answer"] for letter in reference.upper() if letter.isalpha()}
        if all(len(reference.strip(" ().")) == 1 for reference in row["answer"]):
            for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:num_options]:
                if letter not in wanted:
                    yield "wrong option", f"<answer>{letter}</answer>"
    if not set(other["answer"]) & set(row["answer"]):
        yield "other answer", f"<answer>{other['answer'][0]}</answer>"


def table(results: list[SourceAudit]) -> str:
    """The audit for people: one line per source and type, then what failed."""
    width = max(len(f"{result.source} {result.answer_type}") for result in results)
    lines = [
        f"{'source, type':<{width}}  samples  " + "  ".join(f"{name:>12}" for name in _PROBES) + "  verdict"
    ]
    for result in results:
        cells = ["-" if result.means[name] is None else f"{result.means[name]:.3f}" for name in _PROBES]
        name = f"{result.source} {result.answer_type}"
        verdict = "FAILS" if result.failures else "good"
        lines.append(
            f"{name:<{width}}  {result.num_samples:>7}  "
            + "  ".join(f"{c:>12}" for c in cells)
            + f"  {verdict}"
        )
    for result in results:
        lines += [f"  {result.source}: {failure}" for failure in result.failures[:10]]
        if len(result.failures) > 10:
            lines.append(f"  {result.source}: and {len(result.failures) - 10} more")
    return "\n".join(lines)
