"""Split a trailing unit or percent sign off a mathematical answer, and compare units by kind and factor."""

import re
from fractions import Fraction
from typing import NamedTuple

from reward.reading.math_text import FUNCTION_NAMES

_PREFIXES = {"": 1, "k": 1000, "c": Fraction(1, 100), "m": Fraction(1, 1000), "d": Fraction(1, 10)}
_LENGTHS = {f"{prefix}m": ("m", factor) for prefix, factor in _PREFIXES.items()}
UNITS: dict[str, tuple[str, Fraction | int]] = {
    **_LENGTHS,
    **{"g": ("g", 1), "kg": ("g", 1000), "mg": ("g", Fraction(1, 1000)), "t": ("g", 1_000_000)},
    **{"s": ("s", 1), "min": ("s", 60), "h": ("s", 3600), "hr": ("s", 3600), "ms": ("s", Fraction(1, 1000))},
    **{"L": ("L", 1), "l": ("L", 1), "mL": ("L", Fraction(1, 1000)), "ml": ("L", Fraction(1, 1000))},
    **{
        name: (name, 1)
        for name in [
            "N",
            "J",
            "W",
            "V",
            "A",
            "K",
            "C",
            "F",
            "Pa",
            "Hz",
            "Ω",
            "mol",
            "ft",
            "in",
            "yd",
            "mi",
            "lb",
            "oz",
            "rad",
            "°C",
            "°F",
            "°K",
        ]
    },
    **{
        "kN": ("N", 1000),
        "kJ": ("J", 1000),
        "kW": ("W", 1000),
        "kPa": ("Pa", 1000),
        "°": ("°", 1),
        "degree": ("°", 1),
    },
}
_SPELLED = {
    "meter": "m",
    "metre": "m",
    "centimeter": "cm",
    "centimetre": "cm",
    "kilometer": "km",
    "kilometre": "km",
}
_SPELLED |= {
    "millimeter": "mm",
    "millimetre": "mm",
    "gram": "g",
    "kilogram": "kg",
    "second": "s",
    "sec": "s",
    "minute": "min",
}
_SPELLED |= {
    "hour": "h",
    "liter": "L",
    "litre": "L",
    "foot": "ft",
    "feet": "ft",
    "inch": "in",
    "inches": "in",
    "mile": "mi",
}
_SPELLED |= {
    "newton": "N",
    "joule": "J",
    "watt": "W",
    "volt": "V",
    "kelvin": "K",
    "radian": "rad",
    "pound": "lb",
    "yard": "yd",
}
_UNIT_TAIL = re.compile(
    r"(?<=[\d)}\]!])(?P<gap> *)(?P<unit>(?:(?:square|cubic|sq\.?|cu\.?) )?(?:°[CFK]?|[A-Za-zΩ]+)(?: ?\^ ?\{?-?\d\}?)?"
    r"(?: ?(?:/|\\cdot|\*|per) ?(?:°[CFK]?|[A-Za-zΩ]+)(?: ?\^ ?\{?-?\d\}?)?)*)\.?$"
)
_FUNCTION_WORDS = frozenset(
    [*FUNCTION_NAMES, "pi", "theta", "sqrt", "frac", "infty", "or", "and", "to", "mod"]
)


class Split(NamedTuple):
    """An answer without its unit: the mathematical text, and the unit as (kind, factor), or None."""

    body: str
    unit: tuple[str, Fraction] | None
    percent: bool


def split_unit(text: str) -> Split:
    """Split a trailing unit or percent sign off a text from `to_latex`.

    A single letter directly behind a number ("7m") is a variable, not a unit; after a space ("7 m") it is a unit.
    """
    if text.endswith("%"):
        return Split(text[:-1].rstrip("\\ "), None, True)
    if match := re.search(r" (?:percent|per cent)$", text):
        return Split(text[: match.start()], None, True)
    match = _UNIT_TAIL.search(text)
    if match is None:
        return Split(text, None, False)
    unit = read_unit(match.group("unit"), attached=not match.group("gap"))
    return Split(text[: match.start("gap")].strip(), unit, False) if unit else Split(text, None, False)


def read_unit(text: str, attached: bool = False) -> tuple[str, Fraction] | None:
    """A unit as (kind, factor to the kind's base); an unknown word is its own kind. None when it is no unit."""
    power_words = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
    kind, factor, sign = [], Fraction(1), 1
    prefix_power = 1
    for token in re.findall(r"per\b|/|[A-Za-zΩ°]+(?: ?\^ ?\{?-?\d\}?)?", text):
        if token in ("/", "per"):
            sign = -1
            continue
        name, _, exponent = token.replace(" ", "").partition("^")
        if name.lower() in power_words:
            prefix_power = power_words[name.lower()]
            continue
        power = sign * prefix_power * int(exponent.strip("{}") or 1)
        prefix_power = 1
        base = _base_unit(name)
        if base is None or (attached and len(name) == 1 and name != "°"):
            return None
        kind.append(f"{base[0]}^{power}")
        factor *= Fraction(base[1]) ** power
    return (" ".join(sorted(kind)), factor) if kind else None


def _base_unit(name: str) -> tuple[str, Fraction | int] | None:
    if name in UNITS:
        return UNITS[name]
    singular = name.lower()
    for candidate in (singular, singular.removesuffix("s")):
        if candidate in _SPELLED:
            return UNITS[_SPELLED[candidate]]
        if candidate in UNITS and len(candidate) > 1:
            return UNITS[candidate]
    if len(name) >= 3 and singular not in _FUNCTION_WORDS:
        return singular.removesuffix("s"), 1
    return None
