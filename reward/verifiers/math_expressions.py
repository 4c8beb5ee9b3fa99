"""math-expressions: is the answer mathematically the reference?

In order: a numeric fast path with exact fractions and units; text answers as text; then Math-Verify, gold first, on
the answer written as LaTeX, with vetoes where its leniency would pay for a wrong answer. Hostile input is refused by
a linear scan first; what is still slow dies with the worker at the deadline (Math-Verify's own timeout needs SIGALRM,
which workers cannot rely on: it is off).
"""

import logging
import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from reward.extract import unwrap
from reward.reading.math_brackets import split_top
from reward.reading.math_guard import refusal
from reward.reading.math_names import Sides, letters, same_quantity, sides, split_equal
from reward.reading.math_prose import mathematics
from reward.reading.math_structure import Shape, shape
from reward.reading.math_structure import compare as compare_shapes
from reward.reading.math_text import to_latex
from reward.reading.math_units import Split, read_unit, split_scale, split_text_unit, split_unit
from reward.reading.number_words import SHORT_SCALES
from reward.reading.numbers import close_enough, parse_literal, readings
from reward.types import Verdict, Verifier
from reward.verifiers.number import DEFAULTS
from reward.verifiers.number import prepare as prepare_number

_ALLOWED = re.compile(r"[A-Za-z0-9\s\\{}()\[\]+\-/^_=<>|!,.:&%'°;Ω≈]*")
_TWO_NUMBERS = re.compile(r"(?<![\^_])\d[ \t]+\d|\d'")
_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}|^[A-Za-z]{3,}$|[\u4e00-\u9fff]")
_DOUBLE_SIGN = re.compile(r"[-+] ?[-+]")
_COMMANDS = re.compile(r"\\[A-Za-z]+(?:\{(?:[a-z]{0,2}matrix|cases|array|aligned)\})?")
_POINTS = re.compile(
    r"(?:\\(angle|triangle|overline|overrightarrow|widehat) ?\{?)? ?([A-Z](?: ?[A-Z]){1,5})\}?"
)
_DECIMAL = re.compile(r"-?\d{1,12}(?:\.\d{1,30})?")
_LONG_DECIMAL = re.compile(r"-?\d{0,9}\.(\d{6,30})")
_MAX_SEGMENTS = 6


class Gold(NamedTuple):
    """An answer read once: its LaTeX, its value part with its unit, its exact value where it is a number, its names.

    refused: why a reference must not be parsed (an expression bomb); such a one equals only what is written like it.
    """

    latex: str
    split: Split
    value: Fraction | None
    sides: Sides
    refused: str | None = None


def prepare(reference: str, params: Mapping[str, Any]) -> Gold:
    """Parse the reference. Raises ValueError when neither a number, nor mathematics, nor words can be read in it."""
    prepare_number("0", params)  # the tolerances
    reason = refusal(reference)
    if reason:
        if len(reference) > 200 or not re.search(r"[\^!]", reference):
            raise ValueError(reason)
        return _with_latex(to_latex(reference), None)._replace(value=None, refused=reason)
    gold = read(unwrap(reference))
    if gold.value is None and not _readable(gold.split.body):
        raise ValueError("neither a number nor an expression that can be parsed")
    return gold


def _readable(body: str) -> bool:
    if _wordy(body) or shape(body, size).kind in ("region", "matrix"):
        return True
    pieces = [part[0] for piece in shape(body, size).items for part in split_equal(piece) if part[0]]
    return bool(parsed_expressions(body)) or (
        bool(pieces) and all(parsed_expressions(piece) for piece in pieces)
    )


def read(text: str) -> Gold:
    """The cheap half of reading: spelling, names, unit, and the exact value of a numeric literal."""
    body, unit = split_text_unit(mathematics(text))
    return _with_latex(to_latex(body), unit)


def _with_latex(latex: str, unit: tuple[str, Fraction] | None) -> Gold:
    split = Split(latex, unit, False) if unit else split_unit(latex)
    found = sides(latex if unit is None else split.body)
    if len(split_top(latex, ",;")) > 1:
        found = Sides((), (split.body,), (False,))
    if found.names and len(found.values) == 1:
        split = split._replace(body=found.values[0]) if unit else split_unit(found.values[0])
    scaled = split_scale(found.values[-1]) if len(found.values) == 1 else None
    if scaled is not None and (not scaled[1] or read_unit(scaled[1])):
        return Gold(latex, Split(found.values[-1], read_unit(scaled[1]), False), scaled[0], found)
    body = split.body
    value = parse_literal(body.replace(r"\times", "×").replace(r"\cdot", "×"))
    if value is not None:
        body = body.replace(",", "")  # thousands, which the parser reads as a list
    return Gold(latex, split._replace(body=body), value, found)


