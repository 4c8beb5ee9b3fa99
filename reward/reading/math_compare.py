"""Compare parsed expressions with Math-Verify: refute quickly by numbers, veto what it would forgive wrongly."""

import math
import re
from collections.abc import Mapping
from typing import Any

from math_verify import verify as math_verify
from sympy import Expr, Rational, Set, Symbol
from sympy.core.relational import Relational

from reward.reading.math_text import ASSIGNED
from reward.reading.math_units import Split
from reward.reading.numbers import parse_literal

EQUALS = re.compile(r"(?<![<>!:\\])=")

_RELATION = re.compile(r"[<>]|\\(?:[lg]e|pm|mp|cup|cap|setminus)(?![a-z])")
_POINTS = (Rational(7, 11), Rational(23, 17), Rational(5, 3))
_RELATIVE = 1e-6


def equal_expressions(gold: tuple[Any, ...], predicted: tuple[Any, ...], params: Mapping[str, Any]) -> bool:
    """True when a reading of the prediction equals a reading of the reference (gold first: the order matters)."""
    if not gold or not predicted:
        return False
    left, right = gold[0], predicted[0]
    if _inequality(right) != _inequality(left) and not _set_like(left) and not _set_like(right):
        return False
    refuted, distance, size = _numeric_difference(left, right)
    if refuted is not None:
        allowed = max(float(params["tolerance"]), float(params["relative_tolerance"]) * size)
        if allowed > 0 and distance <= allowed:
            return True
        if refuted:
            return False
    return math_verify(left, right, timeout_seconds=None, allow_set_relation_comp=True)


def _inequality(expression: Any) -> bool:
    return isinstance(expression, Relational) and expression.rel_op not in ("==",)


def _set_like(expression: Any) -> bool:
    return isinstance(expression, Set) or getattr(getattr(expression, "func", None), "__name__", "") == "And"


def _numeric_difference(left: Any, right: Any) -> tuple[bool | None, float, float]:
    """(refuted, distance, size of the reference) of two scalar expressions at fixed points; refuted None: cannot tell.

    A tolerance applies to constants alone, so the distance of expressions with free symbols is infinite.
    """
    if not isinstance(left, Expr) or not isinstance(right, Expr):
        return None, math.inf, 0.0
    try:
        symbols = sorted(left.free_symbols | right.free_symbols, key=lambda symbol: symbol.name)
    except AttributeError:
        return None, math.inf, 0.0
    if not all(isinstance(symbol, Symbol) for symbol in symbols) or len(symbols) > len(_POINTS) * 2:
        return None, math.inf, 0.0
    values = {
        symbol: _POINTS[index % len(_POINTS)] + index // len(_POINTS) for index, symbol in enumerate(symbols)
    }
    try:
        a = complex(left.doit().subs(values).evalf(20))
        b = complex(right.doit().subs(values).evalf(20))
    except (TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
        return None, math.inf, 0.0
    if not all(math.isfinite(part) for part in (a.real, a.imag, b.real, b.imag)):
        return None, math.inf, 0.0
    distance = abs(a - b)
    refuted = distance > _RELATIVE * max(abs(a), abs(b))
    return refuted, math.inf if symbols else distance, abs(a)


def veto(body: str, wanted: str) -> str | None:
    """Why two texts that Math-Verify might call equal are not, or None."""
    if {_bracket_kind(body), _bracket_kind(wanted)} >= {"set", "ordered"}:
        return "a set is neither a tuple nor an interval"
    left = EQUALS.split(wanted)[0].strip()
    equation = EQUALS.search(wanted) and "," not in wanted and not ASSIGNED.fullmatch(left)
    if equation and not EQUALS.search(body) and not re.search(r"[<>]|\\[lg]e", body):
        return f"a value is not the equation in {left!r}"
    if _is_list(body) != _is_list(wanted) and not _RELATION.search(body + wanted):
        return "a list is not a scalar"
    mine, theirs = _variables(body), _variables(wanted)
    if mine != theirs and {letter.lower() for letter in mine} == {letter.lower() for letter in theirs}:
        return f"variables {sorted(mine)} are not {sorted(theirs)}"
    return None


def _is_list(text: str) -> bool:
    text = re.sub(
        r"^(?:\\\{(.*)\\\}|[(\[](.*)[)\]])$",
        r"\1\2",
        EQUALS.split(text)[-1].strip() if text.count("=") == 1 else text,
    )
    return len(_top_level(text)) > 1


def _variables(text: str) -> set[str]:
    """Single letters that stand for themselves; the name left of an equal sign does not matter."""
    text = EQUALS.split(text)[-1]
    return set(re.findall(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])", re.sub(r"\\[A-Za-z]+", " ", text)))


def assigned_pairs(body: str, wanted: str) -> list[tuple[str, str]] | None:
    """(reference, answer) per variable where the reference assigns several ("x=1, y=2"), else None.

    A bare answer "(1, 2)" or "1, 2" counts in the order of the reference.
    """
    pairs = [EQUALS.split(piece) for piece in _top_level(wanted)]
    names = [pair[0].strip() for pair in pairs]
    if len(pairs) < 2 or any(len(pair) != 2 for pair in pairs) or len(set(names)) != len(names):
        return None
    if not all(ASSIGNED.fullmatch(name) for name in names):
        return None
    pieces = _top_level(re.sub(r"^\((.*)\)$", r"\1", body))
    given = [EQUALS.split(piece) for piece in pieces]
    if len(given) != len(pairs):
        return None
    if all(len(piece) == 2 for piece in given):
        values = {piece[0].strip(): piece[1] for piece in given}
        return [(pair[1], values.get(name, r"\emptyset")) for name, pair in zip(names, pairs, strict=True)]
    return [(pair[1], piece) for pair, piece in zip(pairs, pieces, strict=True)]


def _top_level(text: str) -> list[str]:
    """The text split at commas (and semicolons) that stand in no bracket."""
    pieces, depth = [""], 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if char in ",;" and depth <= 0:
            pieces.append("")
        else:
            pieces[-1] += char
    return [piece.strip() for piece in pieces if piece.strip()]


def _bracket_kind(text: str) -> str:
    text = re.sub(r"^(?:[A-Za-z]|\([a-z, ]+\)) ?= ?", "", text.strip())
    if text.startswith(r"\{") and text.endswith(r"\}"):
        return "set"
    ordered = re.fullmatch(r"[(\[][^()\[\]]*,[^()\[\]]*[)\]]", text)
    return "ordered" if ordered else "other"


def radians_if_needed(answer: Split, gold: Split) -> tuple[str, str]:
    """The two bodies, an angle in degrees written in radians when the other side is written with pi."""
    bodies = [answer.body, gold.body]
    for index, (one, other) in enumerate(((answer, gold), (gold, answer))):
        if (
            one.unit == ("°^1", 1)
            and r"\pi" in other.body
            and other.unit is None
            and parse_literal(one.body) is not None
        ):
            bodies[index] = rf"\frac{{{one.body} \pi}}{{180}}"
    return bodies[0], bodies[1]
