"""Bring a mathematical answer to the LaTeX that the parser reads well.

Closes the gaps of the parser: unicode roots, powers, fractions and Greek letters, `1e3`, repeating decimals, degrees in
trigonometry, plain-text functions, leading approximately-equal signs, `x \\in`, prose lead-ins.
"""

import re
import unicodedata
from fractions import Fraction

from reward.reading.numbers import normalize_math_text

_GREEK = re.compile("[Α-Ωα-ω]")
_SYMBOLS = {
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "±": r"\pm ",
    "→": r"\to ",
    "∠": r"\angle ",
    "△": r"\triangle ",
}
_SYMBOLS |= {
    "<=": r"\le ",
    ">=": r"\ge ",
    "!=": r"\ne ",
    "**": "^",
    "×": r"\times ",
    "÷": r"\div ",
    "∓": r"\mp ",
}
_SYMBOLS |= {"∞": r"\infty ", "∅": r"\emptyset ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in "}

FUNCTION_NAMES = {
    "arcsin",
    "arccos",
    "arctan",
    "sinh",
    "cosh",
    "tanh",
    "sin",
    "cos",
    "tan",
    "cot",
    "sec",
    "csc",
    "log",
    "ln",
}
FUNCTION_NAMES |= {"exp", "lim", "max", "min", "gcd", "lcm", "det"}
_FUNCTIONS = "|".join(sorted(FUNCTION_NAMES, key=len, reverse=True))
_PLAIN_FUNCTION = re.compile(rf"(?<![\\A-Za-z])(?<!\d )({_FUNCTIONS})(?=[\s({{\d\\_^]|$)")
_PLAIN_NAMES = re.compile(r"(?<![\\A-Za-z])(?:(pi|theta|alpha|beta|gamma)|(infinity|infty|inf))(?![A-Za-z])")
_ROOT = re.compile(r"√ ?(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[A-Za-z]))|(?<!\\)sqrt ?\(([^()]*)\)")
_REPEATING = re.compile(r"(?<!\d)(\d*+)\.(\d*+)\\(?:overline|bar|dot) ?\{?(\d{1,12})\}?")
_SCIENTIFIC = re.compile(r"(?<![\w.\\])(\d+(?:\.\d+)?)[eE]([-+]?\d{1,3})(?![\w.])")
_LONG_POWER = re.compile(r"\^ ?(?:(-?\d{2,}|-\d)|\(([^()]*)\))")
_DEGREE = re.compile(r"(?<!\d)(\d++(?:\.\d++)?+) ?°")
_TRIG = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)")
_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore|then)\b,? ?)?(?:(?:we (?:get|have)|it is|it equals|this is|that is)\b:? ?)?"
    r"(?:(?:the |my )?(?:(?:final|correct) )?(?:answer|solution|result|value)s?(?: (?:is|are|equals)|:)?:? )?",
    re.IGNORECASE,
)
_NAMED = re.compile(  # "The area of the square is 12", "perimeter = 12"
    r"^(?!.{0,80}\b(?:not|or|if|isn't)\b)(?:(?:[A-Za-z]{1,20} ){1,10}(?:is|are|equals)(?: equal to)?"
    r"|(?:[A-Za-z]{2,20} ){0,7}[A-Za-z]{2,20} ?:) ?(?=[-+(\d\\.])"
)
_APPROXIMATE = re.compile(
    r"^(?:≈|≃|≅|\\cong|\\simeq|~|about|approximately|approx\.?|roughly) ?", re.IGNORECASE
)
_NEGATIVE = re.compile(r"^(?:minus|negative) +(?=[\d.\\])", re.IGNORECASE)
_DOMAIN = re.compile(
    r"(?<=[^\s,]),? ?\(?(?:where |for )?[a-z] ?(?:\\in|∈) ?(?:\\mathbb ?\{?[A-Z]\}?|[ZNQR])(?:\^?[+*])?\)?$"
)
_CASES = re.compile(r"\\begin\{cases\}(.{0,500}?)\\end\{cases\}", re.DOTALL)
_PLAIN_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_BEFORE_NFKC = {char: rf"\mathbb{{{letter}}}" for char, letter in zip("ℝℤℕℚℂ", "RZNQC", strict=True)}
_BEFORE_NFKC |= {
    r"\varnothing": r"\emptyset",
    r"\langle": "(",
    r"\rangle": ")",
    "∛": r"\sqrt[3]",
    "⟨": "(",
    "⟩": ")",
}
_MEMBER = re.compile(r"^[A-Za-z] ?(?:\\in\b|∈) ?")
_CONNECTOR = re.compile(r",? (or|and) ")
_INEQUALITY = re.compile(r"[<>]|\\(?:le|ge|ne)(?![a-z])")
_WRAPPED = re.compile(
    r"\\(?:underline|bm|boldsymbol|fbox|boxed|mathbf|textbf|emph|textit|displaystyle|large|Large) ?\{([^{}]*+)\}"
)
_IMPLIES = re.compile(r"\\(?:Rightarrow|implies|Longrightarrow|therefore)(?![a-z])|⇒|∴")
_SUBSCRIPTS = re.compile("[₀-₉]+")
_ELLIPSIS = re.compile(r"(?<![\d.])(\d{0,6})\.(\d{2,24})(?: ?(?:\.{3}|…|\\(?:ldots|dots|cdots)(?![a-z])))")
_SYSTEM = re.compile(
    r"\\left ?\\\{ ?\\begin ?\{(?:array|aligned)\} ?(?:\{[lcr| ]{0,9}\})?"
    r"(.{1,400}?)\\end ?\{(?:array|aligned)\} ?\\right ?\.?",
    re.DOTALL,
)
_CHOOSE = re.compile(r"(?<![\w\\])(?:\\mathrm ?\{ ?C ?\}|C) ?_ ?\{?(\d{1,3})\}? ?\^ ?\{?(\d{1,3})\}?(?!\d)")
_BASIS = re.compile(r"\\(?:hat|mathbf|vec|bm|boldsymbol) ?\{ ?\\?([ijk])(?:math)? ?\}")
_BARE_ROOT = re.compile(r"\\sqrt(\[\d\]) ?(\d|[a-z])")
_BARE_PI = re.compile(r"\\frac ?\\pi ?(?=[\d{])")
_LOG_BASE = re.compile(r"\\log ?_ ?(?:(\d)|\{(\d{1,4})\}) ?(\d{1,9}(?:\.\d{1,9})?)")
_THOUSANDS = re.compile(r"(?<=\d)(?:,\\! ?|\{,\} ?|,\\ )(?=\d{3}(?!\d))")
_CURRENCY = re.compile(r"(?:\\\$|(?<![A-Za-z])(?:US|CA)?[$€£¥₹])")

