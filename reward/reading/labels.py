"""Take off what stands around a short answer: markdown, a label before it, a sentence that introduces it.

    "**Final Answer:** $5$" -> "$5$"    "【答案】B" -> "B"    "Based on the image, the answer is 7." -> "7."

Nothing here decides what an answer means: what is left is read by the type's own grammar, which refuses a negation.
"""

import re
import unicodedata

_MARKS = ("**", "__", "`")
_HEADING = re.compile(r"(?:#{1,6}+ ++|[-*•] (?=[A-Za-z*\u4e00-\u9fff]))")
_CONTEXT = re.compile(  # "Based on the image, "
    r"(?:based on|according to|looking at|judging (?:by|from)|from|given|in|as (?:shown|seen) in|considering)"
    r" (?:the |this |that |my |our )?+(?:[a-z'-]++ ){0,5}[a-z'-]++, ?+",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"(?:(?:so|thus|hence|therefore|then|ok|okay|clearly|finally|and)\b,? ?+)?+"
    r"(?:(?:the|my|our|a) )?+(?:(?:final|correct|right|best|short|most likely|exact|numerical|required) ){0,2}+"
    r"(?:answer|solution|result|ans|response|conclusion)s?+\b\.?+"
    r"(?: to (?:the|this) (?:question|problem)| here| choice)?+"
    r" ?+(?:(?:is|are|was|would be|should be|must be|equals|will be)\b(?: therefore| thus| simply| equal to)?+ ?+:?+"
    r"|:|=|\n|(?<=ans\. )) ?+",
    re.IGNORECASE,
)
_LABEL_ZH = re.compile(
    r"(?:[【\[](?:参考|最终|正确)?+(?:答案|解答|答)[】\]] ?+:?+"
    r"|(?:所以|因此|故|综上(?:所述)?+|那么|从而|于是|即|则|,| |解[:得]){0,3}"
    r"(?:(?:(?:本题|此题|该题)的?+)?+(?:最终|正确|最后|参考)?+的?+(?:答案|结果)"
    r"(?:应该|应当|应)?+(?:是|为|选|:|=)|答[:,]) ?+:?+) ?+"
)
_CLAUSE = re.compile(r"\banswers?\b|答案", re.IGNORECASE)
_BOUNDARY = re.compile(
    r"(?:^|[.!?;:,\n。；，！]|(?:,|;|\.|。)? ?\b(?:so|thus|hence|therefore)|所以|因此|故) ?+"
    r"(?:(?:the|my|our)(?: (?:final|correct|right|best|short))? |最终|正确|最后|的| )?+$",
    re.IGNORECASE,
)
_MAX_CHARS = 4_000


def word_set(text: str) -> frozenset[str]:
    """The words of a text as a set: how this package writes its long lists of words."""
    return frozenset(text.split())


def folded_width(text: str) -> str:
    """Full-width letters, digits and punctuation as ASCII, curly quotes and long dashes as plain ones; nothing else."""
    return text if _FOLDED.isdisjoint(text) else text.translate(_WIDTH)


_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " "}
_WIDTH |= dict.fromkeys(map(ord, "‘’‛ʼ′"), "'") | dict.fromkeys(map(ord, "“”„‟″"), '"')
_WIDTH |= dict.fromkeys(map(ord, "‐‑‒–—―−"), "-")
_FOLDED = frozenset(map(chr, _WIDTH))


def without_markdown(text: str) -> str:
    """The text without emphasis marks, code ticks and a heading or quote mark before it."""
    for mark in _MARKS:
        if text.count(mark) > 1:
            text = text.replace(mark, "")
    heading = _HEADING.match(text)
    return text[heading.end() :].strip() if heading else text.strip()


def without_label(text: str) -> str:
    """The text without "Answer:", "The final answer is", "Based on the image, ...", "答案是" or the like before it."""
    for _ in range(3):
        context = _CONTEXT.match(text)
        found = _LABEL.match(text) or _LABEL_ZH.match(text) or context
        if found is None or found.end() >= len(text):
            break
        text = text[found.end() :].lstrip()
    return text


def closing(text: str) -> tuple[str, str] | None:
    """(what stands before, X) of a text whose last clause is "..., so the answer is X"; None when it is not."""
    if len(text) > _MAX_CHARS:
        return None
    mentions = list(_CLAUSE.finditer(text))
    if not mentions:
        return None
    last = mentions[-1]
    before = text[max(0, last.start() - 40) : last.start()]
    boundary = _BOUNDARY.search(before)
    if boundary is None or (last.start() > 40 and boundary.start() == 0):
        return None
    start = last.start()
    label = _LABEL.match(text, start) or _LABEL_ZH.match(text, start)
    if label is None or label.end() >= len(text):
        return None
    return before_clause(text[:start]), text[label.end() :].strip()


def before_clause(text: str) -> str:
    """The text without the "so the" that introduces its last clause."""
    return text[: max(0, len(text) - 40)] + _BOUNDARY.sub("", text[-40:])


def plain(text: str) -> str:
    """NFKC, without markdown, invisible spaces and label; white space folded within lines."""
    text = unicodedata.normalize("NFKC", text).translate(_WIDTH)
    return without_label(without_markdown(re.sub(r"[ \t]++", " ", text).strip()))