def quick(extracted: str, references: tuple[str, ...], params: Mapping[str, Any]) -> Verdict | None:
    """Numbers against numbers are judged in the caller's process; anything else goes to a worker."""
    golds = [_quick_gold(reference) for reference in references]
    if any(gold is None or gold.value is None for gold in golds):
        return None
    if len(extracted) > 200 or refusal(extracted):
        return None
    prepare_number("0", params)
    answer = read(extracted)
    if answer.value is None:
        return None
    verdicts = (named_verdict(answer, gold, params) for gold in golds)
    return max(verdicts, key=lambda verdict: verdict.accuracy)


@lru_cache(maxsize=2048)
def _quick_gold(reference: str) -> Gold | None:
    """A reference read in the caller's process, None where only a worker may."""
    return None if len(reference) > 200 or refusal(reference) else read(unwrap(reference))


def verify(extracted: str, prepared: Gold, params: Mapping[str, Any]) -> Verdict:
    """1 when the answer equals the reference, else 0. May be slow on hostile input: run it in a killable worker."""
    reason = refusal(extracted)
    if prepared.refused or reason:
        same = (
            prepared.refused
            and len(extracted) <= 200
            and _spelling(to_latex(extracted)) == _spelling(prepared.latex)
        )
        if same:
            return Verdict(1.0, trace=("math: written like the reference, which is too large to evaluate",))
        return Verdict(0.0, "rejected", trace=(f"math: refused, {reason or prepared.refused}",))
    return judge(read(extracted), prepared, params)


def judge(answer: Gold, gold: Gold, params: Mapping[str, Any]) -> Verdict:  # noqa: PLR0911 - one rule each
    """The verdict on an answer that was read: numbers, words, shapes, expressions, in this order."""
    if answer.value is None and gold.value is not None:
        answer = _with_attached_unit(answer, gold)
    if answer.value is not None and gold.value is not None:
        return named_verdict(answer, gold, params)
    body, wanted = answer.split.body, gold.split.body
    points = _POINTS.fullmatch(body.strip()), _POINTS.fullmatch(wanted.strip())
    if points[0] and points[1]:
        return _points_verdict(points[0], points[1])
    shapes = shape(body, size), shape(wanted, size)
    if shapes[0].kind == shapes[1].kind == "region":
        return _shape_verdict(shapes, wanted, params)
    if _wordy(wanted) or _wordy(body):
        equal = _folded(answer.latex) == _folded(gold.latex)
        return Verdict(float(equal), trace=(f"math: compared as text with {gold.latex!r}",))
    if not same_quantity(answer.sides.names, gold.sides.names):
        return Verdict(0.0, trace=(f"math: {answer.sides.names} is not {gold.sides.names}",))
    if _units_differ(answer.split, gold.split):
        return Verdict(0.0, trace=(f"math: unit {answer.split.unit}, reference {gold.split.unit}",))
    if not _ALLOWED.fullmatch(body) or _TWO_NUMBERS.search(body) or _DOUBLE_SIGN.search(body):
        return Verdict(0.0, "unparseable", trace=(f"math: {body[:200]!r} is not one expression",))
    return _shape_verdict(shapes, wanted, params) or _symbolic_verdict(answer, gold, params)


def _shape_verdict(shapes: tuple[Shape, Shape], wanted: str, params: Mapping[str, Any]) -> Verdict | None:
    same = compare_shapes(*shapes, lambda one, other: _equal_texts(one, other, params), size)
    return (
        None
        if same is None
        else Verdict(float(same), trace=(f"math: piece by piece with {wanted!r}: {same}",))
    )


def size(text: str) -> float | None:
    """The value of a text that is a constant, as a float."""
    from reward.reading import math_compare

    value = parse_literal(text)
    if value is not None:
        return float(value)
    return (
        math_compare.constant(parsed_expressions(text))
        if len(text) < 200 and _ALLOWED.fullmatch(text)
        else None
    )


