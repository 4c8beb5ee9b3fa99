"""The shape of an answer (list, set, tuple, interval, union, inequality, ratio, matrix), and two shapes compared.

A shape is compared piece by piece; whether two pieces are equal is for the caller's `equal(answer, gold)` to say.
Sets and lists compare without order, tuples and ratios with it. A tuple is no set, a ratio of three terms no number.
"""

import re
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from reward.reading.math_brackets import inside, split_top, wraps
from reward.reading.math_names import same_quantity, sides

Equal = Callable[[str, str], bool]
Size = Callable[[str], float | None]

_ROWS = re.compile(
    r"(?P<left>[(\[|]?) ?\\begin\{(?P<kind>[bpvBV]?matrix|array|smallmatrix)\} ?(?:\{[lcr| ]{1,20}\})?"
    r"(?P<body>.{1,800})"
    r"\\end\{(?P=kind)\} ?(?P<right>[)\]|]?)",
    re.DOTALL,
)
_RELATION = re.compile(r"\\(?:le|ge|ne)(?![a-z])|[<>]")
_INFINITE = re.compile(r"([-+]?) ?\\infty ?")
_REALS = re.compile(r"\\(?:mathbb|mathbf) ?\{? ?R ?\}?|all real numbers|all reals")
_WITHOUT = re.compile(
    r"(.+?) ?(?:\\setminus|\\backslash|(?<=[}R]) ?[-\\]) ?(?:\\\{|\{)((?:[^{}]|\{[^{}]*+\})+?)\\?\}"
)
_PLUS, _MINUS = re.compile(r"\\pm(?![a-z])"), re.compile(r"\\mp(?![a-z])")
_VARIABLE = r"(?:[A-Za-z]|\\(?:theta|alpha|beta|lambda|mu|phi)|\|[a-z]\||[a-z]\^\{?2\}?)(?:_\{?\w\}?)?"
_ORDERED = (("vector", "vector"), ("tuple", "tuple"), ("tuple", "list"), ("list", "tuple"))
_MAX_ITEMS = 24
_MAX_DEPTH = 3
INFINITY = float("inf")


class Shape(NamedTuple):
    """kind: scalar, list, set, tuple, interval, region, ratio, matrix; items: texts, or rows, or pieces of a region.

    A region's piece is (low, low is included, high, high is included); low None is -infinity, high None +infinity.
    """

    kind: str
    items: tuple
    variable: str = ""


def shape(text: str, size: Size) -> Shape:  # noqa: PLR0911 - one return per shape
    """The shape of a text from `to_latex`. size: the value of a piece where it is a number."""
    text = text.strip()
    region = _region(text, size)
    if region is not None:
        return region
    rows = _ROWS.fullmatch(text)
    if rows and rows["kind"] not in ("vmatrix", "Vmatrix") and rows["left"] != "|":
        return Shape("matrix", tuple(tuple(split_top(row, "&", keep=True)) for row in _rows(rows["body"])))
    inner = inside(text, r"\{", r"\}") or inside(text, "{", "}")
    if inner is not None and not re.search(r"\\mid|(?<!\\)\||:", inner):
        items = split_top(inner, ",;")
        if len(items) > 1 or text.startswith("\\{"):
            return Shape("set", tuple(items))
    point = re.match(r"[A-Z]'? ?(?=\(.*,)", text)  # P(1, 2)
    text = text[point.end() :] if point and wraps(text[point.end() :]) else text
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and wraps(text):
        items = split_top(text[1:-1], ",;")
        if len(items) > 1:
            if text[0] == "(" and text[-1] == ")":
                return Shape("tuple", tuple(items))
            return Shape("interval" if len(items) == 2 else "vector", tuple(items), text[0] + text[-1])
    items = split_top(text, ",;")
    if len(items) > 1:
        return Shape("list", tuple(items))
    terms = split_top(text, ":", keep=True)
    if len(terms) > 1 and all(terms) and "\\" not in text[: text.index(":")][-1:]:
        return Shape("ratio", tuple(terms))
    if re.search(r"\\pm(?![a-z])", text) and "=" not in text:
        both = [_PLUS.sub(plus, _MINUS.sub(minus, text)) for plus, minus in ("+-", "-+")]
        return Shape("list", tuple(one.strip().removeprefix("+").strip() for one in both))
    return Shape("scalar", (text,))


