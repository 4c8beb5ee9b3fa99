"""Reference answers of general-code: reading tests, and judging what a solution gave back, outside the sandbox.

A reference is JSON (docs/rewards_code_sandbox.md):

    {"tests": [{"stdin": "2 3\\n", "stdout": "5\\n"},
               {"call": "add", "args": [2, 3], "expected": 5},
               "assert add(2, 3) == 5"],
     "time_limit_seconds": 4, "float_tolerance": 1e-9}

or a bare list of tests, or {"inputs": [...], "outputs": [...], "fn_name": "add"}, or plain lines of `assert`.
A test may also be a pair [given, wanted], a text a list of its lines, and a list of asserts stand for one.
"""

import ast
import builtins
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

TIME_LIMIT_SECONDS = 4.0
FLOAT_TOLERANCE = 1e-9

_SCALARS: dict[str, Callable[[Any], Any]] = {
    "NoneType": lambda content: None,
    "bool": bool,
    "str": str,
    "int": lambda content: int(content, 16),
    "float": float.fromhex,
    "complex": lambda content: complex(*map(float.fromhex, content)),
    "bytes": bytes.fromhex,
}
_CONTAINERS: dict[str, type] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_NAME_KEYS = ("call", "fn_name", "entry_point")


class CodeTest(NamedTuple):
    """One test. `request` goes into the sandbox; `expected` (text for stdin tests, else plain data) never does.

    truth: the result's truth value is compared. boxed: `expected` is a list of one item, and the item is right too:
    some collections put every function's result into a list.
    """

    request: dict[str, Any]
    expected: Any
    truth: bool = False
    boxed: bool = False


class Suite(NamedTuple):
    """All tests of a problem: `time_limit_seconds` per test; `float_tolerance` relative and absolute, for floats."""

    tests: tuple[CodeTest, ...]
    time_limit_seconds: float
    float_tolerance: float


def read_suite(reference: str) -> Suite:
    """Parse a reference answer. ValueError: not the format above, or without any test."""
    data = _load(reference)
    if isinstance(data, list):
        data = {"tests": data}
    if not isinstance(data, dict):
        raise ValueError(f"wanted a JSON object or list of tests, got {type(data).__name__}")
    name = next((data[key] for key in _NAME_KEYS if data.get(key)), None)
    raw = data.get("tests")
    if raw is None:
        inputs, outputs = data.get("inputs"), data.get("outputs")
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
            raise ValueError("wanted `tests`, or `inputs` and `outputs` of the same length")
        raw = [{"input": given, "output": wanted} for given, wanted in zip(inputs, outputs, strict=True)]
        if name is not None and all(isinstance(wanted, list) and len(wanted) == 1 for wanted in outputs):
            raw = [{**test, "boxed": True} for test in raw]
    if not isinstance(raw, list) or not raw:
        raise ValueError("there are no tests: every solution would pass")
    raw = [text for test in raw for text in (test if _is_asserts(test) else [test])]
    tests = tuple(found for index, test in enumerate(raw) for found in _read_test(test, name, index))
    return Suite(
        tests,
        _positive(data, "time_limit_seconds", TIME_LIMIT_SECONDS),
        _positive(data, "float_tolerance", FLOAT_TOLERANCE, zero=True),
    )


def passes(test: CodeTest, stdout: str, record: str, float_tolerance: float) -> bool:
    """Whether a finished test gave what was expected. `stdout` and `record` are untrusted; never raises for them."""
    if "stdin" in test.request:
        return normal_output(stdout) == normal_output(test.expected)
    try:
        value = decode(json.loads(record)["value"])
        value = bool(value) if test.truth else value
        if test.boxed and equal(value, test.expected[0], float_tolerance):
            return True
        return equal(value, test.expected, float_tolerance)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return False


def normal_output(text: str) -> list[str]:
    """Lines without trailing white space, without trailing blank lines."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def decode(encoded: Any) -> Any:
    """Plain data from the runner's [type, content]. ValueError for anything that is not plain data."""
    kind, content = encoded
    if kind in _SCALARS:
        return _SCALARS[kind](content)
    if kind == "dict":
        return {decode(key): decode(value) for key, value in content}
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](decode(item) for item in content)
    raise ValueError(f"a value of type {kind!r} is not plain data")


def equal(got: Any, expected: Any, tolerance: float) -> bool:  # noqa: PLR0911 one return per kind of value
    """Equality of plain data: floats within `tolerance`, 1 and 1.0 equal, True and 1 not.

    An expected list accepts a tuple (JSON has no tuples); an expected tuple accepts nothing else.
    """
    if isinstance(expected, bool) or isinstance(got, bool):
        return type(got) is type(expected) and got == expected
    if isinstance(expected, float) or isinstance(got, float):
        return _close(got, expected, tolerance)
    if isinstance(expected, list):
        return isinstance(got, list | tuple) and _all_equal(got, expected, tolerance)
    if isinstance(expected, tuple):
        return isinstance(got, tuple) and _all_equal(got, expected, tolerance)
    if isinstance(expected, dict):
        if not isinstance(got, dict) or got.keys() != expected.keys():
            return False
        return all(equal(got[key], value, tolerance) for key, value in expected.items())
    if isinstance(expected, set | frozenset):
        return isinstance(got, set | frozenset) and got == expected
    return type(got) is type(expected) and got == expected


