"""Bring a mathematical answer to the LaTeX that the parser reads well; split off what is no mathematics, the unit.

Closes the gaps of the parser: unicode roots, powers, fractions and Greek letters, `1e3`, repeating decimals, degrees in
trigonometry, plain-text functions, leading approximately-equal signs, `x \\in`, prose lead-ins.
"""

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

from reward.numeric import normalize_math_text

_GREEK = re.compile("[Α-Ωα-ω]")
_SYMBOLS = {
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "±": r"\pm ",
    "→": r"\to ",
    "∠": r"\angle ",
    "△": r"\triangle ",
}
_SYMBOLS |= {
    "<=": r"\le ",
    ">=": r"\ge ",
    "!=": r"\ne ",
    "**": "^",
    "×": r"\times ",
    "÷": r"\div ",
    "∓": r"\mp ",
}
_SYMBOLS |= {"∞": r"\infty ", "∅": r"\emptyset ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in "}

_NAMES = {
    "arcsin",
    "arccos",
    "arctan",
    "sinh",
    "cosh",
    "tanh",
    "sin",
    "cos",
    "tan",
    "cot",
    "sec",
    "csc",
    "log",
    "ln",
}
_NAMES |= {"exp", "lim", "max", "min", "gcd", "lcm", "det"}
_FUNCTIONS = "|".join(sorted(_NAMES, key=len, reverse=True))
_PLAIN_FUNCTION = re.compile(rf"(?<![\\A-Za-z])({_FUNCTIONS})(?=[\s({{\d\\_^]|$)")
_PLAIN_NAMES = re.compile(r"(?<![\\A-Za-z])(?:(pi|theta|alpha|beta|gamma)|(infinity|infty|inf))(?![A-Za-z])")
_ROOT = re.compile(r"√ ?(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[A-Za-z]))|(?<!\\)sqrt ?\(([^()]*)\)")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot) ?\{?(\d{1,12})\}?")
_SCIENTIFIC = re.compile(r"(?<![\w.\\])(\d+(?:\.\d+)?)[eE]([-+]?\d{1,3})(?![\w.])")
_LONG_POWER = re.compile(r"\^ ?(?:(-?\d{2,}|-\d)|\(([^()]*)\))")
_DEGREE = re.compile(r"(\d+(?:\.\d+)?) ?°")
_TRIG = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)")
_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore|then)\b,? ?)?(?:(?:we (?:get|have)|it is|it equals|this is|that is)\b:? ?)?"
    r"(?:(?:the |my )?(?:(?:final|correct) )?(?:answer|solution|result|value)s?(?: (?:is|are|equals)|:)?:? )?",
    re.IGNORECASE,
)
_NAMED = re.compile(  # "The area of the square is 12", "perimeter = 12"
    r"^(?!.{0,80}\b(?:not|or|if|isn't)\b)(?:[A-Za-z]{2,} ){0,7}[A-Za-z]{2,}"
    r" ?(?: (?:is|are|equals)(?: equal to)?|=|:) ?(?=[-+(\d\\.])"
)
_APPROXIMATE = re.compile(
    r"^(?:≈|≃|≅|\\cong|\\simeq|~|about|approximately|approx\.?|roughly) ?", re.IGNORECASE
)
_NEGATIVE = re.compile(r"^(?:minus|negative) +(?=[\d.\\])", re.IGNORECASE)
_DOMAIN = re.compile(r",? ?(?:where |for )?[a-z] ?(?:\\in|∈) ?\\mathbb ?\{[A-Z]\}$")
_CASES = re.compile(r"\\begin\{cases\}(.{0,500}?)\\end\{cases\}", re.DOTALL)
_BEFORE_NFKC = {char: rf"\mathbb{{{letter}}}" for char, letter in zip("ℝℤℕℚℂ", "RZNQC", strict=True)}
_BEFORE_NFKC |= {
    r"\varnothing": r"\emptyset",
    r"\langle": "(",
    r"\rangle": ")",
    "∛": r"\sqrt[3]",
    "⟨": "(",
    "⟩": ")",
}
_MEMBER = re.compile(r"^[A-Za-z] ?(?:\\in\b|∈) ?")
_CONNECTOR = re.compile(r",? (?:or|and) ")
_CURRENCY = re.compile(r"(?:\\\$|(?<![A-Za-z])(?:US|CA)?[$€£¥₹])")