def compare(answer: Shape, gold: Shape, equal: Equal, size: Size, depth: int = 0) -> bool | None:  # noqa: PLR0911
    """Whether two shapes mean the same; None where both are scalars, which is for the caller to judge."""
    if answer.kind == gold.kind == "scalar":
        return None
    if max(len(answer.items), len(gold.items)) > _MAX_ITEMS or depth > _MAX_DEPTH:
        return False

    def same(one: str, other: str) -> bool:
        verdict = compare(shape(one, size), shape(other, size), equal, size, depth + 1)
        return equal(one, other) if verdict is None else verdict

    kinds = (answer.kind, gold.kind)
    if "ratio" in kinds:
        return _same_ratio(answer, gold, equal)
    if "region" in kinds or kinds == ("interval", "interval"):
        left, right = _as_region(answer), _as_region(gold)
        return left is not None and right is not None and _same_region(left, right, equal)
    if kinds == ("matrix", "matrix"):
        return list(map(len, answer.items)) == list(map(len, gold.items)) and all(
            same(a, g)
            for mine, theirs in zip(answer.items, gold.items, strict=True)
            for a, g in zip(mine, theirs, strict=True)
        )
    if "matrix" in kinds or "scalar" in kinds or len(answer.items) != len(gold.items):
        return False
    if kinds in _ORDERED or set(kinds) <= {"list", "set"}:
        return _same_items(answer, gold, same)
    return False


def _same_items(answer: Shape, gold: Shape, same: Equal) -> bool:
    """Lists, sets and tuples, with or without names: by name where both have them, by place, or in any order.

    "x = 1, y = 2" names two quantities, which a set cannot hold; "x = 1 or x = 2" is one quantity's values, no tuple.
    """
    mine, theirs = [[sides(item) for item in found.items] for found in (answer, gold)]
    named = _several_names(mine), _several_names(theirs)
    if all(side.names for side in (*mine, *theirs)) and len({side.names for side in theirs}) == len(theirs):
        pairs = [(a, g) for g in theirs for a in mine if set(a.names) & set(g.names)]
        return len(pairs) == len(theirs) and all(same(a.values[-1], g.values[-1]) for a, g in pairs)
    if "set" in (answer.kind, gold.kind) and any(named):
        return False
    ordered = any(named) or "tuple" in (answer.kind, gold.kind) or gold.kind == "vector"
    if ordered and any(
        found[0].names and not several for found, several in zip((mine, theirs), named, strict=True)
    ):
        return False
    if not all(same_quantity(side.names, theirs[0].names) for side in mine) and not any(named):
        return False
    values = [[_value(item) for item in found.items] for found in (answer, gold)]
    if ordered:
        return all(same(a, g) for a, g in zip(*values, strict=True))
    return _matched(values[0], values[1], same)


def _several_names(items: list) -> bool:
    """Whether the items name different quantities: x and y, not x_1 and x_2."""
    bases = {side.names[0].split("_")[0] for side in items if side.names}
    return all(side.names for side in items) and len(bases) == len(items) > 1


def _value(item: str) -> str:
    found = sides(item)
    return found.values[-1] if found.names else item


def _matched(answer: list[str] | tuple, gold: list[str] | tuple, same: Equal) -> bool:
    """A one-to-one matching of equal items; equality is transitive, so that greedy search finds it."""
    free = list(answer)
    for wanted in gold:
        found = next((item for item in free if same(item, wanted)), None)
        if found is None:
            return False
        free.remove(found)
    return not free


