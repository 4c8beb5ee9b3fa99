"""Equal signs of an answer: which sides only name what is asked for ("|AB| = 5"), and which are values.

sides("S_{\\triangle ABC} = 3 \\times 4 = 12") -> names ["S_{\\triangle ABC}"], values ["3 \\times 4", "12"]
"""

import re
from typing import NamedTuple

_SUBSCRIPT = r"(?:_ ?+(?:\{[^{}]{1,40}\}|\\?\w++(?: [A-Z]{2,4})?+))?+"
_GREEK = (
    "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|nu|rho|sigma|tau|phi|varphi|psi|omega|Delta|Omega|Phi|eta"
)
_LETTER = rf"(?:[A-Za-z]|\\(?:{_GREEK})(?![a-z]))"
_POINTS = r"[A-Z](?: ?[A-Z]){1,5}+'?+"
_ANGLE = (
    r"m? ?\\(?:angle|triangle|overline|overrightarrow|widehat|vec|hat|bar|overarc|odot|square) ?"
    r"(?:\{[^{}]{1,12}\}|\w{1,5})(?: ?[A-Z]{2,4})?"
)
_ATOM = rf"(?:{_ANGLE}|{_POINTS}|{_LETTER}{_SUBSCRIPT}'{{0,2}})"
_CALL = rf"{_LETTER}{_SUBSCRIPT}'{{0,2}}(?:\^ ?\{{?-?\w\}}?)? ?\([^()]{{1,30}}(?:\([^()]{{1,10}}\))?[^()]{{0,10}}\)"
_TRIG = rf"\\(?:sin|cos|tan|cot|sec|csc)(?: ?\^ ?\{{?2\}}?)? ?\(?(?:\d? ?{_ATOM}|\{{{_ATOM}\}})\)?"
_SIMPLE = rf"(?:{_CALL}|{_TRIG}|\| ?{_ATOM} ?\||\\(?:left)?\|{_ATOM}\\(?:right)?\||{_ATOM})"
_NAME = re.compile(
    rf"{_SIMPLE}|\\frac ?\{{ ?{_SIMPLE} ?\}} ?\{{ ?{_SIMPLE} ?\}}|{_SIMPLE} ?(?:/|\\div) ?{_SIMPLE}"
    rf"|{_SIMPLE}(?: ?: ?{_SIMPLE}){{1,3}}|\([a-z](?:, ?[a-z]){{1,3}}\)"
    r"|\\text ?\{[^{}]{1,60}\}.{0,30}"
)
_SEGMENTS = re.compile(rf"(?:{_POINTS}|{_ANGLE})(?: ?(?:[+:-]|\\cdot|\\times)? ?(?:{_POINTS}|{_ANGLE}))++")
_COMPOSITE = re.compile(
    rf"(?:{_SIMPLE}|\\cdot|[-+/ ()|]|\^ ?\{{?[23]\}}?|\\(?:vec|overrightarrow) ?\{{\w{{1,2}}\}})++"
)
_WORDS = re.compile(
    r"(?=.*[A-Za-z]{2})[A-Za-z][A-Za-z' ()]{1,80}+(?:\\(?:triangle|angle) ?[A-Z]{1,4}|_\w{1,8}| )?+"
)
_DENIED = re.compile(r"\b(?:not|or|if|no|never|and|neither|isn't|than|least|most)\b", re.IGNORECASE)
_FUNCTION_WORD = re.compile(r"^(?:sin|cos|tan|log|ln|exp|sqrt|max|min|lim)$")


class Sides(NamedTuple):
    """What stands around the equal signs of one piece: names, values from left to right, and which are approximate."""

    names: tuple[str, ...]
    values: tuple[str, ...]
    approximate: tuple[bool, ...]  # per value: was it introduced by an approximately-equal sign?


def split_equal(text: str) -> list[tuple[str, bool]]:
    """The text split at equal signs that stand in no bracket: (side, was the sign before it "≈")."""
    parts: list[tuple[str, bool]] = []
    depth = start = 0
    approximate = False
    for index, char in enumerate(text):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth = max(depth - 1, 0)
        elif depth == 0 and (
            char == "≈" or (char == "=" and text[index - 1 : index] not in ("<", ">", "!", ":", "\\"))
        ):
            parts.append((text[start:index].strip(), approximate))
            start, approximate = index + 1, char == "≈"
    parts.append((text[start:].strip(), approximate))
    return parts


def is_name(side: str, composite: bool = False) -> bool:
    """Whether a side only names a quantity. composite: sums and products of letters count too ("a + b")."""
    side = side.strip()
    if len(side) > 120:
        return False
    if _NAME.fullmatch(side) or _SEGMENTS.fullmatch(side):
        return True
    if _WORDS.fullmatch(side) and not _DENIED.search(side) and not _FUNCTION_WORD.match(side):
        return True
    return composite and len(side) < 60 and _COMPOSITE.fullmatch(side) is not None


def sides(text: str, composite: bool = False) -> Sides:
    """Names and values of one piece; a piece without an equal sign is one value."""
    parts = [part for part in split_equal(text) if part[0]]
    names = []
    while len(parts) > 1 and is_name(
        parts[0][0], composite and not _shares_letters(parts[0][0], parts[-1][0])
    ):
        names.append(parts.pop(0)[0])
    if (
        len(parts) == 2
        and is_name(parts[1][0])
        and not is_name(parts[0][0])
        and re.search(r"\d", parts[0][0])
    ):
        names, parts = [parts[1][0]], parts[:1]  # "5 = x"
    return Sides(tuple(names), tuple(part[0] for part in parts), tuple(part[1] for part in parts))


def _shares_letters(left: str, right: str) -> bool:
    return bool(letters(left) & letters(right))


def letters(text: str) -> set[str]:
    """The letters that a text uses, commands aside."""
    return set(re.findall(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", " ", text)))


def same_quantity(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two lists of names may mean one quantity; words and a missing name may mean anything."""
    if not one or not other:
        return True
    mine, theirs = set(map(_bare, one)), set(map(_bare, other))
    if mine & theirs or any(
        _WORDS.fullmatch(name) and len(name) > 3 and not _SEGMENTS.fullmatch(name) and " " in name
        for name in (*one, *other)
    ):
        return True
    if {"y"} in (mine, theirs) and any(re.fullmatch(r"[a-z]\([a-z]\)", name) for name in mine | theirs):
        return True
    return any(a.split("_")[0] == b.split("_")[0] and ("_" in a) != ("_" in b) for a in mine for b in theirs)


def _bare(name: str) -> str:
    name = re.sub(r"\\(?:left|right|text|mathrm|overline|vec|overrightarrow|triangle)|[\s{}|\\]", "", name)
    if re.fullmatch(r"[A-Z]{2}", name):
        return "".join(sorted(name))
    return name.removeprefix("m") if name.startswith("mangle") else name
