"""A fuzz target over extraction, parsing and every verifier that runs in the caller's process."""

import math
import random
import time

from reward.reading.math_guard import refusal
from reward.score import score_local, score_quick
from reward.spec import resolve
from reward.types import STATUSES
from reward.verifiers.math_expressions import quick, read

NUM_CASES = 20_000
SLOWEST_SECONDS = 1.0  # of processor time
REFERENCES = {
    "multiple-choice": "A, C",
    "number": "-1,234.5",
    "math-expressions": "12",
    "bbox": "[10, 20, 110, 220]",
    "detection": '[{"bbox_2d": [0, 0, 10, 10], "label": "cat"}]',
    "ocrtext": "Total: $12.50",
    "boolean": "no",
    "any": "Paris",
}
TOKENS = [
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    "\\boxed{",
    "}",
    "{",
    "\\text{",
    "\\frac{",
    "$",
    "$$",
    "**",
    "*",
    "`",
    "```",
    "\\(",
    "\\)",
    "\\[",
    "\\]",
    "(",
    ")",
    "[",
    "]",
    ",",
    ".",
    ";",
    ":",
    "/",
    "%",
    "^",
    "^{",
    "_",
    "-",
    "+",
    "=",
    "~",
    "!",
    "?",
    "<",
    ">",
    "|",
    "&",
    "\\\\",
    "\\",
    "A",
    "B",
    "C",
    "yes",
    "no",
    "not",
    "or",
    "and",
    "true",
    "1",
    "12",
    "-1,234.5",
    "1e999",
    "9",
    "99999999",
    "nan",
    "inf",
    "x",
    "10",
    "20",
    "110",
    "220",
    "0.5",
    "½",
    "²",
    "√",
    "π",
    "°",
    "×",
    "−",
    "５",
    "Ａ",
    '{"bbox_2d":',
    '"label":',
    '"cat"',
    "\u202e",
    "\x00",
    "�",
    "\n",
    "\t",
    "",
    "\xa0",
    "é",
    "é",
    "日本",
    "🙂",
    "of",
    "to",
    "cm",
    "$",
    "€",
]


def random_text(chooser):
    shape = chooser.random()
    if shape < 0.1:
        return chooser.choice(TOKENS) * chooser.choice([1, 10, 1000, 5000])
    if shape < 0.2:
        return "".join(chr(chooser.randrange(0x110000)) for _ in range(chooser.randrange(200)))
    return chooser.choice(["", " "]).join(chooser.choices(TOKENS, k=chooser.randrange(60)))


def test_fuzz():
    seed = 20260219
    chooser = random.Random(seed)
    params = resolve("math-expressions").params
    for case in range(NUM_CASES):
        text = random_text(chooser)
        answer_type = chooser.choice(sorted(REFERENCES))
        completion = chooser.choice(
            ["<answer>{}</answer>", "\\boxed{{{}}}", "{}", "<think>a</think><answer>{}</answer>"]
        ).format(text)
        started = time.process_time()
        if answer_type == "math-expressions":
            if refusal(text) is None:
                read(text)
            quick(text, (REFERENCES[answer_type],), params)
            output = score_quick(completion, REFERENCES[answer_type], answer_type)
        else:
            output = score_local(completion, REFERENCES[answer_type], answer_type, prompt_type="think")
        took = time.process_time() - started
        assert took < SLOWEST_SECONDS, (seed, case, answer_type, completion[:300])
        if output is not None:
            assert 0.0 <= output.total <= 1.0
            assert all(math.isfinite(value) for value in output.parts.values())
            assert output.status in STATUSES