def _close(got: Any, expected: Any, tolerance: float) -> bool:
    if not isinstance(got, int | float) or not isinstance(expected, int | float):
        return False
    if math.isnan(expected) or math.isnan(got):
        return math.isnan(expected) and math.isnan(got)
    return got == expected or math.isclose(got, expected, rel_tol=tolerance, abs_tol=tolerance)


def _all_equal(got: Any, expected: Any, tolerance: float) -> bool:
    return len(got) == len(expected) and all(
        equal(left, right, tolerance) for left, right in zip(got, expected, strict=True)
    )


def _load(reference: str) -> Any:
    lines = [line.strip() for line in reference.strip().splitlines() if line.strip()]
    if lines and all(line.startswith("assert ") for line in lines):
        return lines
    try:
        return json.loads(reference)
    except json.JSONDecodeError as error:
        try:
            return ast.literal_eval(reference.strip())  # the text of a Python list or dict
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ValueError(f"neither JSON nor lines of assert: {error}") from error


def _is_asserts(test: Any) -> bool:
    return isinstance(test, list) and bool(test) and all(_is_assert(item) for item in test)


def _is_assert(text: Any) -> bool:
    return isinstance(text, str) and text.lstrip().startswith("assert ")


def _read_test(test: Any, name: str | None, index: int) -> list[CodeTest]:
    if isinstance(test, str):
        return _read_assert(test, index)
    if isinstance(test, list | tuple) and len(test) == 2:
        test = {"input": test[0], "output": test[1]}
    if not isinstance(test, Mapping):
        raise ValueError(f"tests[{index}]: got {type(test).__name__}, wanted an object, a pair or an assert")
    name = next((test[key] for key in _NAME_KEYS if test.get(key)), name)
    given = "args" if "args" in test else "stdin" if "stdin" in test else "input"
    wanted = next((key for key in ("expected", "stdout", "output") if key in test), None)
    if wanted is None:
        raise ValueError(f"tests[{index}]: nothing is expected; wanted `stdout` or `expected`")
    if name is not None and given != "stdin":
        args, kwargs = test.get(given, []), test.get("kwargs", {})
        if not isinstance(name, str) or not isinstance(args, list) or not isinstance(kwargs, dict):
            raise ValueError(
                f"tests[{index}]: wanted a function name, a list of args and an object of kwargs"
            )
        request = {"call": name, "args": args, "kwargs": kwargs}
        return [CodeTest(request, test[wanted], boxed=bool(test.get("boxed")))]
    stdin, stdout = _text(test.get(given, "")), _text(test[wanted])
    if stdin is None or stdout is None:
        raise ValueError(f"tests[{index}]: stdin and stdout must be strings (a function test needs `call`)")
    return [CodeTest({"stdin": stdin}, stdout)]


def _text(value: Any) -> str | None:
    """A text, or the text of a list of lines; None for anything else."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(line.removesuffix("\n") for line in value)
    return value if isinstance(value, str) else None


def _read_assert(text: str, index: int) -> list[CodeTest]:
    """`assert <expression> == <literal>`: the expression goes into the sandbox, the literal stays outside.

    `assert f(...)` and `assert not f(...)` ask for the truth value of what f returns; `and` makes two tests. What else
    is true or false inside, where it is the solution's word alone, is refused: `all(...)`, `isclose(...)`, `<`, `in`.
    """
    try:
        (statement,) = ast.parse(text.strip()).body
    except (SyntaxError, ValueError) as error:
        raise _bad_assert(text, index) from error
    if not isinstance(statement, ast.Assert):
        raise _bad_assert(text, index)
    condition = statement.test
    parts = (
        condition.values
        if isinstance(condition, ast.BoolOp) and isinstance(condition.op, ast.And)
        else [condition]
    )
    return [_read_condition(part, text, index) for part in parts]


def _bad_assert(text: str, index: int) -> ValueError:
    return ValueError(
        f"tests[{index}]: wanted `assert <call> == <literal>`, or a call of the solution's function whose own result "
        f"is true or false, got {text[:80]!r}"
    )


def _read_condition(condition: ast.expr, text: str, index: int) -> CodeTest:
    expected, truth = True, True
    if isinstance(condition, ast.Compare):
        if len(condition.ops) != 1 or not isinstance(condition.ops[0], ast.Eq | ast.Is):
            raise _bad_assert(text, index)
        try:
            expected = ast.literal_eval(condition.comparators[0])
        except ValueError as error:
            raise _bad_assert(text, index) from error
        condition, truth = condition.left, False
    else:
        while isinstance(condition, ast.UnaryOp) and isinstance(condition.op, ast.Not):
            condition, expected = condition.operand, not expected
    if isinstance(expected, bool) and not _calls_solution(condition):
        raise _bad_assert(text, index)
    return CodeTest({"expression": ast.unparse(condition)}, expected, truth)


def _calls_solution(expression: ast.expr) -> bool:
    """Whether an expression is `f(...)` or `Solution().f(...)` with a name that Python does not have itself."""
    if not isinstance(expression, ast.Call):
        return False
    function = expression.func
    if isinstance(function, ast.Attribute):
        made = function.value.func if isinstance(function.value, ast.Call) else None
        return isinstance(made, ast.Name) and made.id == "Solution"
    return isinstance(function, ast.Name) and function.id not in {*dir(builtins), "isclose"}


def _positive(data: Mapping[str, Any], key: str, default: float, *, zero: bool = False) -> float:
    value = data.get(key, default)
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{key}: got {value!r}, wanted a {'non-negative' if zero else 'positive'} number")
    return float(value)
