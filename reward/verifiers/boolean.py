"""boolean: whole tokens yes/no/true/false, alone also y/n/t/f; 是/否, 对/错, 正确/错误 and the like in Chinese.

A verdict may be followed by its explanation ("Yes, there are no people"), or come last ("..., so the answer is yes").
Both sides, neither, a negation or a hedge score 0.
"""

import re
from collections.abc import Mapping
from typing import Any

from reward.extract import unwrap
from reward.reading.labels import closing, plain, word_set
from reward.types import Verdict, Verifier

MAX_CHARS = 4_000

_POLARITY = {"yes": True, "true": True, "no": False, "false": False}
_ALONE = _POLARITY | {"y": True, "t": True, "n": False, "f": False}
_TOKEN = re.compile(r"\w++(?:'\w++)?+|[.,;:!?\n/|。，；！]")
_LEAD = word_set(
    "the my our final correct answer is so thus hence therefore a it it's that that's this claim statement"
)
_NEGATIONS = word_set("not never neither nor cannot hardly barely without non")
_DOUBTS = word_set(
    "maybe perhaps possibly probably might could unsure unknown uncertain undetermined unclear idk"
)
_CONDITIONS = word_set("either or if unless whether partly partially sometimes and but")
_IDIOMS = word_set("doubt idea clue answer one longer matter problem question way comment worries yes true")
_PUNCTUATION = frozenset(".,;:!?\n/|。，；！")
_MAX_TOKENS = 200

_ZH_TRUE = "是的|是|对的|对|正确的|正确|真的|真|没错|属实|成立"
_ZH_FALSE = "不是的|不是|否|不对|错误的|错误|错的|错|不正确|假的|假|没有|不成立|不属实"
_ZH = re.compile(
    rf"(?:(?:这个|该|此)?+(?:说法|陈述|命题|判断|描述|表述|结论|答案)(?:是|为)?+ ?+)?+"
    rf"(?:({_ZH_FALSE})|({_ZH_TRUE}))(?:[。.!,;，；！\n]|$)"
)
_ZH_UNSURE = re.compile("可能|也许|大概|不确定|不知道|或者|或许|不清楚|无法|如果|还是|是否|是或|是和")


def polarity(text: str) -> bool | None:
    """True, False, or None when the text affirms neither side or both."""
    text = plain(text[:MAX_CHARS]).strip("\"'()[]{}* ").casefold()
    conclusion = closing(text)
    if conclusion is not None:
        verdict = _read(conclusion[1])
        opening = _verdict_first([*_TOKEN.findall(conclusion[0]), "."])
        return verdict if opening is None or opening == verdict else None
    return None if text.endswith("?") else _read(text)


def _read(text: str) -> bool | None:
    chinese = _ZH.match(text)
    if chinese:
        rest = text[chinese.end() :]
        verdict = chinese.group(2) is not None
        again = _ZH.match(rest.strip())
        contradicted = again is not None and (again.group(2) is not None) != verdict
        return None if contradicted or _ZH_UNSURE.search(text) or _POLARITY.keys() & _words(rest) else verdict
    tokens = _TOKEN.findall(text)
    words = [token for token in tokens if token not in _PUNCTUATION]
    core = [word for word in words if word not in _LEAD]
    if len(core) == 1 and core[0] in _ALONE and words[-1] == core[0] and "?" not in tokens:
        return _ALONE[core[0]]
    if not words or len(words) > _MAX_TOKENS or _DOUBTS.intersection(words):
        return None
    first = _verdict_first(tokens)
    if first is not None:
        return first
    if _CONDITIONS.intersection(words) - {"and", "but"}:
        return None
    return _affirmed_anywhere(words)


def _words(text: str) -> set[str]:
    return set(_TOKEN.findall(text))


def _verdict_first(tokens: list[str]) -> bool | None:
    """The side of a text that opens with it: "Yes, ...", where nothing behind contradicts or doubts it."""
    if len(tokens) < 2 or tokens[0] not in _POLARITY or tokens[1] not in _PUNCTUATION - {"?", "/", "|"}:
        return None
    verdict = _POLARITY[tokens[0]]
    rest = [token for token in tokens[1:] if token not in _PUNCTUATION]
    if rest and rest[0] in (_CONDITIONS | {"not"}) - {"either", "whether"}:
        return None
    if len(rest) > 1 and rest[0] in ("and", "but", "only") and rest[1] in _CONDITIONS | _POLARITY.keys():
        return None
    if _DOUBTS.intersection(rest):
        return None
    for index, token in enumerate(tokens[1:], 1):
        if token not in _POLARITY or (_POLARITY[token] == verdict and not _negated(tokens, index)):
            continue
        following = tokens[index + 1] if index + 1 < len(tokens) else "."
        determiner = token == "no" and following not in _PUNCTUATION | _POLARITY.keys() | {"it", "wait"}
        if not determiner and not (_POLARITY[token] != verdict and _negated(tokens, index)):
            return None
    return verdict


def _negated(tokens: list[str], index: int) -> bool:
    return any(word in _NEGATIONS or word.endswith("n't") for word in tokens[max(0, index - 6) : index])


def _affirmed_anywhere(words: list[str]) -> bool | None:
    """The one side that a sentence names, with no negation just before it."""
    found: set[bool] = set()
    for index, word in enumerate(words):
        if word not in _POLARITY:
            continue
        if _negated(words, index):
            return None
        if word == "no" and words[index + 1 : index + 2] and words[index + 1] in _IDIOMS:
            return None
        found.add(_POLARITY[word])
    return found.pop() if len(found) == 1 else None


def prepare(reference: str, params: Mapping[str, Any]) -> bool:
    """Read the reference. Raises ValueError when it is not a yes/no/true/false."""
    value = polarity(unwrap(reference))
    if value is None:
        raise ValueError("wanted yes, no, true or false, or the like in Chinese")
    return value


def verify(extracted: str, prepared: bool, params: Mapping[str, Any]) -> Verdict:
    """1 when the answer affirms the reference's side and no other."""
    if len(extracted) > MAX_CHARS:
        return Verdict(0.0, "rejected", trace=(f"boolean: longer than {MAX_CHARS} characters",))
    value = polarity(extracted)
    if value is None:
        return Verdict(0.0, "unparseable", trace=("boolean: affirms neither side, or both",))
    return Verdict(float(value == prepared), trace=(f"boolean: affirms {value}, reference {prepared}",))


VERIFIER = Verifier(prepare, verify)
