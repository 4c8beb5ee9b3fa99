"""multiple-choice: exactly one affirmed letter, or the full text of an option when the sample's spec gives the options.

The answer is read with a grammar of what affirms a choice ("B", "(B)", "B) 12 cm", "The answer is B"), not searched for
letters: words that start with a letter, negations and hedges fit nowhere in it. References with several letters are
compared as sets.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

from reward.extract import unwrap
from reward.reading.labels import closing, folded_width, without_label, without_markdown
from reward.types import Verdict, Verifier

MAX_CHARS = 4_000

_LATEX_TEXT = re.compile(
    r"\\(?:text|mathrm|textbf|mathbf|textit|textrm|mathit|mathsf|texttt|boldsymbol|bf|rm|emph) ?\{([^{}]*)\}"
)
_NOUN = r"(?:answer|option|choice|letter|solution|selection|alternative)s?"
_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore|ok|okay|clearly|obviously|then)\b,? ?+)?+"
    r"(?:(?:i(?: would|'d| will|'ll)?+ (?:choose|select|pick|say|answer|go with|opt for)(?: that)?+"
    r"|i(?: think| believe)(?: that)?+(?: it is| it's)?+|i am going with|i'm going with|let's go with"
    r"|it is|it's|this is|that is|that's|it must be|it should be"
    r"|it would be|must be|should be|choose|select|pick)\b:? ?+)?+"
    r"(?:(?:(?:the|my|our) ?+)?+"
    r"(?:(?:final|correct|right|best|most likely|most appropriate|only|chosen|selected|true) ?+){0,2}+"
    rf"{_NOUN} ?+(?:to (?:the|this) (?:question|problem) ?+|here ?+)?+"
    r"(?:would be|must be|should be|will be|is clearly|is thus|is therefore|is|are|was|:|=)?+:? ?+)?+"
    rf"(?:(?:clearly |definitely )?+(?:the )?+{_NOUN}:? )?+",
    re.IGNORECASE,
)
_LEAD_ZH = re.compile(
    r"(?:(?:所以|因此|故|综上(?:所述)?+|因而|从而|那么|于是|则)[,:]? ?+)?+"
    r"(?:(?:本题|此题|该题|我|应该?+|应当|正确|最终|的|答案|选项|答)*+"
    r"(?:是|为|应该?+|应当|:)?+ ?+)?+(?:选择|选项|选取|选用|挑选|选|答案)?+(?:是|为|:)?+ ?+"
)
_TAIL_ZH = re.compile(  # "B选项", "B项正确", "B是正确的"
    r" ?+(?:选?项|答案)?+ ?+(?:(?:是|为)?+(?:正确|对|符合题意|最合适|最佳)(?:的|答案|选项)*+|是答案)?+"
    r"(?=[。.,:;!)、\s]|$)"
)
_CONFIRMED = re.compile(
    r"[,:]? ?(?:(?:is|are) (?:the |both )?(?:(?:final|correct|right|best) ?)?(?:answers?|options?|choices?|one)?"
    r"|because .*|since .*)[.!]*",
    re.IGNORECASE | re.DOTALL,
)
_OPENERS, _CLOSERS = "([{<\"'【", ")]}>\"'】"
_WRAPPED = re.compile(rf"[{re.escape(_OPENERS)}]{{0,2}}([A-Za-z])([{re.escape(_CLOSERS)}]{{0,2}})")
_DELIMITER = re.compile(
    r" ?(?:[.:)\]、。;]|[-–—=] |, ?|\n)\s*+|(?<=[)\]}]) ++|(?<=[)\]}】])(?=\w)|\s++(?=\()"
)
_OTHERS_NAMED = re.compile(  # the text of an option that speaks of other options: "both A and B"
    r"(?:(?:both|neither|either|all of|none of|all but) (?:options? )?+"
    r"\(?([A-Z])\)?(?:, ?\(?([A-Z])\)?)*+,? (?:and|or|nor) \(?([A-Z])\)?(?: only| are (?:correct|true|right))?+"
    r"|\(?([A-Z])\)?,? and \(?([A-Z])\)?(?: only| are (?:correct|true|right)))[.!]?+",
    re.IGNORECASE,
)
_DUMP = re.compile(  # another option's letter and delimiter: "... B. 12 cm", "... B - Blue"
    r"(?<![\w.])\(?([A-Z])(?:[.:)、](?=\s*+\S)| [-–—=] )"
)
_NAMES_BEFORE = re.compile(
    r"\b(?:vitamin|type|class|group|grade|plan|hepatitis|figure|team|person|line|curve|angle|graph|point|side|section|part|"
    r"block|bin|box|car|train|city|town|company|sample|set|region|area|shape|circle|triangle|position|\d) ?+$",
    re.IGNORECASE,
)
_SECOND_LETTER = re.compile(
    r"(?:^|\b(?:or|and|not|nor|option|answer|choice|than|maybe|perhaps|also|is|be|to)\s++|[,;/&|+]\s*+|\n[^\S\n]*+)[(\[\"']?([A-Z])\b(?!\s+[a-z]{2,}|['’])"
    r"|\(([A-Z])\)|(?<![\w.])([A-Z])(?:\)|:(?!\w))|(?<![\w.] )(?<![\w.])(?<!\d )([A-Z])\.(?=\s+\S)"
)
_SEPARATOR = re.compile(r"\s*+(?:\band\b|[,;&+、/]|[和与及])\s*+(?:and\b\s*+)?+|\s++", re.IGNORECASE)
_BRACKETED_DENIAL = re.compile(
    r"\W*+(?:is |it is |it's |that is )?+(?:definitely |clearly )?+"
    r"(?:incorrect|wrong|false|no|not\b.{0,40}|rejected|eliminated|ruled.out|excluded|cannot be.{0,30})\W*+",
    re.IGNORECASE,
)
_CROSS = re.compile(r"[✗✘❌×✖]")
_DENIED_ZH = re.compile("错|不对|不正确|不是|不选|排除|不符合|不可能|不成立|还是|或者|可能|不一定|吗|有误")
_DENIED = re.compile(
    r"(?:is|are|was|isn['’]t|can['’]t|cannot|never|which is (?:wrong|incorrect|false|not))\b"
    r"|(?:wrong|incorrect|not (?:it|correct|right|the answer)|ruled out|eliminated)[.!]*$",
    re.IGNORECASE,
)


class Choice(NamedTuple):
    """The letters of the reference, and option letter -> normalised text (empty when the options are not given)."""

    letters: frozenset[str]
    options: Mapping[str, str]


def prepare(reference: str, params: Mapping[str, Any]) -> Choice:
    """Read the reference letters. Raises ValueError when the reference names no letter and no given option."""
    options = _read_options(params["options"])
    letters = affirmed_letters(unwrap(reference), options)
    if not letters:
        raise ValueError(
            "wanted a letter, letters such as 'A, C', or the text of an option given in spec.options"
        )
    if options and not letters <= options.keys():
        raise ValueError(f"names {sorted(letters)}, but spec.options has {sorted(options)}")
    return Choice(letters, options)


def verify(extracted: str, prepared: Choice, params: Mapping[str, Any]) -> Verdict:
    """1 when the set of affirmed letters is the reference's, else 0."""
    if len(extracted) > MAX_CHARS:
        return Verdict(0.0, "rejected", trace=(f"multiple-choice: longer than {MAX_CHARS} characters",))
    letters = affirmed_letters(extracted, prepared.options)
    if not letters:
        return Verdict(
            0.0, "unparseable", trace=("multiple-choice: no letter is affirmed, or more than one reading",)
        )
    equal = letters == prepared.letters
    step = f"multiple-choice: affirms {sorted(letters)}, reference {sorted(prepared.letters)}"
    return Verdict(float(equal), trace=(step, "equal" if equal else "different"))


