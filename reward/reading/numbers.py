"""Read one numeric literal exactly: integers, decimals, powers of ten, fractions and mixed numbers, plain or LaTeX.

Nothing is evaluated: the grammar is a fixed shape, the value an exact `Fraction`, and every size is bounded.
"""

import re
import unicodedata
from fractions import Fraction

MAX_LITERAL_CHARS = 200
MAX_EXPONENT = 400

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_VULGAR = re.compile("[¼-¾⅐-⅞↉]")
_THIN = "\u2009"  # a thin or no-break space: separates thousands, unlike an ordinary space
_MINUS = dict.fromkeys(map(ord, "−–‒﹣－"), "-")

_LATEX = (
    ("\\left", ""),
    ("\\right", ""),
    ("\\displaystyle", ""),
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\cfrac", "\\frac"),
    ("{,}", ","),
    ("\\!", ""),
    ("\\,", _THIN),
    ("\\;", " "),
    ("\\:", " "),
    ("\\ ", " "),
    ("\\quad", " "),
    ("~", " "),
    ("\\%", "%"),
    ("\\$", "$"),
    ("\\times", "×"),
    ("\\cdot", "×"),
    ("·", "×"),
    ("⋅", "×"),
    ("\\degree", "°"),
    ("^{\\circ}", "°"),
    ("^\\circ", "°"),
    ("^{°}", "°"),
    ("\\approx", "≈"),
    ("\\sim", "≈"),
    ("\\simeq", "≈"),
    ("\\div", "÷"),
)
_TEXT_COMMAND = re.compile(
    r"\\(?:text|mathrm|textrm|textbf|mathbf|mbox|operatorname|rm|it|mathit|textit|mathsf) ?\{([^{}]*)\}"
)
_FRAC = re.compile(r"\\frac *(?:\{([^{}]*)\}|(\d)) *(?:\{([^{}]*)\}|(\d))")

_DECIMAL = rf"(?:[1-9]\d{{0,2}}(?:,\d{{3}})+(?:\.\d+)?|[1-9]\d{{0,2}}(?:{_THIN}\d{{3}})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
_SIGN = r"([-+]?) ?"
_PLAIN = re.compile(rf"{_SIGN}({_DECIMAL})(?:[eE]([-+]?\d{{1,4}}))?", re.ASCII)
_SCIENTIFIC = re.compile(
    rf"{_SIGN}(?:({_DECIMAL}) ?(?:×|\*|x) ?)?10 ?(?:\^|\*\*) ?(?:\{{ ?([-+]?\d{{1,4}}) ?\}}|([-+]?\d{{1,4}}))",
    re.ASCII,
)
_FRACTION = re.compile(rf"{_SIGN}\(?{_SIGN}({_DECIMAL})\)? ?[/÷⁄] ?\(?{_SIGN}({_DECIMAL})\)?", re.ASCII)
_MIXED = re.compile(rf"{_SIGN}(\d{{1,9}})(?: +|{_THIN})\(?(\d{{1,9}}) ?[/⁄] ?(\d{{1,9}})\)?", re.ASCII)


def normalize_math_text(text: str) -> str:
    """Unicode and LaTeX spellings of numbers brought to one form; the meaning of digits is never changed.

    Superscripts become `^{...}` and vulgar fractions ` (a/b)` before NFKC, which would turn "5²" into "52".
    """
    text = text.replace("\\\\", "\ue001")  # a matrix's line break is no "\\ " space
    text = _SUPERSCRIPT_RUN.sub(lambda run: "^{" + run.group().translate(_SUPERSCRIPTS) + "}", text)
    text = _VULGAR.sub(
        lambda char: " (" + unicodedata.normalize("NFKC", char.group()).replace("⁄", "/") + ") ", text
    )
    text = text.replace("\u00a0", _THIN).replace("\u202f", _THIN).replace("\u2009", "\ue000")
    text = unicodedata.normalize("NFKC", text.replace(_THIN, "\ue000").replace("º", "°")).replace(
        "\ue000", _THIN
    )
    text = text.translate(_MINUS)
    for spelling, plain in _LATEX:
        if spelling in text:
            text = text.replace(spelling, plain)
    text = _TEXT_COMMAND.sub(r" \1 ", text)
    return re.sub(r"[ \t\r\n]+", " ", text).replace("\ue001", "\\\\").strip()