def named_verdict(answer: Gold, gold: Gold, params: Mapping[str, Any]) -> Verdict:
    """`numeric_verdict`, where the two do not name different quantities ("x = 5" is not "y = 5")."""
    if not same_quantity(answer.sides.names, gold.sides.names):
        return Verdict(0.0, trace=(f"math: {answer.sides.names} is not {gold.sides.names}",))
    return numeric_verdict(answer, gold, params)


def numeric_verdict(answer: Gold, gold: Gold, params: Mapping[str, Any]) -> Verdict:
    """Exact comparison of two numbers with their units and percent signs (`numeric.readings`)."""
    value, wanted = answer.value, gold.value
    step = f"math: number {value}, reference {wanted}"
    if (answer.split.percent and gold.split.unit) or (gold.split.percent and answer.split.unit):
        return Verdict(0.0, trace=(step, "a percentage has no unit"))
    if answer.split.unit and gold.split.unit:
        if answer.split.unit[0] != gold.split.unit[0]:
            return Verdict(0.0, trace=(step, f"units differ: {answer.split.unit[0]}, {gold.split.unit[0]}"))
        value, wanted = value * answer.split.unit[1], wanted * gold.split.unit[1]
    values = readings(value, answer.split.percent, gold.split.percent)
    equal = any(close_enough(v, wanted, params["tolerance"], params["relative_tolerance"]) for v in values)
    equal = equal or _long_decimal(answer.split.body, wanted)
    return Verdict(float(equal), trace=(step, "equal" if equal else "different"))


def _long_decimal(body: str, wanted: Fraction) -> bool:
    """A decimal of six places or more that rounds or truncates an endless one: 0.333333 for 1/3."""
    match = re.fullmatch(r"-?\d{0,9}\.(\d{6,30})", body)
    rest = wanted.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if match is None or rest == 1:
        return False
    return abs(Fraction(body) - wanted) < Fraction(1, 10 ** len(match.group(1)))


def _with_attached_unit(answer: Gold, gold: Gold) -> Gold:
    """Read "7m" as seven metres where the reference says so, "20K" as 20,000: otherwise the letter is a variable."""
    match = re.fullmatch(r"(.*\d)([A-Za-z]|bn|mn)", answer.split.body)
    if match is None:
        return answer
    value = parse_literal(match.group(1))
    if gold.split.unit is None and value is not None and match.group(2) in SHORT_SCALES:
        return answer._replace(value=value * SHORT_SCALES[match.group(2)])
    if gold.split.unit is not None and read_unit(match.group(2)) == gold.split.unit:
        return answer._replace(
            split=Split(match.group(1), gold.split.unit, False), value=parse_literal(match.group(1))
        )
    return answer


def _units_differ(answer: Split, gold: Split) -> bool:
    if (answer.percent and gold.unit) or (gold.percent and answer.unit):
        return True
    return bool(answer.unit and gold.unit and answer.unit != gold.unit)


def _wordy(body: str) -> bool:
    """Whether an answer is words rather than mathematics: a run of four letters or more that is no LaTeX command."""
    return _WORDS.search(_COMMANDS.sub(" ", body)) is not None


def _folded(text: str) -> str:
    return re.sub(r"[\s{}\\]+", " ", text).strip(" .,;:'\"").casefold()


def _spelling(latex: str) -> str:
    return re.sub(r"\s+|\\left|\\right", "", latex).replace("\\cdot", "\\times")


def _points_verdict(answer: re.Match[str], gold: re.Match[str]) -> Verdict:
    """ABC is CBA, and \\angle ABC where one side has no command; an angle is no triangle, a vector has a direction."""
    mine, theirs = (match.group(2).replace(" ", "") for match in (answer, gold))
    kinds = {match.group(1) for match in (answer, gold)} - {None}
    turned = theirs if "overrightarrow" in kinds else theirs[::-1]
    equal = len(kinds) < 2 and mine in (theirs, turned)
    return Verdict(float(equal), trace=(f"math: named points {answer.group()}, reference {gold.group()}",))