def _same_ratio(answer: Shape, gold: Shape, equal: Equal) -> bool:
    """Terms in proportion; a ratio of two is also its quotient."""
    if answer.kind != gold.kind:
        ratio, other = (answer, gold) if answer.kind == "ratio" else (gold, answer)
        if other.kind != "scalar" or len(ratio.items) != 2:
            return False
        quotient = rf"\frac{{{ratio.items[0]}}}{{{ratio.items[1]}}}"
        return equal(quotient, other.items[0]) if ratio is answer else equal(other.items[0], quotient)
    if len(answer.items) != len(gold.items):
        return False
    first_a, first_g = answer.items[0], gold.items[0]
    return all(
        (equal(a, g) and equal(first_a, first_g))
        or equal(rf"\frac{{{a}}}{{{first_a}}}", rf"\frac{{{g}}}{{{first_g}}}")
        for a, g in zip(answer.items[1:], gold.items[1:], strict=True)
    )


def _region(text: str, size: Size) -> Shape | None:  # noqa: PLR0911
    """Intervals, unions, inequalities joined by or/and, the reals with or without points; None: something else."""
    if _REALS.fullmatch(text.replace("\\ ", " ")):
        return Shape("region", ((None, False, None, False),))
    pieces = re.split(r" ?\\cup(?![a-z]) ?", text)
    if len(pieces) > 1:
        found = [shape(piece, size) for piece in pieces if piece]
        if all(part.kind == "set" for part in found):
            return Shape("set", tuple(item for part in found for item in part.items))
        shapes = [_as_region(part) for part in found]
        if all(found is not None and len(found.items) for found in shapes):
            return Shape("region", tuple(piece for found in shapes for piece in found.items))
        return None
    minus = _WITHOUT.fullmatch(text)
    if minus and _REALS.fullmatch(minus.group(1).strip()):
        return _punctured(split_top(minus.group(2), ",;"), "", size)
    if text[:1] in "([" and text[-1:] in ")]" and "\\infty" in text and wraps(text):
        return _as_region(shape_of_interval(text))
    if _RELATION.search(text):
        builder = inside(text, r"\{", r"\}") or inside(text, "{", "}")
        if builder is not None:
            parts = re.split(r"\\mid|(?<!\\)\||:", builder, maxsplit=1)
            text = parts[1].strip() if len(parts) == 2 else text
        return _inequalities(text, size)
    return None


def shape_of_interval(text: str) -> Shape:
    """A text in brackets with two ends, as an interval whatever its brackets are."""
    items = split_top(text[1:-1], ",;")
    return (
        Shape("interval", tuple(items), text[0] + text[-1]) if len(items) == 2 else Shape("scalar", (text,))
    )


def _as_region(found: Shape) -> Shape | None:
    if found.kind == "region":
        return found
    if found.kind == "set":
        return Shape("region", tuple((item, True, item, True) for item in found.items))
    if found.kind not in ("interval", "tuple") or len(found.items) != 2:
        return None
    brackets = found.variable if found.kind == "interval" else "()"
    low, high = (None if _INFINITE.fullmatch(end.strip()) else end.strip() for end in found.items)
    return Shape("region", ((low, brackets[0] == "[", high, brackets[1] == "]"),))


def _inequalities(text: str, size: Size) -> Shape | None:
    union = re.split(r",? ?\\lor(?![a-z]) ?", text)
    joined = (
        union
        if len(union) > 1
        else [piece for part in split_top(text, ",;") for piece in re.split(r" ?\\land(?![a-z]) ?", part)]
    )
    simple = [_inequality(piece.strip(), size) for piece in joined]
    if any(found is None for found in simple) or len({found.variable for found in simple}) != 1:
        return None
    variable = simple[0].variable
    pieces = tuple(piece for found in simple for piece in found.items)
    if len(simple) == 1 or len(union) > 1:
        return Shape("region", pieces, variable)
    both = simple[0].items
    for found in simple[1:]:
        both = _intersection(both, found.items, size)
        if both is None:
            return None
    apart = "\\land" not in text and not both
    return Shape("region", pieces if apart else both, variable)


def _intersection(one: tuple, other: tuple, size: Size) -> tuple | None:
    """Pieces that lie in both; None where the order of two ends is not known."""
    pieces = []
    for low_a, low_closed_a, high_a, high_closed_a in one:
        for low_b, low_closed_b, high_b, high_closed_b in other:
            low = _further((low_a, low_closed_a), (low_b, low_closed_b), size, 1)
            high = _further((high_a, high_closed_a), (high_b, high_closed_b), size, -1)
            if low is None or high is None:
                return None
            ends = (None if end[0] is None else size(end[0]) for end in (low, high))
            ends = [
                infinite if end[0] is None else value
                for infinite, end, value in zip((-INFINITY, INFINITY), (low, high), ends, strict=True)
            ]
            known = None not in ends
            if not known or ends[0] < ends[1] or (ends[0] == ends[1] and low[1] and high[1]):
                pieces.append((*low, *high))
    return tuple(pieces)


