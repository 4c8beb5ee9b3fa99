"""Codeforces problems (open-r1/codeforces): text-only programming, judged by running Python against the tests.

`official_tests` when they are complete, else the examples of the statement. Problems with a checker of their own, with
files for input, or interactive ones cannot be judged by comparing output and are skipped.
"""

import json
from typing import Any

from dataset.sources.base import BadRow, Context, Row, Source, make_sample
from utils.sample import Sample

MAX_TESTS = 20  # per problem; all must pass
MAX_TEST_CHARS = 20_000


def to_sample(row: Row, context: Context) -> Sample:
    """General code; the reference answer is the list of tests as JSON."""
    if row.get("generated_checker") or row.get("interaction_format"):
        raise BadRow("not-comparable", f"{context.sample_id}: needs a checker or is interactive")
    if (row.get("input_mode") or "stdio") != "stdio":
        raise BadRow("not-comparable", f"{context.sample_id}: input mode {row['input_mode']!r}")
    tests = _tests(row, context)
    parts = [
        (
            "Write a Python program that solves this problem. It reads standard input and writes standard output.",
            None,
        ),
        (row["description"], None),
        (row.get("input_format"), "Input"),
        (row.get("output_format"), "Output"),
        (row.get("note"), "Note"),
    ]
    lines = [f"{title}\n{text.strip()}" if title else text.strip() for text, title in parts if text]
    for example in (row.get("examples") or [])[:3]:
        lines.append(f"Example\nInput:\n{example['input'].strip()}\nOutput:\n{example['output'].strip()}")
    return make_sample(
        context,
        source="codeforces",
        images=[],
        problem="\n\n".join(lines),
        answer=json.dumps(tests),
        problem_type="coding",
        answer_type="general-code",
    )


def _tests(row: Row, context: Context) -> list[dict[str, Any]]:
    official = (row.get("official_tests") or []) if row.get("official_tests_complete", True) else []
    tests = [
        {"input": test["input"], "output": test["output"]}
        for test in official or row.get("examples") or []
        if len(test["input"]) + len(test["output"]) <= MAX_TEST_CHARS and not test["output"].endswith("...")
    ]
    if not tests:
        raise BadRow("bad-reference", f"{context.sample_id}: no usable test")
    return tests[:MAX_TESTS]


SOURCE = Source(
    name="codeforces",
    path="open-r1/codeforces",
    config="default",
    split="train",
    columns=("description", "input_format", "output_format", "examples", "official_tests"),
    problem_type="coding",
    answer_type="general-code",
    licence="CC BY 4.0",
    to_sample=to_sample,
    eval_splits=("test",),
)