@lru_cache(maxsize=512)
def parsed_expressions(latex: str) -> tuple[Any, ...]:
    """Math-Verify's reading of a LaTeX answer, without its string fallback; empty when it cannot be parsed."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    from reward.reading import math_grammar

    math_grammar.install()
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    spelling = (
        NormalizationConfig(  # units are split off before: the parser's own rule takes the m of 7m for one
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
        )
    )
    config = [LatexExtractionConfig(boxed_match_priority=-1, normalization_config=spelling)]
    found = parse(f"${latex}$", extraction_config=config, fallback_mode="no_fallback", parsing_timeout=None)
    return tuple(found)


def _symbolic_verdict(answer: Gold, gold: Gold, params: Mapping[str, Any]) -> Verdict:
    from reward.reading import math_compare as compare

    body, wanted = answer.split.body, gold.split.body
    if body.replace(" ", "") == wanted.replace(" ", ""):
        return Verdict(1.0, trace=("math: written like the reference",))
    equation = len(gold.sides.values) > 1 and not any(gold.sides.approximate) and not gold.sides.names
    if gold.sides.names and len(answer.sides.values) > 1 and letters(wanted):
        equation, body, wanted = True, answer.latex, gold.latex  # y = 2x + 1 against 2x - y + 1 = 0
    percent = answer.split.percent and not gold.split.percent
    whole = answer.latex if percent else body  # the sign may belong to the last side alone: 5/36 = 13.9%
    chain = answer.sides if equation else sides(whole, composite=not gold.sides.names)
    if equation or len(chain.values) == 1:
        body = body if equation else chain.values[0]
        veto = compare.veto(body, wanted)
        if veto:
            return Verdict(0.0, trace=(f"math: {veto}",))
        body, wanted = compare.radians_if_needed(
            answer.split._replace(body=body), gold.split._replace(body=wanted)
        )
        return _one_comparison(body, wanted, params)
    if len(chain.values) > _MAX_SEGMENTS:
        return Verdict(0.0, "rejected", trace=(f"math: more than {_MAX_SEGMENTS} equal signs",))
    return _chain_verdict(chain, answer, gold, params)


def _chain_verdict(chain: Sides, answer: Gold, gold: Gold, params: Mapping[str, Any]) -> Verdict:
    """ "S = 3 \\times 4 = 12", "2\\sqrt{3} \\approx 3.46": every sign must hold; what is before "≈" counts."""
    for (left, right), approximate in zip(pairwise(chain.values), chain.approximate[1:], strict=True):
        if approximate:
            value = size(left)
            plain = _with_latex(right, None)
            held = value is not None and plain.value is not None and _rounds(value, plain)
        else:
            held = _equal_texts(right, left, params)
        if not held:
            return Verdict(0.0, trace=(f"math: {left!r} is not {right!r}",))
    exact = [
        value for value, about in zip(chain.values, chain.approximate, strict=True) if not about
    ] or chain.values[:1]
    candidates = [exact[-1]] if exact[-1] == chain.values[-1] else [exact[-1], chain.values[-1]]
    verdicts = [judge(_with_latex(candidate, answer.split.unit), gold, params) for candidate in candidates]
    return max(verdicts, key=lambda verdict: verdict.accuracy)


def _rounds(value: float, decimal: Gold) -> bool:
    from reward.reading.math_compare import rounds_to

    value = value * 100 if decimal.split.percent else value
    return _DECIMAL.fullmatch(decimal.split.body) is not None and rounds_to(value, decimal.split.body)


def _equal_texts(one: str, other: str, params: Mapping[str, Any]) -> bool:
    return judge(_with_latex(one, None), _with_latex(other, None), params).accuracy == 1.0


def _one_comparison(body: str, wanted: str, params: Mapping[str, Any]) -> Verdict:
    from reward.reading import math_compare as compare

    predicted, references = parsed_expressions(body), parsed_expressions(wanted)
    if not predicted:
        return Verdict(0.0, "unparseable", trace=(f"math: cannot parse {body[:200]!r}",))
    equal = compare.equal_expressions(references, predicted, params)
    if not equal and (_LONG_DECIMAL.fullmatch(body) or _LONG_DECIMAL.fullmatch(wanted)):
        decimal, other = (body, references) if _LONG_DECIMAL.fullmatch(body) else (wanted, predicted)
        value = compare.constant(other)
        equal = value is not None and abs(value - float(decimal)) < 10.0 ** -len(decimal.partition(".")[2])
    step = f"math: {references[:1]} against {predicted[:1]}: {equal}"[:600]
    return Verdict(float(equal), trace=(step,))


VERIFIER = Verifier(
    prepare, verify, DEFAULTS, isolated=True, deadline_seconds=3.0, quick=quick, remembers=True
)
