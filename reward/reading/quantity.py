"""Read the one number of a short answer, whatever currency, unit words, label or sentence stand around it.

Ranges, lists, dates, times, comparisons, negations and "5 of 10" are not a number.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from reward.reading.labels import closing, without_label, without_markdown, word_set
from reward.reading.number_words import SHORT_SCALES, WORDS, scale_of, spelled_number
from reward.reading.numbers import MAX_LITERAL_CHARS, normalize_math_text, parse_literal, plain_fractions
from reward.reading.quantity_zh import chinese_quantity

MAX_CHARS = 2_000

_CURRENCY = re.compile(
    r"(?:US|CA|AU|HK|NZ)?[$€£¥₹₩₽]|\b(?:USD|EUR|GBP|JPY|INR|CNY|RMB|Rs)\b\.? ?+(?=[-+]? ?+[\d.])"
)
_INDIAN = re.compile(r"(?:₹|Rs\.?|INR) ?+(-?\d{1,2}(?:,\d{2})+,\d{3})(?![\d,])", re.ASCII)
_LEAD_WORDS = word_set(
    "the a my our final correct total answer number count value result sum amount is are was were be "
    "there it we i have get so thus hence therefore equals of in this image picture approximately "
    "approx. approx about roughly think see can only just exactly precisely"
)
_BEFORE_NUMBER = word_set(  # the last word of an introduction: "The image shows 7 cars"
    "is are was were be shows show showing contains contain has have had see sees count counted find found "
    "get gets got only "
    "just exactly precisely about around approximately roughly total totals equals gives costs cost depicts displays "
    "display features includes include holds reads read says weighs measures scored sold totaling totalling there's "
    "the these those of to all being"
)
_BANNED = WORDS.keys() | word_set(
    "or and to of out not no nor but maybe perhaps possibly if minus plus times over than more less "
    "fewer at until through quarter dozen dozens hundreds thousands millions billions am pm a.m p.m "
    "o'clock oclock bc ad bce ce january february march april may june july august september october "
    "november december jan feb mar apr jun jul aug sep sept oct nov dec monday tuesday wednesday "
    "thursday friday saturday sunday both either neither between from most least minimum maximum "
    "wrong incorrect st nd rd th squared cubed factorial point half halves third thirds quarters "
    "fourth fourths fifth fifths sixth sixths eighth eighths tenth tenths hundredth hundredths "
    "hundred thousand million billion trillion never cannot without except instead actually rather "
    "wait no lakh crore nearly almost under above below within"
)
_BANNED_BEFORE = _BANNED - {"to", "of", "and", "total"} | word_set(
    "false what how many' figure table option page step question line room chapter unless could might"
)
_AMOUNT_OF = word_set("equal total comes amounts number sum")
_SINGLE_LETTER_UNITS = frozenset("mgshKCFVWAJNLlbtcΩ")
_UNIT_WORD = re.compile(r"[^\W\d_]++(?:[-'.][^\W\d_]++)*+")
_UNIT = re.compile(
    r"(?=[^A-Za-z°'\"\u2032\u2033%‰Ω]{0,3}[A-Za-z°'\"\u2032\u2033%‰Ωµμ])(?:[^\W\d_]++|°[CFK]?|\^\{?-?[1-6]\}?|[/*×·^]|['\u2032\u2033\"%‰])*+"
)
_NUMBER_CHARS = re.compile(
    r"\(?[-+]? ?\(?[-+]?[\d.][\d.,\u2009]*+(?:[eE][-+]?\d++)?\)?(?: ?[/÷⁄] ?\(?[-+]?[\d.][\d.,]*+\)?)?"
    r"(?:[ \u2009]{1,4}\(?\d{1,9} ?[/⁄] ?\d{1,9}\)?)?(?: ?[×*x] ?10 ?\^ ?(?:\{ ?[-+]?\d{1,9} ?\}|[-+]?\d{1,9}))?"
    r"(?:\^(?:\{ ?[-+]?\d{1,9} ?\}|[-+]?\d{1,9})(?=\W|$))?\)?"
)
_ASSIGNED = re.compile(r"^(?:[A-Za-zα-ωΑ-Ω](?:_\{?\w{1,8}\}?)? ?)?[=≈] ?")
_NAMED = re.compile(r"(?:[A-Za-z][A-Za-z'.-]*+ ?(?:\([A-Za-z ]{1,30}\) ?)?){1,12}(?::|=|≈) ?(?=\S)")
_NEGATIVE = re.compile(r"^(?:minus|negative) ++(?=[\d.])", re.IGNORECASE)
_RESTATED = re.compile(r"(?P<first>[^()]{1,60}) \((?P<second>[^()]{1,60})\)(?P<rest>[^()]{0,80})")
_EXPLAINED = re.compile(
    r"(?P<verdict>[^\n;]{1,80}?)(?:\.\s++|\n\s*+|[,;]?+ ?+(?=because\b|since\b)|[,;] ?+(?=as\b)|; )"
    r"(?P<why>[A-Za-z(].*+)",
    re.DOTALL | re.IGNORECASE,
)
_REASON = re.compile(
    r"(?:\(?explanation|reason|because|since|as|there (?:are|is)|i (?:count|can|see)|the |this |we |it |in |each )",
    re.IGNORECASE,
)
_RETRACTED = re.compile(
    r"\b(?:wait|or|actually|instead|maybe|perhaps|no|not|another|alternatively|either|but|answer|wrong|second|also)\b|n't",
    re.IGNORECASE,
)


class Quantity(NamedTuple):
    """A number as written: its value, and whether a percent sign stood behind it."""

    value: Fraction
    percent: bool


def parse_quantity(text: str) -> Quantity | None:
    """The one number of a short text, or None when there is none, several, or something else than a number."""
    if len(text) > MAX_CHARS:
        return None
    text = _normalized(text)
    found = _phrase(text)
    if found is None and len(text) < 400:
        found = _restated(text) or _sentence(text) or _from_chinese(text) or _explained(text)
    if found is None:
        conclusion = closing(text)
        if conclusion is not None and conclusion[0].strip():
            opening, found = _phrase(conclusion[0].strip(" .,;")), parse_quantity(conclusion[1])
            return found if opening in (found, None) else None
    return found


def _normalized(text: str) -> str:
    text = _INDIAN.sub(lambda m: m.group(1).replace(",", ""), text)
    text = normalize_math_text(re.sub(r"\n\s*+", "\ue003", text)).replace("\ue003", "\n")
    text = plain_fractions(text).replace("’", "'")
    return without_label(without_markdown(text)).strip(" \t\n\"'`*_$")


def _phrase(text: str) -> Quantity | None:
    """A number with what may stand directly around it: currency, introducing words, unit, a name and an equal sign."""
    text = _CURRENCY.sub("", _strip_end(text), count=1).strip()
    named = _NAMED.match(text)
    if named and not _BANNED_BEFORE.intersection(re.findall(r"[a-z']++", named.group().lower())):
        text = text[named.end() :]
    text = _ASSIGNED.sub("", _without_lead(text), count=1).strip()
    text = _CURRENCY.sub("", text, count=1).strip().removeprefix("≈").removeprefix("~").strip()
    text = _NEGATIVE.sub("-", text)
    spelled = spelled_number(text.split(" "))
    if spelled is not None:
        value, used = spelled
        return _with_unit(Fraction(value), " " + " ".join(text.split(" ")[used:]))
    match = _NUMBER_CHARS.match(text)
    if match is None or match.end() > MAX_LITERAL_CHARS:
        return None
    literal, rest = match.group().rstrip(" ,"), text[match.end() :]
    value = parse_literal(literal)
    return None if value is None else _with_unit(value, rest)


def _restated(text: str) -> Quantity | None:
    """ "3 (three) cars" and "three (3)": the same number twice."""
    match = _RESTATED.fullmatch(text.rstrip("."))
    if match is None:
        return None
    first, second = _phrase(match.group("first") + match.group("rest")), _phrase(match.group("second"))
    return first if first is not None and first == second else None


def _sentence(text: str) -> Quantity | None:
    """ "The image shows 7 cars.": plain words that end in a verb or an adverb of amount, then the number's phrase."""
    words = _strip_end(text).split(" ")
    for index, word in enumerate(words[:16]):
        if index and (word[:1].isdigit() or word[:1] in "$€£₹-" or word.lower().split("-")[0] in WORDS):
            before = [earlier.lower().strip(",:") for earlier in words[:index]]
            if before[-1] not in _BEFORE_NUMBER or _BANNED_BEFORE.intersection(before):
                return None
            if any(earlier.endswith("n't") or not _UNIT_WORD.fullmatch(earlier) for earlier in before):
                return None
            if before[-1] in ("to", "of") and not _AMOUNT_OF.intersection(before):
                return None
            return _phrase(" ".join(words[index:]))
    return None


