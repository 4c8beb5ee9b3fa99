"""Find the final answer in a completion: the one place that knows the two answer conventions.

The final `<answer>...</answer>` after the last `</think>` counts; else the final balanced `\\boxed{...}` after it.
Tags inside `<think>` never count. Around what was found a code fence and markdown or LaTeX text wrapping go away.
Every scan is linear in the length of the completion.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

MAX_COMPLETION_CHARS = (
    800_000  # 4096 tokens are some 20k characters; the longest reference pages and drawings fit
)
MAX_UNWRAPPED_CHARS = 100_000

_TAG = re.compile(r"</?(?:think|answer)>")
_MATH_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
_MARKDOWN_WRAPPERS = (("**", "**"), ("__", "__"), ("*", "*"), ("_", "_"), ("`", "`"))
_WRAPPERS = _MATH_WRAPPERS + _MARKDOWN_WRAPPERS
_FIRST = "$\\*_`"  # characters of a wrapping
_LATEX_COMMANDS = (
    "\\text",
    "\\textbf",
    "\\textit",
    "\\textrm",
    "\\texttt",
    "\\mathrm",
    "\\mathbf",
    "\\mathit",
)
_LATEX_COMMANDS += ("\\mathsf", "\\mathtt", "\\boldsymbol", "\\mbox", "\\emph", "\\boxed", "\\fbox")
_COMMAND = re.compile(r"(\\[a-z]{2,12}) {0,4}\{")
_LEAD_IN = re.compile(
    r"(?:(?:so|thus|hence|therefore)?,? ?(?:the|my)? ?(?:final|correct)? ?answer ?(?:is|:)? ?:?)?",
    re.IGNORECASE,
)
_MAX_LAYERS = 4
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff"))  # zero-width: nobody sees that they differ


class Extraction(NamedTuple):
    """The final answer: unwrapped text, its raw form, the convention it used, and where it lay in the completion."""

    text: str
    raw: str
    convention: Literal["answer", "boxed"]
    start: int  # of the whole element, tags included
    end: int
    closed: bool = True  # False: cut off before </answer>


def extract(completion: str, allow_unclosed: bool = False, code_block: bool = False) -> Extraction | None:
    """The final answer, or None.

    allow_unclosed: also read an <answer> that the length limit cut off.
    code_block: where the answer holds exactly one fenced block, with prose around it, the block is the answer.
    """
    completion = completion[:MAX_COMPLETION_CHARS]
    start, end = answer_region(completion)
    found = _last_tagged(completion, start, end, allow_unclosed) or _last_boxed(completion, start, end)
    if found is None:
        return None
    convention, outer_start, outer_end, raw = found
    closed = convention == "boxed" or completion.endswith("</answer>", outer_start, outer_end)
    text = unwrap(fenced_block(raw) if code_block else raw)
    return Extraction(text, raw, convention, outer_start, outer_end, closed)


def answer_region(completion: str) -> tuple[int, int]:
    """Start and end of the text that may hold the answer: after the last </think>, before an unclosed <think>."""
    close = completion.rfind("</think>")
    start = close + len("</think>") if close >= 0 else 0
    reopened = completion.find("<think>", start)
    return start, reopened if reopened >= 0 else len(completion)


def answer_chars(completion: str) -> int:
    """Characters of all answers, tags included, in either convention and wherever they stand; none counts twice."""
    boxes = ((start, end + 1) for start, _, end in _boxed(completion, 0, len(completion)))
    total = covered = 0
    for start, end in sorted([*_tagged(completion), *boxes]):
        total += max(end - max(start, covered), 0)
        covered = max(covered, end)
    return total


def _last_tagged(text: str, start: int, end: int, allow_unclosed: bool) -> tuple | None:
    """The last innermost <answer>...</answer> pair."""
    opened, found = None, None
    for tag in _TAG.finditer(text, start, end):
        if tag.group() == "<answer>":
            opened = tag
        elif tag.group() == "</answer>" and opened is not None:
            found = ("answer", opened.start(), tag.end(), text[opened.end() : tag.start()])
            opened = None
    if allow_unclosed and opened is not None and end == len(text):
        return "answer", opened.start(), end, text[opened.end() : end]
    return found


def _last_boxed(text: str, start: int, end: int) -> tuple | None:
    """The balanced \\boxed{...} that ends last."""
    found = None
    for outer, inner, close in _boxed(text, start, end):
        found = outer, inner, close
    return found and ("boxed", found[0], found[2] + 1, text[found[1] : found[2]])


def _boxed(text: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Every balanced \\boxed{...} in the order of their ends: its start, and that and the end of its content.

    Escaped braces are text.
    """
    if text.find("\\boxed", start, end) < 0:
        return
    stack: list[tuple[int, int] | None] = []
    position = start
    while position < end:
        char = text[position]
        if char == "\\":
            opened = _boxed_at(text, position, end)
            if opened is not None:
                stack.append((position, opened))
                position = opened
            else:
                doubled = text.startswith("\\\\boxed", position)
                position += 1 if doubled else 2
            continue
        if char == "{":
            stack.append(None)
        elif char == "}" and stack:
            opening = stack.pop()
            if opening is not None:
                yield *opening, position
        position += 1


