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
from reward.reading.math_guard import refusal
from reward.reading.math_text import ASSIGNED, to_latex
from reward.reading.math_units import Split, read_unit, split_unit
from reward.reading.numbers import close_enough, parse_literal, readings
from reward.types import Verdict, Verifier
from reward.verifiers.number import prepare as prepare_number

_ALLOWED = re.compile(r"[A-Za-z0-9\s\\{}()\[\]+\-/^_=<>|!,.:&%'°;Ω]*")
_TWO_NUMBERS = re.compile(r"\d[ \t]+\d|\d'")
_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}|^[A-Za-z]{3,}$")
_DOUBLE_SIGN = re.compile(r"[-+] ?[-+]")
_COMMANDS = re.compile(r"\\[A-Za-z]+(?:\{(?:[a-z]{0,2}matrix|cases|array|aligned)\})?")
_POINTS = re.compile(
    r"(?:\\(?:angle|triangle|overline|overrightarrow|widehat) ?\{?)? ?([A-Z](?: ?[A-Z]){1,5})\}?"
)
_MAX_SEGMENTS = 6


class Gold(NamedTuple):
    """A reference read once: its LaTeX, its unit, its exact value where it is a number, and its parsed form."""

    latex: str
    split: Split
    value: Fraction | None
    parsed: tuple[Any, ...]


def prepare(reference: str, params: Mapping[str, Any]) -> Gold:
    """Parse the reference. Raises ValueError when neither a number, nor mathematics, nor words can be read in it."""
    prepare_number("0", params)  # the tolerances
    reason = refusal(reference)
    if reason:
        raise ValueError(reason)
    gold = read(unwrap(reference))
    if gold.value is not None or _wordy(gold.split.body):
        return gold
    parsed = parsed_expressions(gold.split.body)
    if not parsed:
        raise ValueError("neither a number nor an expression that can be parsed")
    return gold._replace(parsed=parsed)


def read(text: str) -> Gold:
    """The cheap half of reading: spelling, unit, and the exact value of a numeric literal."""
    latex = to_latex(text)
    split = split_unit(latex)
    value = parse_literal(split.body.replace(r"\times", "×").replace(r"\cdot", "×"))
    if value is not None:
        # The commas are of thousands; the parser would read a list.
        split = split._replace(body=split.body.replace(",", ""))
    return Gold(latex, split, value, ())


def quick(extracted: str, references: tuple[str, ...], params: Mapping[str, Any]) -> Verdict | None:
    """Numbers against numbers are judged in the caller's process; anything else goes to a worker."""
    if len(extracted) > 200 or any(len(reference) > 200 for reference in references):
        return None
    if refusal(extracted) or any(refusal(reference) for reference in references):
        return None
    golds = [_quick_gold(reference) for reference in references]
    if any(gold.value is None for gold in golds):
        return None
    prepare_number("0", params)
    answer = read(extracted)
    value = answer.value if answer.value is not None else _assigned_value(answer.split.body)
    if value is None:
        return None
    verdicts = (numeric_verdict(answer._replace(value=value), gold, params) for gold in golds)
    return max(verdicts, key=lambda verdict: verdict.accuracy)


@lru_cache(maxsize=2048)
def _quick_gold(reference: str) -> Gold:
    return read(unwrap(reference))


def verify(extracted: str, prepared: Gold, params: Mapping[str, Any]) -> Verdict:  # noqa: PLR0911 - one rule each
    """1 when the answer equals the reference, else 0. May be slow on hostile input: run it in a killable worker."""
    reason = refusal(extracted)
    if reason:
        return Verdict(0.0, "rejected", trace=(f"math: refused, {reason}",))
    answer = read(extracted)
    value = answer.value
    if value is None and prepared.value is not None:
        value = _assigned_value(answer.split.body)
        answer, value = (answer, value) if value is not None else _with_attached_unit(answer, prepared)
    if value is not None and prepared.value is not None:
        return numeric_verdict(answer._replace(value=value), prepared, params)
    if _all_reals(answer.latex) and _all_reals(prepared.latex):
        return Verdict(1.0, trace=("math: both are the real line",))
    points = _points(prepared.split.body), _points(answer.split.body)
    if points[0] and points[1]:
        equal = points[0] in (points[1], points[1][::-1])
        return Verdict(float(equal), trace=(f"math: named points {points[1]}, reference {points[0]}",))
    if _wordy(prepared.split.body) or _wordy(answer.split.body):
        equal = _folded(answer.latex) == _folded(prepared.latex)
        return Verdict(float(equal), trace=(f"math: compared as text with {prepared.latex!r}",))
    if _units_differ(answer.split, prepared.split):
        return Verdict(0.0, trace=(f"math: unit {answer.split.unit}, reference {prepared.split.unit}",))
    body = answer.split.body
    if not _ALLOWED.fullmatch(body) or _TWO_NUMBERS.search(body) or _DOUBLE_SIGN.search(body):
        return Verdict(0.0, "unparseable", trace=(f"math: {body[:200]!r} is not one expression",))
    return _symbolic_verdict(answer, prepared, params)


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


