"""What this project takes for granted of the insides of AReaL, SGLang and transformers, checked without importing them.

An import that fails speaks for itself; a method that is overridden and no longer called does not. After a change of
versions the first test names each thing that is gone or different; read its new source, then take over into
contract.yaml the lines that `python tests/trains/test_contract.py` prints.
"""

import ast
import hashlib
import importlib.util
import sys
import textwrap
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

CONTRACT = yaml.safe_load(Path(__file__).with_name("contract.yaml").read_text())


@cache
def tree_of(file):
    """The installed source and its syntax tree; None without the file."""
    package, _, inner = file.partition("/")
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0]) / inner
    if not path.exists():
        return None
    source = path.read_text()
    return source, ast.parse(source)


def find(file, name):
    """The node that defines `Class.method`, `Class.attribute`, or a function or name of the module; or None."""
    parsed = tree_of(file)
    if parsed is None:
        return None
    scope, (*outer, last) = parsed[1], name.split(".")
    for part in outer:
        scope = next((n for n in scope.body if isinstance(n, ast.ClassDef) and n.name == part), None)
        if scope is None:
            return None
    functions = [n for n in scope.body if isinstance(n, FUNCTIONS) and n.name == last]
    if functions:
        return functions[0]
    for node in ast.walk(scope):
        on_self = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self" and node.attr == last
        by_name = isinstance(node, ast.Name) and node.id == last
        if ((outer and on_self) or by_name) and isinstance(node.ctx, ast.Store):
            return node
    return None


FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def described(file, name, with_source):
    """Parameters and, `with_source`, a hash; "" for an attribute; None for what is not there."""
    node = find(file, name)
    if node is None:
        return None
    if not isinstance(node, FUNCTIONS):
        return ""
    arguments = node.args
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    text = f"({ast.unparse(arguments)})"
    if with_source:
        source = textwrap.dedent(ast.get_source_segment(tree_of(file)[0], node, padded=True))
        text += f" #{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    return text


def changes():
    found = []
    for file, names in CONTRACT.items():
        for name, wanted in names.items():
            now = described(file, name, "#" in wanted)
            if now != wanted:
                found.append(f"{file}: {name}: {wanted!r} is now {now!r}")
    return found


def test_what_is_relied_on_is_as_it_was():
    found = changes()
    assert not found, "\n".join(found)


GLUE = sorted(
    [*(ROOT / "trains/host").glob("*.py"), *(ROOT / "3rdparty/areal_launcher/launcher").glob("*.py")]
)
LISTED = {part for names in CONTRACT.values() for name in names for part in name.split(".")}


def overridden(tree):
    """Methods of classes with a base from outside; those of Python's own protocols aside."""
    own = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in tree.body:
        bases = {ast.unparse(base).split(".")[-1] for base in getattr(node, "bases", [])} - own
        for method in getattr(node, "body", []):
            for base in bases if isinstance(method, FUNCTIONS) else ():
                yield base, method.name


def private(tree):
    """Private names that are read and that the file does not define itself."""
    defined = {node.name for node in ast.walk(tree) if isinstance(node, FUNCTIONS)}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    defined |= {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}
    names = {node.attr for node in attributes} | {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("areal")
        for alias in node.names
    }
    return {name for name in names if name.startswith("_") and not name.startswith("__")} - defined


@pytest.mark.parametrize("path", GLUE, ids=lambda path: path.stem)
def test_the_list_is_complete(path):
    """Each private name of another's that the glue reads is listed, and each method that it overrides."""
    tree = ast.parse(path.read_text())
    # of named tuples, of `os`, and a package whose modules are listed by their paths
    missing = private(tree) - LISTED - {"_replace", "_exit", "_private"}
    for base, method in overridden(tree):
        for file in CONTRACT:
            name = f"{base}.{method}"
            if find(file, name) is not None and name not in CONTRACT[file]:
                missing.add(name)
    assert not missing


if __name__ == "__main__":
    for file, names in CONTRACT.items():
        for name, wanted in names.items():
            now = described(file, name, "#" in wanted)
            if now != wanted:
                sys.stdout.write(f'{file}\n  {name}: "{now}"\n')
