"""Split a trailing unit or percent sign off a mathematical answer, and compare units by kind and factor."""

import re
from fractions import Fraction
from typing import NamedTuple

from reward.reading.math_text import FUNCTION_NAMES
from reward.reading.number_words import ZH_SCALES, scale_of
from reward.reading.numbers import parse_literal

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
    r"(?<=[\d)}\]!])(?P<gap> *+)(?P<unit>(?:(?:square|cubic|sq\.?|cu\.?) )?(?:°[CFK]?|[A-Za-zΩ]+)(?: ?\^ ?\{?-?\d\}?)?"
    r"(?: ?(?:/|\\cdot|\*|per) ?(?:°[CFK]?|[A-Za-zΩ]+)(?: ?\^ ?\{?-?\d\}?)?){0,6})\.?$"
)
_KNOWN_NAMES = {*UNITS, *_SPELLED, *(f"{name}s" for name in _SPELLED), "degrees", "units"}
_KNOWN = "|".join(sorted(map(re.escape, _KNOWN_NAMES), key=len, reverse=True))
_UNIT_AFTER_SYMBOL = re.compile(  # behind pi or letters only known units: "12\\pi cm^2", "3a units"
    r"(?:(?<=\\pi)|(?<=[a-z])(?= +[A-Za-z]{2}))(?P<gap> +)"
    rf"(?P<unit>(?:(?:square|cubic|sq\.?|cu\.?) )?(?:{_KNOWN})(?: ?\^ ?\{{?-?\d\}}?)?"
    rf"(?: ?(?:/|per) ?(?:{_KNOWN})(?: ?\^ ?\{{?-?\d\}}?)?)?)\.?$"
)
_FUNCTION_WORDS = frozenset(
    [*FUNCTION_NAMES, "pi", "theta", "sqrt", "frac", "infty", "or", "and", "to", "mod"]
)


_TEXT_UNIT = re.compile(  # at the end of an answer: \\text{ cm}^2, \\mathrm{m/s}, \\text{square meters}
    r"(?:\\[,;: !]|~|\s){0,8}\\(?:text|mathrm|textrm|mbox|operatorname|rm) ?\{(?:\\[,; ]|\s)*+"
    r"(?P<unit>[A-Za-z°Ω/·. ^{}0-9²³⁻¹\\-]{1,40}?)(?:\\[,; ]|\s)*+\}"
    r"(?P<power> ?\^ ?(?:\{ ?-?\d ?\}|-?\d)|[²³])?[$.\s]*+$"
)
_SCALED = re.compile(
    r"(?P<number>-?[\d.,]{1,40}(?:/\d{1,9})?) ?"
    r"(?P<scale>[A-Za-z]{5,12}|[\u4e00-\u9fff](?=[\u4e00-\u9fff]{0,2}$))(?P<rest> .{1,40}|[\u4e00-\u9fff]{1,2})?"
)
_PLAIN_UNIT = re.compile(r"[A-Za-zΩ°]+(?:\^-?\d)?(?:(?:[/ ·]| per )[A-Za-zΩ°]+(?:\^-?\d)?)*")


_NO_UNITS = frozenset(
    ["or", "and", "if", "mod", "is", "not", "none", "percent", "dne", "th", "st", "nd", "rd"]
)


class Split(NamedTuple):
    """An answer without its unit: the mathematical text, and the unit as (kind, factor), or None."""

    body: str
    unit: tuple[str, Fraction] | None
    percent: bool


def split_scale(text: str) -> tuple[Fraction, str] | None:
    """(value, what stands behind) of a number with a scale word: "5 million dollars", "2 dozen", "7 hundredths"."""
    match = _SCALED.fullmatch(text)
    scale = None if match is None else scale_of(match["scale"]) or ZH_SCALES.get(match["scale"])
    value = parse_literal(match["number"]) if scale else None
    return (value * scale, (match["rest"] or "").strip()) if value is not None else None


def split_text_unit(text: str) -> tuple[str, tuple[str, Fraction] | None]:
    """(the answer without it, the unit) where an answer as written ends in a unit set as text, behind whatever."""
    match = _TEXT_UNIT.search(text)
    if (
        match is None
        or not re.search(r"[\w)}\]]$", text[: match.start()])
        or re.search(r"[A-Za-z]{4}$", text[: match.start()])
    ):
        return text, None
    name = (
        match.group("unit")
        .replace("²", "^2")
        .replace("³", "^3")
        .replace("{", "")
        .replace("}", "")
        .strip(" .")
    )
    power = (match.group("power") or "").replace("²", "^2").replace("³", "^3").replace(" ", "").strip("^{}")
    if not _PLAIN_UNIT.fullmatch(name) or scale_of(name.split(" ")[0]) or name.lower() in _NO_UNITS:
        return text, None
    unit = read_unit(name.replace("·", " ") + (f"^{power}" if power else ""))
    return (text[: match.start()].strip(), unit) if unit else (text, None)


def split_unit(text: str) -> Split:
    """Split a trailing unit or percent sign off a text from `to_latex`.

    A single letter directly behind a number ("7m") is a variable, not a unit; after a space ("7 m") it is a unit.
    """
    if text.endswith("%"):
        return Split(text[:-1].rstrip("\\ "), None, True)
    if match := re.search(r" (?:percent|per cent)$", text):
        return Split(text[: match.start()], None, True)
    # m·s⁻¹
    text = re.sub(r"(?<=[A-Za-z])(?: ?(?:×|\\times|\\cdot) ?| )(?=[A-Za-z]{1,3} ?\^ ?\{?-)", "/", text)
    text = re.sub(r"(?<=/)([A-Za-z]{1,3}) ?\^ ?\{?-(\d)\}?$", r"\1^\2", text)
    match = _UNIT_TAIL.search(text) or _UNIT_AFTER_SYMBOL.search(text)
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