def plain_fractions(text: str) -> str:
    """`\\frac{a}{b}` as `(a)/(b)`, behind a digit mixed. For literals alone: `\\frac{2}{3}x` is no `2/(3x)`."""
    return _FRAC.sub(_fraction_text, text)


def _fraction_text(match: re.Match[str]) -> str:
    top = match.group(1) if match.group(1) is not None else match.group(2)
    bottom = match.group(3) if match.group(3) is not None else match.group(4)
    before = match.string[: match.start()].rstrip()
    if before[-1:].isdigit():
        return f" {top}/{bottom}"  # a mixed number: "1\frac{1}{2}"
    return f"({top})/({bottom})"


def parse_literal(text: str) -> Fraction | None:  # noqa: PLR0911 - one return per shape
    """The exact value of a normalised numeric literal, or None when the text is anything else."""
    text = plain_fractions(text).strip()
    if not text or len(text) > MAX_LITERAL_CHARS:
        return None
    while text.startswith("(") and text.endswith(")") and text.count("(") == 1:
        text = text[1:-1].strip()
    if match := _PLAIN.fullmatch(text):
        return _scaled(match.group(1), match.group(2), match.group(3))
    if match := _SCIENTIFIC.fullmatch(text):
        return _scaled(match.group(1), match.group(2) or "1", match.group(3) or match.group(4))
    if match := _MIXED.fullmatch(text):
        whole, top, bottom = (int(match.group(index)) for index in (2, 3, 4))
        if not 0 < top < bottom or _zero_led(match.group(3)) or _zero_led(match.group(4)):
            return None
        return _signed(match.group(1), whole + Fraction(top, bottom))
    if match := _FRACTION.fullmatch(text):
        return _quotient(match)
    return None


def _quotient(match: re.Match[str]) -> Fraction | None:
    outer, inner, top_text, bottom_sign, bottom_text = match.groups()
    if _zero_led(bottom_text) or (outer and inner) or match.group().count("(") != match.group().count(")"):
        return None
    top, bottom = _scaled(inner, top_text, None), _scaled(bottom_sign, bottom_text, None)
    if top is None or not bottom:
        return None
    return _signed(outer, top / bottom)


def _zero_led(digits: str) -> bool:
    return len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()


def _scaled(sign: str, digits: str, exponent: str | None) -> Fraction | None:
    power = int(exponent or 0)
    if abs(power) > MAX_EXPONENT:
        return None
    return _signed(
        sign, Fraction(digits.replace(",", "").replace(_THIN, "").rstrip(".") or "0") * Fraction(10) ** power
    )


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


def readings(value: Fraction, percent: bool, gold_percent: bool) -> list[Fraction]:
    """What a number may mean where only one side has a percent sign: 50% is 0.5, and 50 with its sign left out.

    Only amounts of at least 1 % may lose their sign: 0.5% is not 0.5.
    """
    if percent == gold_percent:
        return [value]
    exact = value / 100 if percent else value * 100
    return [value, exact] if abs(value) >= 1 else [exact]


def close_enough(value: Fraction, gold: Fraction, tolerance: float, relative_tolerance: float) -> bool:
    """Exact equality, or |value - gold| <= max(tolerance, relative_tolerance * |gold|) where a sample gives them."""
    if value == gold:
        return True
    allowed = max(Fraction(str(tolerance)), Fraction(str(relative_tolerance)) * abs(gold))
    return abs(value - gold) <= allowed
