"""Compare parsed expressions with Math-Verify: refute quickly by numbers, veto what it would forgive wrongly."""

import math
import re
from collections.abc import Mapping
from typing import Any

from math_verify import verify as math_verify
from sympy import Expr, Float, I, Rational, Set, Symbol
from sympy import im as imaginary
from sympy import re as real
from sympy.core.relational import Relational

from reward.reading.math_names import letters, split_equal
from reward.reading.math_units import Split
from reward.reading.numbers import parse_literal

_RELATION = re.compile(r"[<>]|\\[lg]e(?![a-z])")
_POINTS = (Rational(7, 11), Rational(23, 17), Rational(5, 3))
_DIGITS = 40  # of the evaluation; two expressions are equal where they agree to 30
_AGREE = Rational(1, 10**30)
_LONG_DECIMAL = re.compile(r"-?\d{0,9}\.(\d{6,30})")


def equal_expressions(gold: tuple[Any, ...], predicted: tuple[Any, ...], params: Mapping[str, Any]) -> bool:
    """True when a reading of the prediction equals a reading of the reference (gold first: the order matters).

    Scalars are compared at fixed points to 30 digits; what cannot be evaluated is left to Math-Verify.
    """
    if not gold or not predicted:
        return False
    left, right = gold[0], predicted[0]
    if _inequality(right) != _inequality(left) and not _set_like(left) and not _set_like(right):
        return False
    equal, distance, size = _numeric_difference(left, right)
    if equal is not None:
        allowed = max(float(params["tolerance"]), float(params["relative_tolerance"]) * size)
        return equal or 0 < distance <= allowed
    return math_verify(left, right, timeout_seconds=None, allow_set_relation_comp=True)


def constant(expressions: tuple[Any, ...]) -> float | None:
    """The value of a parsed constant, None when it has letters or is no real number."""
    if not expressions or not isinstance(expressions[0], Expr):
        return None
    value = _evaluated(exact(expressions[0]), {})
    if value is None or value.free_symbols or abs(imaginary(value)) > _AGREE:
        return None
    return float(real(value))


def rounds_to(value: float, decimal: str) -> bool:
    """Whether a decimal as written rounds or truncates a value: 3.46 for 2*sqrt(3)."""
    places = len(decimal.partition(".")[2])
    error = abs(value - float(decimal))
    return error <= 0.5000001 * 10.0**-places or (error < 10.0**-places and abs(float(decimal)) < abs(value))


def exact(expression: Expr) -> Expr:
    """The expression with its decimals as fractions and the letter i as the imaginary unit."""
    decimals = {number: Rational(str(number)) for number in expression.atoms(Float)}
    units = {symbol: I for symbol in expression.free_symbols if symbol.name == "i"}
    return expression.xreplace({**decimals, **units})


def _inequality(expression: Any) -> bool:
    return isinstance(expression, Relational) and expression.rel_op not in ("==",)


def _set_like(expression: Any) -> bool:
    return isinstance(expression, Set) or getattr(getattr(expression, "func", None), "__name__", "") == "And"


def _numeric_difference(left: Any, right: Any) -> tuple[bool | None, float, float]:  # noqa: PLR0911
    """(equal, distance, size of the reference) of two scalar expressions at fixed points; equal None: cannot tell.

    The points are positive, where roots and logarithms of products are those of their factors; a point with one letter
    negative counts where both sides are real there. A tolerance applies to constants alone, so the distance of
    expressions with free symbols is infinite.
    """
    if not isinstance(left, Expr) or not isinstance(right, Expr):
        return None, math.inf, 0.0
    try:
        left, right = exact(left.doit()), exact(right.doit())
        symbols = sorted(left.free_symbols | right.free_symbols, key=lambda symbol: symbol.name)
    except (AttributeError, TypeError, ValueError, ArithmeticError, RecursionError, NotImplementedError):
        return None, math.inf, 0.0
    if not all(isinstance(symbol, Symbol) for symbol in symbols) or len(symbols) > len(_POINTS) * 2:
        return None, math.inf, 0.0
    distance = size = 0.0
    for shift in range(3 if symbols else 1):
        values = {
            symbol: _POINTS[(index + shift) % 3] + (index + 2 * shift) // 3
            for index, symbol in enumerate(symbols)
        }
        a, b = _evaluated(left, values), _evaluated(right, values)
        if a is None or b is None:
            return None, math.inf, 0.0
        distance, size = float(abs(a - b)), float(abs(a))
        if abs(a - b) > _AGREE * max(abs(a), abs(b)):
            return False, math.inf if symbols else distance, size
    for symbol in symbols:
        values = {other: _POINTS[index % 3] for index, other in enumerate(symbols)}
        values[symbol] = -values[symbol]
        a, b = _evaluated(left, values), _evaluated(right, values)
        if a is None or b is None or max(abs(imaginary(a)), abs(imaginary(b))) > _AGREE:
            continue
        if abs(a - b) > _AGREE * max(abs(a), abs(b)):
            return False, math.inf, size
    return True, 0.0, size


def _evaluated(expression: Expr, values: Mapping[Symbol, Rational]) -> Any:
    """The complex value at a point, None where it cannot be had or is not finite."""
    try:
        value = expression.subs(values).evalf(_DIGITS)
        finite = value.is_number and value.is_finite is not False and abs(value) < 10**300
        return (
            value
            if finite
            and all(part.is_Float or part.is_Integer or part.is_Rational for part in value.as_real_imag())
            else None
        )
    except (TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, NotImplementedError):
        return None


def veto(body: str, wanted: str) -> str | None:
    """Why two texts that Math-Verify might call equal are not, or None."""
    if len(split_equal(wanted)) > 1 and len(split_equal(body)) == 1 and not _RELATION.search(body):
        return f"a value is not the equation {wanted!r}"
    mine, theirs = letters(split_equal(body)[-1][0]), letters(split_equal(wanted)[-1][0])
    if mine != theirs and {letter.lower() for letter in mine} == {letter.lower() for letter in theirs}:
        return f"variables {sorted(mine)} are not {sorted(theirs)}"
    return None


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