def _tagged(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every innermost <answer>...</answer> pair."""
    opened = None
    for tag in _TAG.finditer(text):
        if tag.group() == "<answer>":
            opened = tag.start()
        elif tag.group() == "</answer>" and opened is not None:
            yield opened, tag.end()
            opened = None


def _boxed_at(text: str, position: int, end: int) -> int | None:
    """Where the content of a \\boxed{ that starts at `position` begins, or None."""
    if not text.startswith("\\boxed", position):
        return None
    after = position + len("\\boxed")
    limit = min(after + 4, end)
    while after < limit and text[after] in " \t\n":
        after += 1
    return after + 1 if after < end and text[after] == "{" else None


def unwrap(text: str) -> str:
    """Strip a code fence, then markdown, math-mode and LaTeX text wrapping that spans the whole of `text`."""
    visible = text if text.isascii() else text.translate(_INVISIBLE)
    text = strip_fence(visible.strip())
    if len(text) > MAX_UNWRAPPED_CHARS:
        return text
    for _ in range(_MAX_LAYERS):
        inner = _without_layer(text)
        if inner == text or not inner:
            break
        text = inner
    return text


def strip_fence(text: str) -> str:
    """The content of a ```fenced``` block when the text is one, else the text unchanged."""
    if not text.startswith("```") or len(text) < 6:
        return text
    closed = text.endswith("```")
    body = text[3:-3] if closed else text[3:]
    if "```" in body:
        return text
    first_line, newline, rest = body.partition("\n")
    if newline and re.fullmatch(r"[\w+#.-]{0,20}[ \t]*", first_line.strip()):
        return rest.strip()
    return body.strip() if closed else text


def fenced_block(text: str) -> str:
    """The one fenced block of a text, fences included; the text unchanged when it has none or several."""
    if text.count("```") != 2:
        return text
    start = text.index("```")
    return text[start : text.index("```", start + 3) + 3]


def _without_layer(text: str) -> str:
    """One wrapping less, or the text unchanged. "$5$ and $6$" is not wrapped, "**B**" is."""
    wrapped = text[:1] in _FIRST
    for left, right in _WRAPPERS if wrapped else ():
        if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
            inner = text[len(left) : -len(right)]
            if left not in inner.replace("\\$", "") and right not in inner and not inner.endswith("\\"):
                return inner.strip()
    command = _COMMAND.match(text) if wrapped else None
    if (
        command
        and command.group(1) in _LATEX_COMMANDS
        and _closing_brace(text, command.end()) == len(text) - 1
    ):
        return text[command.end() : -1].strip()
    boxed = text.find("\\boxed{")
    if boxed > 0 and _LEAD_IN.fullmatch(text[:boxed].replace("$", "").strip()):
        return text[boxed:].rstrip("$. \n")
    return text


def _closing_brace(text: str, position: int) -> int:
    """Index of the brace that closes the one opened just before `position`, or -1."""
    depth = 1
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 1
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    return -1
