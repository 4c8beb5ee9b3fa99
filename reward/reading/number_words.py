"""Numbers in words, English and Chinese, as exact fractions: "two hundred and five", "三十二"."""

import re
from fractions import Fraction

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS = {word: value for value, word in enumerate(str.split(_ONES))}
WORDS |= {word: 10 * n for n, word in enumerate(str.split(_TENS), 2)}
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
SCALES |= {"lakh": 10**5, "crore": 10**7, "dozen": 12}
PARTS = {"tenth": 10, "hundredth": 100, "thousandth": 1000, "millionth": 10**6}  # 7 hundredths
SHORT_SCALES = {"k": 1000, "K": 1000, "M": 10**6, "mn": 10**6, "bn": 10**9, "B": 10**9}

_ZH_DIGITS = {char: value for value, char in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "俩": 2}
_ZH_SMALL = {"十": 10, "百": 100, "千": 1000}
ZH_SCALES = {"万": 10**4, "亿": 10**8, "千": 1000, "百": 100}
ZH_NUMERAL = "零〇一二两三四五六七八九十百千万亿点"


def scale_of(word: str) -> Fraction | None:
    """What a word behind a number multiplies it by: "million", "dozens" is none, "hundredths" is 1/100."""
    word = word.lower()
    if word in SCALES:
        return Fraction(SCALES[word])
    part = PARTS.get(word.removesuffix("s"))
    return Fraction(1, part) if part else None


def spelled_number(words: list[str]) -> tuple[int, int] | None:
    """(value, how many words it takes) of the number in words that the list begins with, or None."""
    total = group = 0
    used, last = 0, 0  # `last`: size of the last word's place, so that "five six" stops after "five"
    for index, written in enumerate(words[:12]):
        word = written.lower().strip(",")
        pieces = word.split("-")
        if all(piece in WORDS for piece in pieces) and 0 < len(pieces) < 3:
            value = sum(WORDS[piece] for piece in pieces)
            place = 1 if value < 20 else 10
            if last and not (last >= 100 or (last == 10 and place == 1 and 0 < value < 10)):
                break
            if len(pieces) == 2 and not (WORDS[pieces[0]] >= 20 and 0 < WORDS[pieces[1]] < 10):
                break
            group, last, used = group + value, 1 if len(pieces) == 2 else place, index + 1
        elif word == "hundred" and used == index and 0 < group < 100:
            group, last, used = group * 100, 100, index + 1
        elif word in SCALES and word not in ("hundred", "dozen") and used == index and group:
            total, group, last, used = total + group * SCALES[word], 0, 1000, index + 1
        elif word == "and" and last >= 100 and used == index:
            following = words[index + 1 : index + 2]
            if not following or following[0].lower().split("-")[0] not in WORDS:
                break
            used = index + 1
        else:
            break
    return (total + group, used) if used else None


def chinese_number(text: str) -> Fraction | None:
    """The value of a run of Chinese numerals ("三十二", "一百零五", "三点五", "两万"), or None when it is not one."""
    whole, point, decimals = text.partition("点")
    if point:
        base = chinese_number(whole)
        if base is None or not decimals or any(char not in _ZH_DIGITS for char in decimals):
            return None
        digits = "".join(str(_ZH_DIGITS[char]) for char in decimals)
        return base + Fraction(int(digits), 10 ** len(digits))
    total = section = 0
    digit: int | None = None
    for char in text:
        if char in _ZH_DIGITS:
            if digit is not None and digit != 0:
                return None
            digit = _ZH_DIGITS[char]
        elif char in _ZH_SMALL:
            section += (1 if digit is None else digit) * _ZH_SMALL[char]
            digit = None
        elif char in ("万", "亿"):
            total = (total + section + (digit or 0)) * ZH_SCALES[char]
            section, digit = 0, None
        else:
            return None
    return Fraction(total + section + (digit or 0)) if text else None


ZH_RUN = re.compile(f"[{ZH_NUMERAL}]{{1,12}}")
