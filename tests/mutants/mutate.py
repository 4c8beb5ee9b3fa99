"""Mutants of a file: one small change each, of the kinds that a slip of the hand makes.

Comparisons and arithmetic change their operator, `and` and `or` change places, conditions are negated, numbers move by
one, True and False flip, calls and refusals are left out, keyword arguments are dropped. Texts, traces, logging and the
limits at the head of a file stay.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.And: ast.Or, ast.Or: ast.And, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


UNTESTED_KEYWORDS = ("strict", "trace", "device")  # they guard, explain or place what is the same


@dataclass(frozen=True)
class Mutant:
    """`name` is stable while the function's text is: FUNCTION: OLD -> NEW, and #n for the n-th time."""

    name: str
    source: str  # the whole file, changed


def mutants(text: str) -> Iterator[Mutant]:
    """Every mutant of a Python file, in the order of the text. Docstrings, annotations and messages stay."""
    tree = ast.parse(text)
    seen: Counter[str] = Counter()
    for path, function in _places(tree):
        for changed in _changes(_at(tree, path), is_test=path[-1][0] == "test"):
            copied = copy.deepcopy(tree)
            _put(copied, path, changed)
            name = f"{function}: {_change(_at(tree, path), changed)}"
            seen[name] += 1
            yield Mutant(name + (f" #{seen[name]}" if seen[name] > 1 else ""), ast.unparse(copied))


def _change(old: ast.AST, new: ast.AST) -> str:
    """What a reader is told of a mutant: on one line, without the bar that ends a cell of a table."""
    text = " ".join(ast.unparse(old).split())[:90]
    if isinstance(old, ast.Call) and isinstance(new, ast.Call):
        kept = {keyword.arg for keyword in new.keywords}
        dropped = next(keyword.arg for keyword in old.keywords if keyword.arg not in kept)
        text = f"{ast.unparse(old.func)}(...) without {dropped}"
    elif isinstance(new, ast.Pass):
        text = f"{text} left out"
    else:
        text = f"{text} -> {' '.join(ast.unparse(new).split())[:90]}"
    return text.replace("|", "/")


def _places(node: ast.AST, path: tuple = (), function: str = "module") -> Iterator[tuple[tuple, str]]:
    """(path, enclosing function) of every node that may change; a path is a chain of (field, index or None)."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        function = node.name if function == "module" else f"{function}.{node.name}"
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases"):
            continue
        if isinstance(node, ast.Raise | ast.JoinedStr) or _is_call_of(node, "isinstance"):
            continue
        if function == "module" and isinstance(node, ast.Assign):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.keyword) and child.arg in UNTESTED_KEYWORDS:
                continue
            if isinstance(child, ast.AST):
                here = (*path, (field, index))
                yield here, function
                yield from _places(child, here, function)


def _is_call_of(node: ast.AST, name: str) -> bool:
    """Whether a node is a call of `name(...)` or `name.something(...)`."""
    return isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[0] == name


def _at(tree: ast.AST, path: tuple) -> ast.AST:
    for field, index in path:
        tree = getattr(tree, field) if index is None else getattr(tree, field)[index]
    return tree


def _put(tree: ast.AST, path: tuple, new: ast.AST) -> None:
    field, index = path[-1]
    parent = _at(tree, path[:-1])
    if index is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[index] = new


def _changes(node: ast.AST, is_test: bool) -> Iterator[ast.AST]:
    """The node, changed in one way after the other; its children are places of their own."""
    if is_test and not isinstance(node, ast.Compare | ast.UnaryOp):  # those are negated below
        yield ast.UnaryOp(ast.Not(), node)
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            changed = copy.deepcopy(node)
            changed.ops[index] = SWAPS[type(operator)]()
            yield changed
    elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPS:
        changed = copy.deepcopy(node)
        changed.op = SWAPS[type(node.op)]()
        yield changed
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.AugAssign | ast.Raise) or (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and not _is_call_of(node.value, "logger")
    ):
        yield ast.Pass()
    elif isinstance(node, ast.Call):
        for index, keyword in enumerate(node.keywords):
            if keyword.arg not in (None, *UNTESTED_KEYWORDS):
                changed = copy.deepcopy(node)
                del changed.keywords[index]
                yield changed