def _further(one: tuple, other: tuple, size: Size, sign: int) -> tuple | None:
    """The narrower of two ends; sign 1 for low ends, -1 for high ones."""
    if one[0] is None or other[0] is None:
        return other if one[0] is None else one
    values = size(one[0]), size(other[0])
    if None in values:
        return None
    if values[0] == values[1]:
        return one if not one[1] else other
    return one if (values[0] - values[1]) * sign > 0 else other


def _inequality(text: str, size: Size) -> Shape | None:  # noqa: PLR0911 - one return per form
    """One inequality in one variable: "x > 2", "1 \\le x < 3", "x \\ne 2", or the point "x = 2"."""
    point = [side.strip() for side in text.split("=")]
    if len(point) == 2 and not _RELATION.search(text) and re.fullmatch(_VARIABLE, point[0]):
        return Shape("region", ((point[1], True, point[1], True),), point[0])
    signs = _RELATION.findall(text)
    terms = [term.strip() for term in _RELATION.split(text)]
    if not all(terms) or len(terms) not in (2, 3) or ("\\ne" in signs and len(terms) == 3):
        return None
    names = [bool(re.fullmatch(_VARIABLE, term)) for term in terms]
    if len(terms) == 3:
        down = all(sign in (">", "\\ge") for sign in signs)
        if not names[1] or not (down or all(sign in ("<", "\\le") for sign in signs)):
            return None
        if down:
            terms, signs = terms[::-1], signs[::-1]
        return _one_piece(
            terms[0], signs[0] in ("\\le", "\\ge"), terms[2], signs[1] in ("\\le", "\\ge"), terms[1]
        )
    if names[0] == names[1]:
        return None
    variable, bound = (terms[0], terms[1]) if names[0] else (terms[1], terms[0])
    if signs[0] == "\\ne":
        return _punctured([bound], variable, size)
    below = (signs[0] in ("<", "\\le")) == names[0]
    closed = signs[0] in ("\\le", "\\ge")
    return (
        _one_piece(None, False, bound, closed, variable)
        if below
        else _one_piece(bound, closed, None, False, variable)
    )


def _one_piece(
    low: str | None, low_closed: bool, high: str | None, high_closed: bool, variable: str
) -> Shape:
    low = None if low is None or _INFINITE.fullmatch(low) else low
    high = None if high is None or _INFINITE.fullmatch(high) else high
    return Shape(
        "region", ((low, low_closed and low is not None, high, high_closed and high is not None),), variable
    )


def _punctured(points: list[str], variable: str, size: Size) -> Shape | None:
    """The real line without some points."""
    sized = [(size(point), point) for point in points]
    if len(points) > 1 and any(value is None for value, _ in sized):
        return None
    ends = [None, *(point for _, point in sorted(sized, key=lambda pair: pair[0] or 0.0)), None]
    return Shape(
        "region",
        tuple((low, False, high, False) for low, high in pairwise(ends)),
        variable,
    )


def _same_region(answer: Shape, gold: Shape, equal: Equal) -> bool:
    if answer.variable and gold.variable and answer.variable != gold.variable:
        return False

    def same_piece(mine: tuple, theirs: tuple) -> bool:
        closed = [(p[1] and p[0] is not None, p[3] and p[2] is not None) for p in (mine, theirs)]
        return closed[0] == closed[1] and all(
            (a is None) == (g is None) and (a is None or a == g or equal(a, g))
            for a, g in ((mine[0], theirs[0]), (mine[2], theirs[2]))
        )

    return len(answer.items) == len(gold.items) and _matched(answer.items, gold.items, same_piece)


def _rows(body: str) -> list[str]:
    return [row for row in (line.strip() for line in body.split("\\\\")) if row and row != "\\hline"]