ASSIGNED = re.compile(  # what may stand left of "=" in an answer: x, x_1, f(x), \\theta, \\angle ABC, AB
    r"(?:[A-Za-z]|\\(?!frac|sqrt)[a-z]+)(?:_\{?\w{1,12}\}?|')?(?: ?\([\w ,]{1,20}\))?"
    r"|\\(?:angle|triangle) ?[A-Z]{1,3}|[A-Z]{2,3}"
)

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
_FUNCTION_WORDS = frozenset([*_NAMES, "pi", "theta", "sqrt", "frac", "infty", "or", "and", "to", "mod"])


class Split(NamedTuple):
    """An answer without its unit: the mathematical text, and the unit as (kind, factor), or None."""

    body: str
    unit: tuple[str, Fraction] | None
    percent: bool


def to_latex(text: str) -> str:
    """One spelling of the answer, still LaTeX. Expects a text that passed `math_guard.refusal`."""
    text = re.sub(r"\\begin ?\{([a-z]*)\}(?:\{[lcr|]*\})?", r"\\begin{\1}", text)
    text = text.replace("\\mathbb ", "\\mathbb").replace("\\lbrace", "\\{").replace("\\rbrace", "\\}")
    text = re.sub(
        r"\\(leq?|geq?|neq?)(?![a-z])", lambda m: {"l": r"\le", "g": r"\ge", "n": r"\ne"}[m.group(1)[0]], text
    )
    for symbol, latex in _BEFORE_NFKC.items():
        text = text.replace(symbol, latex)
    text = _CASES.sub(
        lambda m: ", ".join(filter(None, (row.strip(" ,") for row in m.group(1).split("\\\\")))), text
    )
    text = normalize_math_text(_REPEATING.sub(_repeating_text, text))
    text = re.sub(r"(?<=\d)\u2009(?=\d{3}(?!\d))", "", text).replace("\u2009", " ")
    text = re.sub(r"(?<!\\)\$", "", text).strip()
    text = re.sub(r"(?<!\\)\\[()\[\]]", "", text)
    text = _LEAD.sub("", text, count=1).strip()
    text = _NAMED.sub("", text, count=1)
    text = text[:-1].rstrip() if text.endswith((".", ";")) else text
    text = _APPROXIMATE.sub("", text).removeprefix("=").strip().replace("≈", "=")
    text = _DOMAIN.sub("", _NEGATIVE.sub("-", text))
    for symbol, latex in _SYMBOLS.items():
        if symbol in text:
            text = text.replace(symbol, latex)
    text = _GREEK.sub(_greek_command, text)
    text = _ROOT.sub(
        lambda m: "\\sqrt{" + next(group for group in m.groups() if group is not None) + "}", text
    )
    text = _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text)
    text = _PLAIN_FUNCTION.sub(r"\\\1 ", text)
    text = _PLAIN_NAMES.sub(lambda m: "\\" + (m.group(1) or "infty") + " ", text)
    text = _LONG_POWER.sub(lambda m: "^{" + (m.group(1) or m.group(2)) + "}", text)
    text = _MEMBER.sub("", text)
    text = _CONNECTOR.sub(", ", text)
    if _TRIG.search(text):
        text = _DEGREE.sub(r"{\\frac{\1 \\pi}{180}}", text)
    text = _CURRENCY.sub("", text)
    return re.sub(r" +", " ", text.replace("*", r" \cdot ")).strip()


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


def _greek_command(match: re.Match[str]) -> str:
    """GREEK SMALL LETTER ALPHA as \\alpha, GREEK CAPITAL LETTER DELTA as \\Delta."""
    _, case, _, name = unicodedata.name(match.group()).split(" ", 3)
    name = name.replace("LAMDA", "LAMBDA")
    return "\\" + (name.lower() if case == "SMALL" else name.capitalize()) + " "


def _repeating_text(match: re.Match[str]) -> str:
    """0.1\\overline{6} as an exact fraction."""
    whole, fixed, cycle = match.group(1) or "0", match.group(2), match.group(3)
    scale = 10 ** len(fixed)
    value = Fraction(int(whole + fixed), scale) + Fraction(int(cycle), (10 ** len(cycle) - 1) * scale)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