def _from_chinese(text: str) -> Quantity | None:
    found = chinese_quantity(text)
    return Quantity(*found) if found is not None else None


def _explained(text: str) -> Quantity | None:
    """A number, then why: "7, because there are seven cars". Other numbers may stand only in a reason."""
    match = _EXPLAINED.fullmatch(text)
    if match is None or _RETRACTED.search(match.group("why")):
        return None
    if any(char.isdigit() for char in match.group("why")) and not _REASON.match(match.group("why")):
        return None
    return _phrase(match.group("verdict").strip())


def _strip_end(text: str) -> str:
    factorial = text[-1:] == "!" and text[-2:-1].isdigit()
    if len(text) > 1 and text[-1] in ".,;。!" and text[-2] not in ".,;!" and not factorial:
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
    return copula and _UNIT_WORD.fullmatch(word) is not None and word not in _BANNED


def _with_unit(value: Fraction, rest: str) -> Quantity | None:
    attached = re.match(r"(k|K|M|mn|B|bn)\b", rest)
    if attached:
        value, rest = value * SHORT_SCALES[attached.group(1)], rest[attached.end() :]
    rest = rest.strip().replace(" ^", "^")
    scale_word, _, after = rest.partition(" ")
    scale = scale_of(scale_word.rstrip(",."))
    if scale is not None:
        value, rest = value * scale, after.strip()
    if rest.startswith("%") or re.match(r"percent\b|per cent\b", rest, re.IGNORECASE):
        rest = re.sub(r"^(?:%|percent|per cent) ?", "", rest, flags=re.IGNORECASE)
        return Quantity(value, True) if not rest or is_unit_phrase(rest) else None
    return Quantity(value, False) if not rest or is_unit_phrase(rest) else None


def is_unit_phrase(text: str) -> bool:  # noqa: PLR0911 - one return per rule
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
        if bare in _BANNED and not (bare == "of" and index > 0):
            return False
        letter = len(bare) == 1 and bare.isalpha() and bare.isascii()
        if letter and word.strip(".,") not in _SINGLE_LETTER_UNITS and not (bare == "a" and index > 0):
            return False
        if any("\u4e00" <= char <= "\u9fff" for char in bare):
            return False  # Chinese has its own grammar
        if _UNIT_WORD.fullmatch(bare) is None and _UNIT.fullmatch(word.strip(".,")) is None:
            return False
    return True
