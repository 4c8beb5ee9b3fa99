"""search: full text search in a local corpus by SQLite's FTS5, ranked by BM25 (Robertson and Zaragoza 2009).

    python -m dataset.corpus DOCUMENTS.jsonl corpus.sqlite      # lines {"title": ..., "text": ...}

The corpus is data, a file that `agent.corpus` names; nothing is fetched. What the model writes is never read as FTS5's
query language: its words are looked for, any of them, in any order.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dataset.agent.types import Tool, ToolError
from reward.types import Unavailable

NUM_RESULTS = 3
MAX_RESULTS = 10
MAX_WORDS = 32
PASSAGE_CHARS = 500
_WORD = re.compile(r"\w+")
_open: dict[str, sqlite3.Connection] = {}  # of this worker


def run(arguments: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """The best passages as text. `context` has `corpus`. Raises ``Unavailable`` where the run has none."""
    if context.get("corpus") is None:
        raise Unavailable(
            "there is nothing to search in: agent.corpus names no corpus (python -m dataset.corpus)"
        )
    query = arguments.get("query")
    if isinstance(query, list):
        query = " ".join(str(part) for part in query)
    if not isinstance(query, str) or not _WORD.search(query):
        raise ToolError("search: wanted {'query': TEXT}")
    count = arguments.get("num_results", NUM_RESULTS)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_RESULTS:
        raise ToolError(f"search: num_results must be 1 to {MAX_RESULTS}")
    words = dict.fromkeys(word.casefold() for word in _WORD.findall(query)[:MAX_WORDS])
    found = (
        connection(context["corpus"])
        .execute(
            "SELECT title, text FROM documents WHERE documents MATCH ? ORDER BY bm25(documents), rowid LIMIT ?",
            (" OR ".join(f'"{word}"' for word in words), count),
        )
        .fetchall()
    )
    if not found:
        return {"text": "Nothing was found.", "without_effect": True}
    passages = [
        f"[{number}] {title}\n{passage(text, words)}" for number, (title, text) in enumerate(found, start=1)
    ]
    return {"text": "\n".join(passages)}


def passage(text: str, words: Iterable[str]) -> str:
    """`PASSAGE_CHARS` characters of a document from shortly before the first of the words on."""
    folded = text.casefold()
    places = [place for word in words if (place := folded.find(word)) >= 0]
    start = max(min(places, default=0) - PASSAGE_CHARS // 4, 0)
    if start:
        start = text.find(" ", start) + 1
    return text[start : start + PASSAGE_CHARS].strip()


def connection(path: str) -> sqlite3.Connection:
    """A corpus opened for reading. Raises ValueError for a file that is none."""
    if path not in _open:
        opened = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)
        check(opened, path)
        _open[path] = opened
    return _open[path]


def check(opened: sqlite3.Connection, path: str) -> int:
    """The number of documents. Raises ValueError naming what is wrong."""
    try:
        return opened.execute("SELECT count(*) FROM documents").fetchone()[0]
    except sqlite3.Error as error:
        raise ValueError(f"{path}: not a corpus ({error}); make one by python -m dataset.corpus") from error


def build(documents: Iterable[Mapping[str, Any]], path: str | Path) -> int:
    """Write a corpus from {"title", "text"} records; returns their number. Raises ValueError for one without text."""
    from utils.files import replacing

    opened = sqlite3.connect(":memory:")
    opened.execute("CREATE VIRTUAL TABLE documents USING fts5(title, text, tokenize='unicode61')")
    count = 0
    for document in documents:
        text = document.get("text")
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"document {count + 1}: wanted a text, got {json.dumps(document, default=str)[:200]}"
            )
        opened.execute("INSERT INTO documents VALUES (?, ?)", (str(document.get("title") or ""), text))
        count += 1
    opened.commit()
    with replacing(path) as file:
        file.write(opened.serialize())
    return count


TOOL = Tool(
    description='search: {"query": TEXT} looks words up in a collection of texts.',
    run=run,
    other_names=("text_search",),
)
