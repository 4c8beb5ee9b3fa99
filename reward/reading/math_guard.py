"""Refuse expression bombs before any parser sees them: one linear scan over the text, no evaluation.

What passes may still be slow; the killable worker and its deadline are the second line of defence.
"""

import math
import re

from reward.reading.numbers import normalize_math_text

MAX_CHARS = 1_000
MAX_DEPTH = 24
MAX_PARENTHESES = 6  # the parser takes four times as long with every further pair
MAX_DIGITS = 60
MAX_EXPONENT = 1_000
MAX_FACTORIAL = 200
MAX_BINOMIAL = 1_000

_DIGITS = re.compile(r"\d+", re.ASCII)
_EXPONENT = re.compile(r"(?:\^|\*\*)\s*+[{(]*+\s*+[-+]?+\s*+(\d++(?:,\d{3})*+|\.\d++)", re.ASCII)
_LEADING_NUMBER = re.compile(r"\s*+[{(]*+\s*+[-+]?+\s*+(\d{1,9})", re.ASCII)
_FACTORIAL = re.compile(r"(?<!\d)(\d++)\s*+[)}]*+\s*+!", re.ASCII)
_BRACKET_FACTORIAL = re.compile(r"[)}\]] ?!")
_PLAIN_BRACKET_FACTORIAL = re.compile(r"[({\[][A-Za-z0-9+\- ]{1,12}[)}\]] ?!")
_BOUNDED = re.compile(r"\\(?:sum|prod|bigcup|bigcap)")
_EXPONENT_GROUP = re.compile(r"(?:\^|\*\*) ?[{(]([^{}]{0,1000})[})]")
_HUGE_SCIENTIFIC = re.compile(r"\d[eE][-+]?(\d+)", re.ASCII)


def refusal(text: str) -> str | None:
    """Why an expression must not be parsed, or None when it may be."""
    if len(text) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters"
    normal = normalize_math_text(text)  # full-width digits and superscripts make bombs too
    if len(normal) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters once normalised"
    return _bomb(text) or (_bomb(normal) if normal != text else None)


def _bomb(text: str) -> str | None:  # noqa: PLR0911 - one return per bomb
    if any(len(run) > MAX_DIGITS for run in _DIGITS.findall(text)):
        return f"a number of more than {MAX_DIGITS} digits"
    if any(float(exponent.replace(",", "")) > MAX_EXPONENT for exponent in _EXPONENT.findall(text)):
        return f"an exponent above {MAX_EXPONENT}"
    if any(int(exponent) > MAX_EXPONENT for exponent in _HUGE_SCIENTIFIC.findall(text)):
        return f"a power of ten above {MAX_EXPONENT}"
    if "!!" in text.replace(" ", "") or any(
        int(number) > MAX_FACTORIAL for number in _FACTORIAL.findall(text)
    ):
        return f"a factorial above {MAX_FACTORIAL}"
    if len(_BRACKET_FACTORIAL.findall(text)) != len(_PLAIN_BRACKET_FACTORIAL.findall(text)):
        return "a factorial of more than a small sum"
    if "binom" in text and any(int(run) > MAX_BINOMIAL for run in _DIGITS.findall(text)):
        return f"a binomial of numbers above {MAX_BINOMIAL}"
    if len(_BOUNDED.findall(text)) > 1 or (
        _BOUNDED.search(text) and any(len(r) > 3 for r in _DIGITS.findall(text))
    ):
        return "a sum or product with large bounds"
    for content in _EXPONENT_GROUP.findall(text):
        if "!" in content and any(char.isdigit() for char in content):
            return "a factorial in an exponent"
        product = math.prod(int(run) for run in _DIGITS.findall(content))
        if product > MAX_EXPONENT and re.search(r"\\cdot|\\times|[*!(×]", content):
            return f"an exponent that multiplies to more than {MAX_EXPONENT}"
    return _nesting_refusal(text)


def _nesting_refusal(text: str) -> str | None:
    """Brackets nested too deep, or a power tower: a power of numbers in an exponent, or powers of powers of powers."""
    stack: list[
        tuple[str, bool, bool]
    ] = []  # per open bracket: the bracket, is it an exponent, does it hold a power
    pending = False  # the last token was ^
    closed_power = closed_exponent = False  # the bracket that closed just now held a power, was an exponent
    num_powers, nested = 0, 1.0
    for index, char in enumerate(text):
        if char in "{([":
            stack.append((char, pending, False))
            if len(stack) > MAX_DEPTH or sum(opened != "{" for opened, _, _ in stack) > MAX_PARENTHESES:
                return "brackets nested too deep"
            pending = closed_power = closed_exponent = False
        elif char in "})]":
            if stack:
                _, closed_exponent, closed_power = stack.pop()
        elif char == "^" or (char == "*" and text[index - 1 : index] == "*"):
            exponent = _LEADING_NUMBER.match(text, index + 1)
            in_exponent = any(is_exponent for _, is_exponent, _ in stack)
            num_powers += 1
            if closed_power and exponent:
                nested *= float(exponent.group(1))
            if (closed_exponent and exponent) or (in_exponent and exponent and _digit_before(text, index)):
                return "a power tower"
            if (
                nested > MAX_EXPONENT
                or num_powers > 40
                or sum(is_exponent for _, is_exponent, _ in stack) >= 2
            ):
                return "too many powers of powers"
            stack = [(opened, is_exponent, True) for opened, is_exponent, _ in stack]
            pending, closed_power, closed_exponent = True, False, False
        elif not char.isspace():
            if char not in "-*":
                closed_exponent = pending and char.isalnum()
                pending = False
            closed_power = False
    return None


def _digit_before(text: str, index: int) -> bool:
    return text[:index].rstrip(" })*")[-1:].isdigit()
