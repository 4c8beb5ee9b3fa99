"""A reward of one's own: a function in a file, named `my_rewards.py:score` by a sample's spec or by `reward.verifiers`.

    def score(answer, reference, params):
        return float(answer.strip() == reference.strip())

It may take any of the parameters `answer` (the extracted answer), `completion` (all that the model wrote), `reference`
and `params` (those of the sample's spec), by these names. Without `answer` it is asked about completions without one
too. It returns the accuracy in [0, 1], or a dict with `accuracy` and further parts, or a `Verdict`.

It runs in a killable worker. The file is read here only to check it; nothing of it runs in the trainer's process.
"""

import ast
import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from reward.types import Verdict, Verifier

PARAMETERS = ("answer", "completion", "reference", "params")
DEFAULTS = {"deadline_seconds": 10.0}


class Function(NamedTuple):
    """Where a verifier stands, and which of PARAMETERS it takes."""

    path: Path
    name: str
    line: int
    parameters: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name}"


def is_custom(name: str) -> bool:
    """Whether a verifier's name is that of a function in a file."""
    return ".py:" in name


@lru_cache(maxsize=64)
def find(name: str) -> Function:
    """The function that `FILE.py:FUNCTION` names, without running the file. ValueError naming file and line."""
    file, _, wanted = name.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"verifier {name!r}: there is no file {path.absolute()}")
    try:
        tree = ast.parse(path.read_text(), str(path))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}:{getattr(error, 'lineno', 1)}: {error}") from error
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if wanted not in functions:
        raise ValueError(f"{path}:1: has no function {wanted!r}; it has {sorted(functions) or 'none'}")
    node = functions[wanted]
    named = [argument.arg for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
    if node.args.posonlyargs or not named or not set(named) <= set(PARAMETERS):
        raise ValueError(
            f"{path}:{node.lineno}: {wanted} takes {named}, wanted some of {PARAMETERS} by these names"
        )
    return Function(path, wanted, node.lineno, tuple(named))


def verifier(name: str) -> Verifier:
    """The verifier of a function in a file. ValueError naming file and line."""
    function = find(name)
    return Verifier(
        partial(prepare, function),
        partial(verify, function),
        DEFAULTS,
        isolated=True,
        open_params=True,
        needs_answer="answer" in function.parameters,
    )


def prepare(function: Function, reference: str, params: Mapping[str, Any]) -> str:
    """The reference as it is; the file is run. ValueError naming file and line: it cannot be."""
    load(function)
    return reference


def verify(function: Function, extracted: str, reference: str, params: Mapping[str, Any]) -> Verdict:
    """What the function says. Whatever it raises, or a result that is none, is its author's error (`crash`)."""
    given = {**params}
    values = {
        "answer": extracted,
        "completion": given.pop("completion", extracted),
        "reference": reference,
        "params": given,
    }
    result = load(function)(**{name: values[name] for name in function.parameters})
    return _verdict(function, result)


@lru_cache(maxsize=64)
def load(function: Function) -> Callable[..., Any]:
    """Run the file and return the function; its own folder is importable. ValueError naming file and line."""
    folder = str(function.path.absolute().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    module_name = f"reward_of_{function.path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, function.path.absolute())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look a module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        lines = [
            f.lineno
            for f in traceback.extract_tb(error.__traceback__)
            if f.filename.endswith(function.path.name)
        ]
        raise ValueError(
            f"{function.path}:{lines[-1] if lines else 1}: {type(error).__name__}: {error}"
        ) from error
    return getattr(module, function.name)


def _verdict(function: Function, result: Any) -> Verdict:
    if isinstance(result, Verdict):
        return result if result.trace else replace(result, trace=(f"{function} -> {result.accuracy:.4f}",))
    parts = dict(result) if isinstance(result, Mapping) else {"accuracy": result}
    note = parts.pop("trace", None)
    for part, value in parts.items():
        number = isinstance(value, int | float) and math.isfinite(value)
        if not number or (part == "accuracy" and not 0 <= value <= 1):
            raise TypeError(
                f"{function} returned {part}={value!r}, wanted a finite number, accuracy in [0, 1]"
            )
    if "accuracy" not in parts:
        raise TypeError(
            f"{function} returned {result!r}, wanted a number, a dict with 'accuracy', or a Verdict"
        )
    accuracy = float(parts.pop("accuracy"))
    trace = (f"{function} -> {accuracy:.4f}", *([str(note)] if note else []))
    return Verdict(accuracy, "ok", {part: float(value) for part, value in parts.items()}, trace)