ASSIGNED = re.compile(  # what may stand left of "=" in an answer: x, x_1, f(x), \\theta, \\angle ABC, AB
    r"(?:[A-Za-z]|\\(?!frac|sqrt)[a-z]+)(?:_\{?\w{1,12}\}?|')?(?: ?\([\w ,]{1,20}\))?"
    r"|\\(?:angle|triangle) ?[A-Z]{1,3}|[A-Z]{2,3}"
)


def to_latex(text: str) -> str:
    """One spelling of the answer, still LaTeX. Expects a text that passed `math_guard.refusal`."""
    text = _SUBSCRIPTS.sub(lambda m: "_{" + m.group().translate(_PLAIN_SUBSCRIPTS) + "}", text)
    text = _SYSTEM.sub(r"\\begin{cases}\1\\end{cases}", _ELLIPSIS.sub(_endless_text, text))
    text = re.sub(r"(?:\\text ?)?\{:\}", ":", text)
    text = _BASIS.sub(r"\1", _CHOOSE.sub(r"\\binom{\1}{\2}", text))
    text = _BARE_PI.sub(r"\\frac{\\pi}", _THOUSANDS.sub(",", _WRAPPED.sub(r"\1", text)))
    text = re.sub(r"\\begin ?\{([a-z]*+)\}(?:\{[lcr| ]*+\})?", r"\\begin{\1}", text)
    text = text.replace("\\mathbb ", "\\mathbb").replace("\\lbrace", "\\{").replace("\\rbrace", "\\}")
    text = re.sub(
        r"\\(leq?|geq?|neq?)(?![a-z])", lambda m: {"l": r"\le", "g": r"\ge", "n": r"\ne"}[m.group(1)[0]], text
    )
    for symbol, latex in _BEFORE_NFKC.items():
        text = text.replace(symbol, latex)
    text = _CASES.sub(
        lambda m: ", ".join(filter(None, (row.strip(" ,") for row in m.group(1).split("\\\\")))), text
    )
    text = normalize_math_text(_REPEATING.sub(_repeating_text, text))
    text = re.sub(r"(?<=\d)\u2009(?=\d{3}(?!\d))", "", text).replace("\u2009", " ")
    text = re.sub(r"(?<!\\)\$", "", text).strip()
    text = re.sub(r"(?<!\\)\\[()\[\]]", "", text)
    text = _IMPLIES.split(text)[-1].strip()
    text = _LEAD.sub("", text, count=1).strip()
    text = _NAMED.sub("", text, count=1)
    text = text[:-1].rstrip() if text.endswith((".", ";")) else text
    text = _APPROXIMATE.sub("", text).removeprefix("=").strip()
    text = _DOMAIN.sub("", _NEGATIVE.sub("-", text))
    for symbol, latex in _SYMBOLS.items():
        if symbol in text:
            text = text.replace(symbol, latex)
    text = _GREEK.sub(_greek_command, text)
    text = _ROOT.sub(
        lambda m: "\\sqrt{" + next(group for group in m.groups() if group is not None) + "}", text
    )
    text = _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text)
    text = _PLAIN_FUNCTION.sub(r"\\\1 ", text)
    text = _BARE_ROOT.sub(r"\\sqrt\1{\2}", text)
    text = re.sub(r"(?<=\d) to (?=\d)", ":", text)
    text = re.sub(r"\\lg(?![a-z])", r"\\log_{10}", text)
    text = re.sub(r"\\log ?_ ?(?:e|\{e\})(?![a-z])", r"\\ln", text)
    text = _LOG_BASE.sub(lambda m: rf"\log_{{{m.group(1) or m.group(2)}}}{{({m.group(3)})}}", text)
    text = _PLAIN_NAMES.sub(lambda m: "\\" + (m.group(1) or "infty") + " ", text)
    text = _LONG_POWER.sub(lambda m: "^{" + (m.group(1) or m.group(2)) + "}", text)
    text = _MEMBER.sub("", text)
    joins = {"or": r" \lor ", "and": r" \land "} if _INEQUALITY.search(text) else {"or": ", ", "and": ", "}
    text = _CONNECTOR.sub(lambda m: joins[m.group(1)], text)
    if _TRIG.search(text):
        text = _DEGREE.sub(r"{\\frac{\1 \\pi}{180}}", text)
    text = _CURRENCY.sub("", text)
    return re.sub(r" +", " ", text.replace("*", r" \cdot ")).strip()