def _assigned_value(body: str) -> Fraction | None:
    """The number of "x = 5"."""
    left, equals, right = body.rpartition("=")
    if not equals or not ASSIGNED.fullmatch(left.strip()):
        return None
    return parse_literal(split_unit(right.strip()).body.replace(r"\times", "×"))


def _with_attached_unit(answer: Gold, gold: Gold) -> tuple[Gold, Fraction | None]:
    """Read "7m" as seven metres where the reference says so: otherwise the letter is a variable."""
    match = re.fullmatch(r"(.*\d)([A-Za-z])", answer.split.body)
    if match is None or gold.split.unit is None or read_unit(match.group(2)) != gold.split.unit:
        return answer, None
    return answer._replace(split=Split(match.group(1), gold.split.unit, False)), parse_literal(match.group(1))


def _units_differ(answer: Split, gold: Split) -> bool:
    if (answer.percent and gold.unit) or (gold.percent and answer.unit):
        return True
    return bool(answer.unit and gold.unit and answer.unit != gold.unit)


def _wordy(body: str) -> bool:
    """Whether an answer is words rather than mathematics: a run of four letters or more that is no LaTeX command."""
    return _WORDS.search(_COMMANDS.sub(" ", body)) is not None


def _folded(text: str) -> str:
    return re.sub(r"[\s{}\\]+", " ", text).strip(" .,;:'\"").casefold()


def _all_reals(latex: str) -> bool:
    return re.sub(r"[\s{}\\+]+", "", latex).casefold() in (
        "mathbbr",
        "(-infty,infty)",
        "allrealnumbers",
        "allreals",
    )


def _points(body: str) -> str:
    match = _POINTS.fullmatch(body.strip())
    return match.group(1).replace(" ", "") if match else ""


@lru_cache(maxsize=512)
def parsed_expressions(latex: str) -> tuple[Any, ...]:
    """Math-Verify's reading of a LaTeX answer, without its string fallback; empty when it cannot be parsed."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

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
    veto = compare.veto(body, wanted)
    if veto:
        return Verdict(0.0, trace=(f"math: {veto}",))
    pairs = compare.assigned_pairs(body, wanted)
    if pairs is None:
        body, wanted = compare.radians_if_needed(answer.split, gold.split)
        segments = [segment.strip() for segment in compare.EQUALS.split(body)]
        if len(segments) > _MAX_SEGMENTS:
            return Verdict(0.0, "rejected", trace=(f"math: more than {_MAX_SEGMENTS} equal signs",))
        pairs = [(wanted, body)]
        if len(segments) > 1 and not compare.EQUALS.search(wanted) and "," not in body:
            chain = segments[1:] if compare.ASSIGNED.fullmatch(segments[0]) else segments
            pairs = [(wanted, chain[-1]), *pairwise(chain)]
    for reference, prediction in pairs:
        predicted = parsed_expressions(prediction)
        if not predicted:
            return Verdict(0.0, "unparseable", trace=(f"math: cannot parse {prediction[:200]!r}",))
        references = parsed_expressions(reference)
        equal = compare.equal_expressions(references, predicted, params)
        step = f"math: Math-Verify {references[:1]} against {predicted[:1]}: {equal}"[:600]
        if not equal:
            return Verdict(0.0, trace=(step,))
    return Verdict(1.0, trace=(step,))


DEFAULTS = {"tolerance": 0, "relative_tolerance": 0}
VERIFIER = Verifier(prepare, verify, DEFAULTS, isolated=True, deadline_seconds=3.0, quick=quick)
