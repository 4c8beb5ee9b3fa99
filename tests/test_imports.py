"""The architecture in one sentence, checked.

Library modules import downward only (trains > dataset > reward > utils) and in no circle; a folder below one of these
with a `__main__` is a command-line tool and may import anything; AReaL is trains' alone; reward reaches neither torch
nor AReaL, not even through what it imports.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("trains", "dataset", "reward", "utils")


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))}
LIBRARY = [
    module
    for module, path in FILES.items()
    if path.parent.parent == ROOT or not (path.parent / "__main__.py").exists()
]


@cache
def imports_of(module):
    """Names of the modules that one imports, wherever in the file, those for types included."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(inner & FILES.keys() or {node.module})
    return found


def reached_from(module):
    """Everything that is imported once `module` is."""
    found, waiting = set(), [module]
    while waiting:
        new = imports_of(waiting.pop()) - found
        found |= new
        waiting += new & FILES.keys()
    return found


def folders(modules):
    return {name.split(".")[0] for name in modules}


@pytest.mark.parametrize("module", LIBRARY)
def test_library_modules_import_downward_only(module):
    layer = module.split(".")[0]
    above = {*LAYERS[: LAYERS.index(layer)], *(() if layer == "trains" else ("areal",))}
    assert not above & folders(imports_of(module))


@pytest.mark.parametrize("module", FILES)
def test_no_circles(module):
    """Imports for types alone and imports inside of functions count too."""
    assert module not in reached_from(module)


# Public by their names, but no part of what AReaL promises.
INSIDES = ("workflow_executor", "staleness_manager", "rollout_stat", "rollout_engine")


def names_of_areal(tree):
    """Local names that stand for something of AReaL's or for a class derived from it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("areal"):
            found.update(alias.asname or alias.name for alias in node.names)
    return found


@pytest.mark.parametrize("module", [m for m in FILES if not m.startswith("trains.host")])
def test_only_the_host_room_knows_areal_from_the_inside(module):
    """Elsewhere no private module or name of AReaL is imported, none of its names is patched, and no private attribute
    of another object, or of a base class, is read or written."""
    tree = ast.parse(FILES[module].read_text())
    areal = names_of_areal(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("areal"):
            private = [part for part in node.module.split(".") if part.startswith("_")]
            private += [alias.name for alias in node.names if alias.name.startswith("_")]
            assert not private, f"line {node.lineno}: {private}"
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            patched = isinstance(node.value, ast.Name) and node.value.id in areal
            assert not patched, f"line {node.lineno}: {ast.unparse(node)} is AReaL's"
        if layer_of(module) == "trains" and isinstance(node, ast.Attribute) and is_private(node.attr):
            on_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            own = on_self and node.attr in defined_in(tree)
            assert own, f"line {node.lineno}: {ast.unparse(node)}"
        inner = isinstance(node, ast.Attribute) and node.attr in INSIDES
        assert not inner, f"line {node.lineno}: {ast.unparse(node)}"


def defined_in(tree):
    """Names of functions, and of attributes that are written."""
    functions = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    stored = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    return functions | stored


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def layer_of(module):
    return module.split(".")[0]


@pytest.mark.parametrize("module", [module for module in LIBRARY if module.startswith("reward")])
def test_reward_reaches_neither_torch_nor_areal(module):
    assert not {"torch", "areal"} & folders(reached_from(module))


def test_the_tools_are_these():
    """A new `__main__` opens a folder to imports of any kind: that is decided here."""
    tools = {str(path.parent.relative_to(ROOT)) for path in FILES.values() if path.name == "__main__.py"}
    assert tools - {"reward"} == {
        "utils/checkpoint", "utils/completion", "utils/doctor", "utils/evaluate", "utils/viewer",
    }  # fmt: skip
