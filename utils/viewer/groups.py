"""A step's rollouts as the pages show them: groups, and in each rollout its parts, thinking, boxes, drawings."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reward.extract import answer_region, extract
from utils.rollout_files import FOLDER
from utils.viewer.boxes import boxes_of
from utils.viewer.rendering import html_source, svg_source

SVG, HTML = "svg-code", "html-code"
UNLIMITED = 10**9
LIMITS = (UNLIMITED, 20_000, 6_000, 2_000, 600)  # characters of a text, where a page would grow too large


def groups_of(
    rows: Sequence[dict[str, Any]], folder: Path, link: Callable[[Path], str]
) -> list[dict[str, Any]]:
    """Groups in the order of the rows. `link` gives a page's address of a file."""
    by_group = itertools.groupby(rows, key=lambda row: (row["rank"], row["group"]))
    return [_group(list(members), folder, link) for _, members in by_group]


def _group(rows: list[dict[str, Any]], folder: Path, link: Callable[[Path], str]) -> dict[str, Any]:
    first = rows[0]
    rewards = [row["reward"] for row in rows]
    mean = sum(rewards) / len(rewards)
    lengths = [row["num_tokens"] for row in rows]
    statuses = Counter(row["status"] for row in rows)
    references, _ = boxes_of(first)

    def addresses(names: Sequence[str]) -> list[str]:
        return [link(folder / FOLDER / name) for name in names]

    return {
        "id": f"g{first['rank']}-{first['group']}",
        "rank": first["rank"],
        "number": first["group"],
        "step": first["step"],
        "sample_id": first["sample_id"],
        "source": first["source"],
        "answer_type": first["answer_type"],
        "prompt_type": first["prompt_type"],
        "answer": first["answer"],
        "prompt": first["prompt"],
        "images": addresses(first["images"]),
        "references": references,
        "reward": mean,
        "variance": sum((reward - mean) ** 2 for reward in rewards) / len(rewards),
        "length": sum(lengths) / len(lengths),
        "length_max": max(lengths),
        "truncated": sum(row["truncated"] for row in rows),
        "statuses": dict(statuses.most_common()),
        "num_not_ok": len(rows) - statuses["ok"],
        "versions_behind": max(
            (
                row["version"] - run["version"]
                for row in rows
                for run in row["versions"]
                if run["version"] >= 0
            ),
            default=0,
        ),
        "rewards": rewards,
        "reference_drawing": _drawing(first["answer_type"], first["answer"][0] if first["answer"] else ""),
        "rollouts": [_rollout(row, addresses(row.get("reply_images") or ())) for row in rows],
    }


def _rollout(row: dict[str, Any], reply_images: list[str]) -> dict[str, Any]:
    completion = row["completion"]
    split, _ = answer_region(completion)
    _, predicted = boxes_of(row)
    is_drawing = row["answer_type"] in (SVG, HTML)
    extraction = extract(completion, True, True) if is_drawing else None
    return {
        "number": row["rollout"],
        "is_reference": row["is_reference"],
        "reward": row["reward"],
        "parts": {part["name"]: part["value"] for part in row["parts"]},
        "status": row["status"],
        "extracted": row["extracted"],
        "trace": row["trace"],
        "truncated": row["truncated"],
        "num_tokens": row["num_tokens"],
        "num_prompt_tokens": row["num_prompt_tokens"],
        "advantage": row["advantage"],
        "version": row["version"],
        "versions": list(dict.fromkeys(run["version"] for run in row["versions"] if run["version"] >= 0)),
        "earlier": earlier_turns(row),
        "reply_images": reply_images,
        "thinking": completion[:split],
        "after": completion[split:],
        "boxes": predicted,
        "drawing": _drawing(row["answer_type"], extraction.text if extraction else row["extracted"] or ""),
        "tokens": tokens_json(row),
    }


def earlier_turns(row: dict[str, Any]) -> str:
    """What stands between the prompt and the last turn, replies of tools among it; empty without tokens."""
    text, completion = "".join(row.get("tokens") or ()), row["completion"]
    return text[: max(text.rfind(completion), 0)] if completion else ""


def _drawing(answer_type: str, text: str) -> dict[str, Any] | None:
    """{"svg": address} or {"html": document} or {"why": reason}; None for other kinds of answers."""
    for kind, key, source_of in ((SVG, "svg", svg_source), (HTML, "html", html_source)):
        if answer_type == kind:
            source, why = source_of(text)
            return {key: source} if source else {"why": why}
    return None


def tokens_json(row: dict[str, Any], limit: int = UNLIMITED) -> str | None:
    """The sampled numbers of each token as JSON for the page, rounded to 4 places; None where none were kept."""
    if row.get("tokens") is None:
        return None
    versions = [run["version"] for run in row["versions"] for _ in range(run["num_tokens"])]
    return json.dumps(
        {
            "text": row["tokens"][:limit],
            "id": row["token_ids"][:limit],
            "version": versions[:limit],
            "behind": row["version"],
            "behavior": _rounded(row["behavior_logprobs"], limit),
            "proximal": _rounded(row["proximal_logprobs"], limit),
            "entropy": _rounded(row["entropy"], limit),
            "left_out": max(0, len(row["tokens"]) - limit),
        },
        separators=(",", ":"),
    )


def _rounded(values: np.ndarray | None, limit: int) -> list[float | None] | None:
    if values is None:
        return None
    numbers = np.round(values[:limit].astype(np.float64), 4).tolist()
    return [number if math.isfinite(number) else None for number in numbers]


def shortened(text: str | None, limit: int) -> str:
    """A text of at most about `limit` characters: its beginning and its end, and how much is left out between."""
    if text is None or len(text) <= limit:
        return text or ""
    head, tail = limit * 2 // 3, limit // 3
    left_out = f"[... {len(text) - head - tail:,} characters left out here; they are in rollouts/ ...]"
    return f"{text[:head]}\n{left_out}\n{text[-tail:]}"


def by_sample(groups: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Groups of each sample, in order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        found.setdefault(group["sample_id"], []).append(group)
    return found
