"""The messages that docs/troubleshooting.md explains are those of the code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
HEADINGS = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
FOLDERS = (
    "dataset",
    "reward",
    "trains",
    "utils",
    "3rdparty/areal_launcher/launcher",
    "3rdparty/llavaonevision1_5",
)
GAP = "\0"  # stands for what an f-string fills in


def literals(source):
    """Every string of a module but docstrings; what is filled in is a gap."""
    tree = ast.parse(source)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


@pytest.fixture(scope="module")
def messages():
    files = [
        path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "build" not in path.parts
    ]
    return {text for path in files for text in literals(path.read_text())}


def is_said(heading, messages):
    parts = [part.strip() for part in heading.split("...") if len(part.strip()) > 1]
    pattern = re.compile(".*".join(re.escape(part) for part in parts), re.DOTALL)
    return any(pattern.search(text) for text in messages)


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_heading_is_a_message_of_the_code(heading, messages):
    assert is_said(heading, messages)


def test_a_message_that_nobody_says_is_noticed(messages):
    assert not is_said("... groups in a row had unequal rewards: ...", messages)


def test_every_heading_has_its_remedy():
    for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        assert len(re.split(r"^## ", part, flags=re.MULTILINE)[0].split("\n", 1)[1].strip()) > 40, part
