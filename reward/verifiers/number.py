"""number: exactly one number, whatever currency, unit words and LaTeX stand around it.

Ranges, lists, dates, times, comparisons, negations and "5 of 10" are not a number. The comparison is exact (rational)
unless the sample's spec gives `tolerance` or `relative_tolerance`.
"""

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from reward.extract import unwrap
from reward.reading.numbers import (
    MAX_LITERAL_CHARS,
    close_enough,
    normalize_math_text,
    parse_literal,
    plain_fractions,
    readings,
)
from reward.types import Verdict, Verifier

MAX_CHARS = 2_000


def _words(text: str) -> list[str]:
    return text.split()


_SCALES = {
    "hundred": 2,
    "thousand": 3,
    "million": 6,
    "billion": 9,
    "trillion": 12,
    "k": 3,
    "M": 6,
    "bn": 9,
    "B": 9,
}
_UNITS_IN_WORDS = _words("one two three four five six seven eight nine")
_TEENS = _words("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
_TENS = {
    word: 10 * n for n, word in enumerate(_words("twenty thirty forty fifty sixty seventy eighty ninety"), 2)
}
_WORDS = {word: n for n, word in enumerate(["zero", *_UNITS_IN_WORDS, *_TEENS])} | _TENS
_WORDS |= {f"{tens}-{one}": _TENS[tens] + n for tens in _TENS for n, one in enumerate(_UNITS_IN_WORDS, 1)}

_CURRENCY = re.compile(r"(?:US|CA|AU|HK)?[$€£¥₹₩₽]|\b(?:USD|EUR|GBP|JPY|INR|CNY|RMB|Rs\.?) ?(?=[-+]? ?[\d.])")
_LEAD_WORDS = frozenset(
    _words(
        "the a my our final correct total answer number count value result sum amount is are was were be "
        "there it we i have get so thus hence therefore equals of in this image picture approximately "
        "approx. approx about roughly think see can "
    )
)
_ASSIGNED = re.compile(r"^(?:[A-Za-zα-ωΑ-Ω](?:_\{?\w{1,8}\}?)? ?)?[=≈] ?")
_TAIL_BANNED = frozenset(_WORDS) | frozenset(
    _words(
        "or and to of out not no nor but maybe perhaps possibly if minus plus times over than more less "
        "fewer at until through quarter dozen dozens hundreds thousands millions billions am pm a.m p.m "
        "o'clock oclock bc ad bce ce january february march april may june july august september october "
        "november december jan feb mar apr jun jul aug sep sept oct nov dec monday tuesday wednesday "
        "thursday friday saturday sunday both either neither between from most least minimum maximum "
        "wrong incorrect st nd rd th squared cubed factorial point half halves third thirds quarters "
        "fourth fourths fifth fifths sixth sixths eighth eighths tenth tenths hundredth hundredths "
        "hundred thousand million billion trillion never cannot without except instead actually rather "
        "wait no "
    )
)
_SINGLE_LETTER_UNITS = frozenset("mgshKCFVWAJNLlbtcΩ")
_UNIT_WORD = re.compile(r"[^\W\d_]+(?:[-'.][^\W\d_]+)*")
_UNIT = re.compile(
    r"(?=[^A-Za-z°'\"\u2032\u2033%‰Ω]{0,3}[A-Za-z°'\"\u2032\u2033%‰Ωµμ])(?:[^\W\d_]+|°[CFK]?|[/*×·^]|\^\{?-?[1-6]\}?|['\u2032\u2033\"%‰])*"
)
_NUMBER_CHARS = re.compile(
    r"\(?[-+]? ?\(?[-+]?[\d.][\d.,\u2009]*(?:[eE][-+]?\d+)?\)?(?: ?[/÷⁄] ?\(?[-+]?[\d.][\d.,]*\)?)?"
    r"(?:[ \u2009]+\(?\d+ ?[/⁄] ?\d+\)?)?(?: ?[×*x] ?10 ?\^ ?(?:\{ ?[-+]?\d+ ?\}|[-+]?\d+))?"
    r"(?:\^(?:\{ ?[-+]?\d+ ?\}|[-+]?\d+)(?=\W|$))?\)?"
)


class Quantity(NamedTuple):
    """A number as written: its value, and whether a percent sign stood behind it."""

    value: Fraction
    percent: bool


def parse_quantity(text: str) -> Quantity | None:
    """The one number of a short text, or None when there is none, several, or something else than a number."""
    if len(text) > MAX_CHARS:
        return None
    text = plain_fractions(normalize_math_text(text)).replace("’", "'").strip(" \t\"'`*_$")
    text = _strip_end(text)
    spelled = _WORDS.get(text.lower())
    if spelled is not None:
        return Quantity(Fraction(spelled), False)
    text = _CURRENCY.sub("", text, count=1).strip()
    text = _ASSIGNED.sub("", _without_lead(text), count=1).strip()
    text = _CURRENCY.sub("", text, count=1).strip().removeprefix("≈").removeprefix("~").strip()
    text = re.sub(r"^(?:minus|negative) +(?=[\d.])", "-", text, flags=re.IGNORECASE)
    first, _, rest = text.partition(" ")
    if first.lower() in _WORDS and (not rest or _is_unit_phrase(rest)):
        return Quantity(Fraction(_WORDS[first.lower()]), False)
    match = _NUMBER_CHARS.match(text)
    if match is None or match.end() > MAX_LITERAL_CHARS:
        return None
    literal, rest = match.group().rstrip(" ,"), text[match.end() :]
    value = parse_literal(literal)
    if value is None:
        return None
    return _with_unit(value, rest)


def _strip_end(text: str) -> str:
    if len(text) > 1 and text[-1] in ".,;" and text[-2] not in ".,;":
        return text[:-1].rstrip()
    return text


def _without_lead(text: str) -> str:
    """Drop introducing words such as "The answer is:" or "There are"."""
    words = text.split(" ")
    index = 0
    while index < len(words) - 1 and index < 12:
        word = words[index].lower().strip(":,")
        if word in _LEAD_WORDS or (index > 0 and _countable(word, words[index + 1 :])):
            index += 1
        else:
            break
    return " ".join(words[index:])


def _countable(word: str, following: list[str]) -> bool:
    """A noun between "the number of" and "is": it may be any plain word that says nothing about the amount."""
    copula = any(later.lower() in ("is", "are", "was", "were", "equals") for later in following[:6])
    return copula and _UNIT_WORD.fullmatch(word) is not None and word not in _TAIL_BANNED


def _with_unit(value: Fraction, rest: str) -> Quantity | None:
    attached = re.match(r"(k|K|M|B|bn)\b", rest)
    if attached:
        scale = _SCALES["k" if attached.group(1) == "K" else attached.group(1)]
        value, rest = value * 10**scale, rest[attached.end() :]
    rest = rest.strip().replace(" ^", "^")
    scale_word, _, after = rest.partition(" ")
    if scale_word.lower() in ("hundred", "thousand", "million", "billion", "trillion"):
        value, rest = value * 10 ** _SCALES[scale_word.lower()], after.strip()
    if rest.startswith("%") or re.match(r"percent\b|per cent\b", rest, re.IGNORECASE):
        rest = re.sub(r"^(?:%|percent|per cent) ?", "", rest, flags=re.IGNORECASE)
        return Quantity(value, True) if not rest or _is_unit_phrase(rest) else None
    return Quantity(value, False) if not rest or _is_unit_phrase(rest) else None


def _is_unit_phrase(text: str) -> bool:
    """Words that can stand behind a number without changing it: units, counted things, a closing clause."""
    text = re.sub(r"^[-\u2010] ?(?=[A-Za-z])", "", _CURRENCY.sub("", text).strip().rstrip("."))
    if text.startswith("(") and text.endswith(")") and text.count("(") == 1:
        text = text[1:-1]
    words = text.split(" ")
    if len(words) > 12:
        return False
    for index, word in enumerate(words):
        bare = word.lower().strip(".,")
        if not bare:
            continue
        if bare.endswith("n't"):
            return False
        if bare in _TAIL_BANNED and not (bare == "of" and index > 0):
            return False
        if (
            len(bare) == 1
            and bare.isalpha()
            and word.strip(".,") not in _SINGLE_LETTER_UNITS
            and not (bare == "a" and index > 0)
        ):
            return False
        if _UNIT_WORD.fullmatch(bare) is None and _UNIT.fullmatch(word.strip(".,")) is None:
            return False
    return True


def prepare(reference: str, params: Mapping[str, Any]) -> Quantity:
    """Read the reference. Raises ValueError when it is not exactly one number or a tolerance is not one either."""
    for name in ("tolerance", "relative_tolerance"):
        given = params[name]
        if (
            isinstance(given, bool)
            or not isinstance(given, int | float)
            or not math.isfinite(given)
            or given < 0
        ):
            raise ValueError(f"spec.{name}: got {given!r}, wanted a finite number >= 0")
    quantity = parse_quantity(unwrap(reference))
    if quantity is None:
        raise ValueError("wanted exactly one number")
    return quantity


def verify(extracted: str, prepared: Quantity, params: Mapping[str, Any]) -> Verdict:
    """1 when the answer is one number equal to the reference, else 0."""
    if len(extracted) > MAX_CHARS:
        return Verdict(0.0, "rejected", trace=(f"number: longer than {MAX_CHARS} characters",))
    quantity = parse_quantity(extracted)
    if quantity is None:
        return Verdict(0.0, "unparseable", trace=("number: not exactly one number",))
    values = readings(quantity.value, quantity.percent, prepared.percent)
    equal = any(
        close_enough(v, prepared.value, params["tolerance"], params["relative_tolerance"]) for v in values
    )
    step = f"number: read {quantity.value}{'%' if quantity.percent else ''}, reference {prepared.value}"
    return Verdict(float(equal), trace=(step, "equal" if equal else "different"))


DEFAULTS = {"tolerance": 0, "relative_tolerance": 0}
VERIFIER = Verifier(prepare, verify, DEFAULTS)
