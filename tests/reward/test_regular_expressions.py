"""Every regular expression of `reward/` is attacked with repeats made from the expression itself.

Collected are the compiled patterns of every module and the first argument of every `re.*` call. An attack is
20,000 characters long and has a budget of processor time that linear matching needs a hundredth of.
"""

import ast
import builtins
import importlib
import itertools
import pkgutil
import re
import signal
import time
import unicodedata
from collections import defaultdict
from re import _constants as sre
from re import _parser

import pytest

import reward
from reward.reading.math_guard import refusal
from reward.reading.unicode import normalize
from reward.score import score_quick

NUM_CHARS = 20_000
BUDGET_SECONDS = 0.4
SEARCHING = {"search", "sub", "subn", "findall", "finditer", "split"}
CATEGORIES = {
    "DIGIT": "1", "SPACE": " \n", "WORD": "a1_", "NOT_DIGIT": "!a", "NOT_SPACE": "a1", "NOT_WORD": "! ",
}  # fmt: skip
METHODS = {*SEARCHING, "match", "fullmatch"}
FLAGS = {"re.IGNORECASE": re.I, "re.DOTALL": re.S, "re.ASCII": re.A, "re.MULTILINE": re.M, "re.VERBOSE": re.X}


def modules():
    for found in pkgutil.walk_packages(reward.__path__, "reward."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


class Unknown(str):
    """What a local name stands for, whose text is not known before the call: one letter, as are its attributes."""

    __slots__ = ()

    def __getattr__(self, name):
        return Unknown("x")


class Names(dict):
    """The names of a module, and a letter for any other."""

    def __missing__(self, name):
        if hasattr(builtins, name):
            raise KeyError(name)
        return Unknown("x")


def collected():
    """(module, where, pattern, is it searched for) of every regular expression."""
    trees = {module.__name__: ast.parse(open(module.__file__).read()) for module in modules()}  # noqa: SIM115
    used = defaultdict(set)  # methods by name, within a module for a private one
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in METHODS:
                owner = (
                    node.value.attr
                    if isinstance(node.value, ast.Attribute)
                    else getattr(node.value, "id", "")
                )
                used[module if owner.startswith("_") else "", owner].add(node.attr)
    found = {}
    for module in modules():
        for name, value in vars(module).items():
            values = value if isinstance(value, tuple | list) else [value]
            values = [*value.values(), *value] if isinstance(value, dict) else values
            for pattern in values:
                for one in pattern if isinstance(pattern, tuple) else [pattern]:
                    if isinstance(one, re.Pattern) and isinstance(one.pattern, str):
                        methods = used[module.__name__ if name.startswith("_") else "", name]
                        searched = bool(methods & SEARCHING) or not methods or one is not value
                        found.setdefault((one.pattern, one.flags), (module.__name__, name, one, searched))
        for node in ast.walk(trees[module.__name__]):
            inline = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if (
                not inline
                or getattr(node.func.value, "id", None) != "re"
                or node.func.attr not in {*METHODS, "compile"}
            ):
                continue
            code = compile(ast.Expression(node.args[0]), module.__file__, "eval")
            text = eval(code, dict(vars(module)), Names(vars(module)))
            text = text.pattern if isinstance(text, re.Pattern) else text
            flags = sum(flag for name, flag in FLAGS.items() if name in ast.unparse(node))
            one = re.compile(text, flags)
            where = f"line {node.lineno}"
            found.setdefault(
                (one.pattern, one.flags), (module.__name__, where, one, node.func.attr in SEARCHING)
            )
    return list(found.values())


def example(items, times=1):
    """A text that a parsed pattern matches, every repeat taken `times` where that is allowed."""
    return "".join(_example(operator, value, times) for operator, value in items)


def _example(operator, value, times):  # noqa: PLR0911
    if operator is sre.LITERAL:
        return chr(value)
    if operator is sre.NOT_LITERAL:
        return "a" if value != ord("a") else "b"
    if operator is sre.ANY:
        return "a"
    if operator is sre.IN:
        return next(iter(members(value)), "a")
    if operator is sre.BRANCH:
        return example(value[1][0], times)
    if operator is sre.SUBPATTERN:
        return example(value[3], times)
    if operator is sre.ATOMIC_GROUP:
        return example(value, times)
    if operator in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        low, high, inner = value
        return example(inner, times) * min(max(low, times), int(high))
    return ""


def members(items):
    """Characters of a class, a few of each range and category."""
    negated = items[0][0] is sre.NEGATE
    inside = []
    for operator, value in items:
        if operator is sre.LITERAL:
            inside.append(chr(value))
        elif operator is sre.RANGE:
            inside += [chr(value[0]), chr(value[1])]
        elif operator is sre.CATEGORY:
            kind = str(value).removeprefix("CATEGORY_").removeprefix("UNI_")
            inside += CATEGORIES.get(kind, "")
    if negated:
        return [char for char in "a1 x{(" if char not in inside] or ["\u00e9"]
    return inside


def repeats(items, before=""):
    """(text before, one turn) of every repeat in a parsed pattern, the inner ones too, by each way through a branch."""
    for operator, value in items:
        if operator in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            inner = value[2]
            if int(value[1]) > 8:
                for turn in turns(inner):
                    yield before, turn
            yield from repeats(inner, before)
        elif operator is sre.SUBPATTERN:
            yield from repeats(value[3], before)
        elif operator is sre.ATOMIC_GROUP:
            yield from repeats(value, before)
        elif operator is sre.BRANCH:
            for way in value[1]:
                yield from repeats(way, before)
        elif operator in (sre.ASSERT, sre.ASSERT_NOT):
            yield from repeats(value[1], before)
        before += _example(operator, value, 1)


def turns(items):
    found = {example(items, 1), example(items, 2), example(items, 0)}
    if len(items) == 1 and items[0][0] is sre.IN:
        found |= set(members(items[0][1])[:6])
    for operator, value in items:
        if operator is sre.SUBPATTERN:
            found |= turns(value[3])
        elif operator is sre.BRANCH:
            found |= {example(way, 1) for way in value[1]}
    return {text for text in found if text}


def attacks(pattern, num_chars):
    parsed = _parser.parse(pattern.pattern, pattern.flags)
    seen = list(dict.fromkeys(repeats(parsed)))
    texts = {("", turn) for _, turn in seen} | set(seen)
    ones = [turn for turn in dict.fromkeys(turn for _, turn in seen) if len(turn) == 1][:5]
    texts |= {("", a + b) for a, b in itertools.permutations(ones, 2)}
    whole = example(parsed)
    texts |= {("", whole)} if whole else set()
    for before, turn in sorted(texts):
        body = before + turn * (num_chars // len(turn))
        for end in ("", "\0", "!"):
            yield body + end


class TooSlow(Exception):
    pass


def alarm(*_):
    raise TooSlow


def slowest(pattern, searched, num_chars):
    """The first attack that is over its budget of processor time, or None."""
    before = signal.signal(signal.SIGVTALRM, alarm)
    try:
        for text in attacks(pattern, num_chars):
            signal.setitimer(signal.ITIMER_VIRTUAL, BUDGET_SECONDS)
            try:
                if searched:
                    for _ in pattern.finditer(text):
                        pass
                else:
                    pattern.fullmatch(text), pattern.match(text)
            except TooSlow:
                return text
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    finally:
        signal.signal(signal.SIGVTALRM, before)
    return None


def test_every_regular_expression_of_the_package_is_found():
    found = collected()
    assert len(found) > 100
    assert {"reward.extract", "reward.reading.boxes", "reward.parts.think_bbox"} <= {
        module for module, *_ in found
    }


@pytest.mark.parametrize(
    ("pattern", "searched"),
    [(r"(?:a+)+b", False), (r"(?:\w|\d\d?)*!", False), (r" +$", True), (r"(?:x+x+)+y", False)],
)
def test_the_attack_finds_patterns_that_are_not_linear(pattern, searched):
    assert slowest(re.compile(pattern), searched, NUM_CHARS) is not None


def test_every_regular_expression_is_linear():
    slow = []
    for module, where, pattern, searched in collected():
        text = slowest(pattern, searched, NUM_CHARS)
        if text is not None:
            slow.append(f"{module}, {where}: {pattern.pattern!r} on {text[:20]!r}...{text[-3:]!r}")
    assert slow == []


TYPES = (
    "multiple-choice",
    "number",
    "math-expressions",
    "bbox",
    "detection",
    "ocrtext",
    "boolean",
    "critic",
    "any",
)
REFERENCES = {
    "bbox": "[1, 2, 3, 4]",
    "detection": "[[1, 2, 3, 4]]",
    "number": "5",
    "multiple-choice": "A",
    "boolean": "yes",
}
TURNS = (
    "\u0301", "\u0301\u0316", "\ufdfa", "[1,2,3,4]", '{"x1":1,"label":"a"}', "[", "(", "{", "a", "1", " ", "\n", "$",
    "\\boxed{", "}", "**", "```", "<answer>", "</answer>", "<think>", "</think>", "\\text{", "A. ", "A) no ",
    "(1,", "=", "x=", "1,000,", "^", "9^{9}", "\\frac{1}{", "是", "１", "not ", "or ", "; ", "because ", "5 s", "\\",
    "\u200b", "_", "'s", "the ",
)  # fmt: skip


@pytest.mark.parametrize("answer_type", TYPES)
def test_what_the_callers_process_does_is_bounded(answer_type):
    """Under half a second on hostile completions of every length up to the largest, with every part that may run."""
    spec = {
        "repetition": {"n": 8, "max_fraction": 0.3},
        "weights": {"accuracy": 1, "format": 1, "think_bbox": 1},
    }
    slow = {}
    for turn, num_chars in itertools.product(TURNS, (900, 1_990, 3_990, 19_900, 49_900, 99_900, 399_000)):
        body = turn * ((num_chars - 60) // len(turn))
        whole = (f"<answer>{body}</answer>", f"<think>{body}</think><answer>5</answer>", f"<answer>5{body}")
        # What is thought and what is cut off never reaches a verifier: it costs the same for every type.
        for completion in whole if answer_type == "any" and num_chars > 30_000 else whole[:1]:
            for _ in range(3):  # processor time too is longer while other work shares a core
                start = time.process_time()
                score_quick(
                    completion, REFERENCES.get(answer_type, "a word"), answer_type,
                    prompt_type="think", problem_type="spatial-reasoning", spec=spec,
                )  # fmt: skip
                seconds = time.process_time() - start
                if seconds <= 0.4:
                    break
            else:
                slow[turn, num_chars, completion[:9]] = round(seconds, 2)
    assert slow == {}


@pytest.mark.parametrize(
    "bomb",
    [
        "９^{９９９９９９}",
        "9⁹⁹⁹⁹⁹⁹",
        "\\binom{９９９９９}{５０００}",
        "５００！",
        "𝟗^{𝟗𝟗𝟗𝟗𝟗𝟗}",
        "10^(⁹⁹⁹⁹⁹⁹)",
        "９^{９^{９}}",
        "1ｅ99999",
    ],
)
def test_bombs_in_other_digits_are_refused(bomb):
    assert refusal(bomb)
    assert refusal("x^２ + ⁵√2 + ½ + 2³ + \\binom{５}{２} + ３！") is None


def test_normalisation_only_cuts_endless_runs_of_marks():
    text = ("e\u0301" * 30 + "\u0301" * 29 + "\u1e69 가 ﷺ ﬁ ") * 30
    assert normalize("NFC", text) == unicodedata.normalize("NFC", text)
    assert normalize("NFKC", text) == unicodedata.normalize("NFKC", text)
    assert len(normalize("NFC", "a" + "\u0316" * 5_000)) == 31