def affirmed_letters(text: str, options: Mapping[str, str]) -> frozenset[str]:
    """The upper-case letters that a short answer affirms; empty when it affirms none or contradicts itself."""
    text = _clean(text)
    by_text = _option_of(text, options)
    if by_text:
        return by_text
    conclusion = closing(text)
    if conclusion is not None and conclusion[0].strip():
        letters, opening = _affirmed(conclusion[1], options), _affirmed(conclusion[0], options)
        return letters if opening in (letters, frozenset()) else frozenset()
    return _affirmed(text, options)


def _affirmed(text: str, options: Mapping[str, str]) -> frozenset[str]:
    bare = without_label(text)
    candidates = (
        text,
        bare,
        text[_LEAD.match(text).end() :].strip(),
        bare[_LEAD.match(bare).end() :].strip(),
    )
    candidates += (bare[_LEAD_ZH.match(bare).end() :].strip(),)
    for candidate in dict.fromkeys(candidates):
        letters = _option_of(candidate, options) or _several(candidate) or _single(candidate, options)
        if letters:
            return letters
    return frozenset()


def _clean(text: str) -> str:
    text = folded_width(unicodedata.normalize("NFKC", text))
    for _ in range(2):
        text = _LATEX_TEXT.sub(r"\1", text)
    for mark in ("**", "__", "`", "$", "\\(", "\\)", "\\left", "\\right", "\\boxed"):
        text = text.replace(mark, "")
    for space in ("\\ ", "\\,", "\\;", "\\quad", "~"):
        text = text.replace(space, " ")
    text = re.sub(r"[ \t]+", " ", text).strip()
    if len(text) > 2 and text[0] == text[-1] == "*":
        text = text[1:-1]
    if text.startswith("*") and not text.startswith("* "):
        text = text.replace("*", "")
    return without_markdown(text)


