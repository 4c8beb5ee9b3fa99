"""Make the corpus that the tool `search` looks into.

    python -m dataset.corpus DOCUMENTS.jsonl corpus.sqlite

DOCUMENTS.jsonl has a document a line, {"title": ..., "text": ...}; the title may be missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataset.agent.tools.search import build
from utils.command_line import Parser


def documents(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a JSONL file. Raises ValueError naming the line that is no JSON object."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                document = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: not JSON: {error}") from error
            if not isinstance(document, dict):
                raise ValueError(f"{path}:{number}: wanted a JSON object")
            yield document


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = Parser(prog="python -m dataset.corpus", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("documents", type=Path, help="JSONL file, a document a line")
    parser.add_argument("corpus", type=Path, help="SQLite file to write")
    options = parser.parse_args(arguments)
    try:
        count = build(documents(options.documents), options.corpus)
    except (OSError, ValueError) as error:
        print(f"python -m dataset.corpus: {error}", file=sys.stderr)
        return 2
    print(f"{options.corpus}: {count} documents")
    return 0


if __name__ == "__main__":
    sys.exit(main())