def _greek_command(match: re.Match[str]) -> str:
    """GREEK SMALL LETTER ALPHA as \\alpha, GREEK CAPITAL LETTER DELTA as \\Delta."""
    _, case, _, name = unicodedata.name(match.group()).split(" ", 3)
    name = name.replace("LAMDA", "LAMBDA")
    return "\\" + (name.lower() if case == "SMALL" else name.capitalize()) + " "


def _endless_text(match: re.Match[str]) -> str:
    """0.1212... as 0.\\overline{12}; the text unchanged where its last digits do not repeat."""
    digits = match.group(2)
    for length in (1, 2, 3, 6):
        cycle = digits[-length:]
        repeats = len(digits) // length
        while repeats > 1 and not digits.endswith(cycle * repeats):
            repeats -= 1
        if repeats > 1:
            return rf"{match.group(1)}.{digits[: len(digits) - length * repeats]}\overline{{{cycle}}}"
    return match.group()


def _repeating_text(match: re.Match[str]) -> str:
    """0.1\\overline{6} as an exact fraction."""
    whole, fixed, cycle = match.group(1) or "0", match.group(2), match.group(3)
    scale = 10 ** len(fixed)
    value = Fraction(int(whole + fixed), scale) + Fraction(int(cycle), (10 ** len(cycle) - 1) * scale)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