def _single(text: str, options: Mapping[str, str]) -> frozenset[str]:  # noqa: PLR0911, PLR0912 - a grammar in order
    """One letter, alone or followed by a delimiter and its option's text."""
    match = _WRAPPED.match(text)
    if match is None:
        return frozenset()
    letter, end = match.group(1).upper(), match.end()
    chinese = _TAIL_ZH.match(text, end)
    if chinese and chinese.end() > end:
        if _DENIED_ZH.search(text, end):
            return frozenset()
        end = chinese.end()
    rest = text[end:]
    if not rest.strip(" \n.,;:!)]}\"'*。、✓✔✅"):
        return frozenset(letter)
    glued = rest[0].isalnum() and not match.group(2).endswith((")", "]", "】"))
    if glued or rest[0] in "'’_^" or _CROSS.search(rest) or _DENIED_ZH.search(rest[:20]):
        return frozenset()
    if _CONFIRMED.fullmatch(rest):
        return frozenset(letter)
    delimiter = _DELIMITER.match(text, end - (1 if match.group(2)[-1:] in (")", "]", "}", "】") else 0))
    if delimiter is None or delimiter.end() < end:
        return frozenset()
    tail = text[delimiter.end() :].strip()
    if options:
        named = _option_of(tail, options)
        if named:
            return frozenset(letter) if named == {letter} else frozenset()
    if rest.lstrip().startswith(("(", "[", "{")) and _BRACKETED_DENIAL.fullmatch(rest):
        return frozenset()
    others = _OTHERS_NAMED.fullmatch(tail)
    if others:
        return frozenset() if letter in filter(None, others.groups()) else frozenset(letter)
    if _dumps(tail, letter):
        return frozenset()
    if _DENIED.match(tail) or _SECOND_LETTER.search(tail) or tail.rstrip().endswith("?"):
        return frozenset(letter) if _CONFIRMED.fullmatch(" " + tail) else frozenset()
    return frozenset(letter)


def _dumps(tail: str, letter: str) -> bool:
    """Whether another option's letter and text follow: a list of options affirms none of them."""
    return any(
        found.group(1) != letter
        and not _NAMES_BEFORE.search(tail[max(0, found.start() - 12) : found.start()])
        for found in _DUMP.finditer(tail)
    )


def _several(text: str) -> frozenset[str]:
    """Letters and nothing else: "A, C", "A and C", "(A)(C)", "ACD"; duplicates and "or" are no answer."""
    text = re.sub(r"^both ", "", text.rstrip(" .;!。"), flags=re.IGNORECASE)
    text = re.sub(
        r" (?:are|is) (?:both )?(?:the )?(?:correct|right)(?: answers?| options?| choices?)?$", "", text
    )
    if len(text) > 120:
        return frozenset()
    if re.fullmatch(r"[A-Z]{2,10}", text):
        letters = list(text)
    else:
        if (len(text) > 1 and text[0] == "[" and text[-1] == "]") or (text[:1] == "{" and text[-1:] == "}"):
            text = text[1:-1].strip()
        pieces = _SEPARATOR.split(re.sub(r"\)\s*\(", "), (", text))
        matches = [_WRAPPED.fullmatch(piece.rstrip(".")) for piece in pieces if piece]
        if not all(matches):
            return frozenset()
        letters = [match.group(1).upper() for match in matches]
    return frozenset(letters) if len(set(letters)) == len(letters) > 1 else frozenset()


def _read_options(given: Any) -> dict[str, str]:
    """Options as {"A": "12 cm", ...} or ["12 cm", ...] (lettered A, B, ...), texts normalised."""
    if given is None:
        return {}
    if isinstance(given, list) and given and len(given) <= 26:
        given = {chr(ord("A") + index): text for index, text in enumerate(given)}
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"spec.options: got {given!r}, wanted a mapping letter -> text or a list of texts")
    options = {}
    for letter, text in given.items():
        if not re.fullmatch(r"[A-Za-z]", str(letter)):
            raise ValueError(f"spec.options: got the key {letter!r}, wanted one letter")
        options[letter.upper()] = _folded(
            re.sub(rf"^\(?{letter}[).:]\s*", "", _clean(str(text)), flags=re.IGNORECASE)
        )
    return options


def _option_of(text: str, options: Mapping[str, str]) -> frozenset[str]:
    """The option whose full text this is; empty when it is none's, or that of two options."""
    folded = _folded(text)
    # A lone letter is a letter, even where options read "B", "A".
    if len(folded) < 2 and not folded.isdigit():
        return frozenset()
    letters = [letter for letter, option in options.items() if option == folded]
    return frozenset(letters) if len(letters) == 1 else frozenset()


def _folded(text: str) -> str:
    return " ".join(_clean(text).casefold().split()).strip(" .\"'")


DEFAULTS = {"options": None}
VERIFIER = Verifier(prepare, verify, DEFAULTS)
