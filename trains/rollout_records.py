"""Every rollout of a step on disk: `rollouts/step-000012-rank0.parquet`, for people, pandas, `datasets` and the viewer.

One row per rollout, written by the rank that trained on it, whole or not at all. What belongs to a prompt is repeated
in the rows of its group, which parquet stores once. Images lie beside the shards, named by their content, and rows
name them. Per-token numbers are kept for a share of each group. `COLUMNS` in utils/rollout_files.py
explains every column.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trains.types import Group, GroupInfo
from utils.files import replacing
from utils.rollout_files import IMAGES, SCHEMA, shards

STEPS_BETWEEN_LOOKS = 8  # at the size of the folder
GIGABYTE = 1e9


class ImageStore:
    """Images of prompts and of tools' replies as PNG files named by their content, each written once."""

    def __init__(self, folder: Path):
        self.folder = folder / IMAGES

    def put(self, images: list[str]) -> list[str]:
        """Names, relative to the folder of the shards, of images given as base64. A full disk leaves the rest out."""
        names = []
        for image in images:
            content = base64.b64decode(image)
            name = f"{hashlib.sha256(content).hexdigest()[:24]}.png"
            path = self.folder / name
            try:
                if path.exists():
                    path.touch()
                else:
                    with replacing(path) as file:
                        file.write(content)
            except OSError:
                break  # the step's own record says that the disk is full
            names.append(f"{IMAGES}/{name}")
        return names


class RolloutRecords:
    """Writes a shard per step and rank, and forgets the oldest files where the folder grows beyond its limit.

    Args:
        folder: of the shards.
        rank: this trainer rank; rank 0 holds the folder to its limit.
        tokenizer: turns token ids into text.
        max_gigabytes: of shards and images together, over all ranks.
        token_share: share of each group's rollouts that keep per-token numbers; more than 0 keeps at least one.
    """

    def __init__(self, folder: Path, rank: int, tokenizer: Any, *, max_gigabytes: float, token_share: float):
        self.folder, self.rank, self.tokenizer = folder, rank, tokenizer
        self.max_bytes = max_gigabytes * GIGABYTE
        self.token_share = token_share
        self._texts: dict[int, str] = {}  # of token ids
        self._num_written = 0

    def forget_steps_after(self, step: int) -> None:
        """Remove the shards of steps that are done again after a recovery, or all of an earlier run (0)."""
        for path, number in shards(self.folder):
            if number > step:
                path.unlink(missing_ok=True)

    def write(self, step: int, version: int, batch: list[Group]) -> Path:
        """The shard of a step (counting from 1) from this rank's groups. Raises OSError, for example on a full disk."""
        rows = [row for place, group in enumerate(batch) for row in self._rows(group, place)]
        table = pa.Table.from_pylist(
            [{**row, "step": step, "version": version} for row in rows], schema=SCHEMA
        )
        path = self.folder / f"step-{step:06d}-rank{self.rank}.parquet"
        with replacing(path) as file:
            pq.write_table(table, file, compression="zstd")
        for name in {name for row in rows for name in (*row["images"], *row["reply_images"])}:
            image = self.folder / name
            if image.exists():
                image.touch()  # as young as its last shard: `_forget_oldest` takes it later
        if self.rank == 0 and self._num_written % STEPS_BETWEEN_LOOKS == 0:
            self._forget_oldest()
        self._num_written += 1
        return path

    def _rows(self, group: Group, place: int) -> Iterator[dict[str, Any]]:
        info: GroupInfo = group["info"][0]
        num_sampled = math.ceil(self.token_share * len(info.scores))
        per_token = {
            name: group[name][:num_sampled].float().cpu()
            for name in ("behavior_logprobs", "proximal_logprobs", "entropy")
            if name in group
        }
        ids, versions = group["input_ids"].cpu(), group["versions"].cpu()
        num_prompt = int(group["loss_mask"][0].argmax())
        shared = {
            "rank": self.rank,
            "group": place,
            "sample_id": info.sample_id,
            "source": info.source,
            "answer_type": info.answer_type,
            "prompt_type": info.prompt_type,
            "answer": info.answer,
            "prompt": readable_prompt(self.tokenizer.decode(ids[0, :num_prompt].tolist())),
            "spec": None if info.spec is None else json.dumps(info.spec, sort_keys=True),
            "images": info.image_files,
            "image_sizes": [list(size) for size in info.image_sizes],
            "num_prompt_tokens": num_prompt,
        }
        advantages = (
            group["advantages"][:, num_prompt - 1].float().tolist()
        )  # at the place that predicts the first
        for i, score in enumerate(info.scores):
            end = int(
                group["attention_mask"][i].sum()
            )  # replies of tools, which nobody drew, stand in between
            answer = slice(num_prompt, end)
            row = {
                **shared,
                "rollout": i,
                "completion": info.completions[i],
                "reply_images": info.rollout_image_files[i] if info.rollout_image_files else [],
                "is_reference": i < info.num_references,
                "reward": score.total,
                "parts": [{"name": name, "value": float(value)} for name, value in score.parts.items()],
                "status": score.status,
                "extracted": score.extracted,
                "trace": list(score.trace),
                "truncated": info.truncated[i],
                "num_tokens": info.lengths[i],
                "advantage": advantages[i],
                "versions": runs(versions[i, answer].tolist()),
            }
            if i < num_sampled:
                row["token_ids"] = ids[i, answer].tolist()
                row["tokens"] = [self._text(token) for token in row["token_ids"]]
                predicting = slice(num_prompt - 1, end - 1)
                row |= {name: values[i, predicting].tolist() for name, values in per_token.items()}
            yield utf8(row)

    def _text(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = self.tokenizer.decode([token])
        return self._texts[token]

    def _forget_oldest(self) -> None:
        files = [(entry.stat(), entry) for entry in self._files()]
        total = sum(stat.st_size for stat, _ in files)
        for stat, entry in sorted(files, key=lambda file: file[0].st_mtime_ns):
            if total <= self.max_bytes:
                break
            entry.unlink(missing_ok=True)
            total -= stat.st_size

    def _files(self) -> Iterator[Path]:
        return itertools.chain(self.folder.glob("step-*.parquet"), (self.folder / IMAGES).glob("*.png"))


def runs(versions: list[int]) -> list[dict[str, int]]:
    """Equal neighbours together: [3, 3, 4] -> [{version 3, num_tokens 2}, {version 4, num_tokens 1}]."""
    return [
        {"version": version, "num_tokens": len(list(same))} for version, same in itertools.groupby(versions)
    ]


def readable_prompt(text: str) -> str:
    """Runs of the same media token counted: `<|image_pad|>` x 16 in place of sixteen of them."""
    return re.sub(
        r"(<\|(?:image|video)_pad\|>)\1+", lambda run: f"{run[1]} x {len(run[0]) // len(run[1])}", text
    )


def utf8(row: dict[str, Any]) -> dict[str, Any]:
    """Text that no file can hold (halves of a surrogate pair, which JSON and models can write) made so that one can."""
    kept = {}
    for name, value in row.items():
        if isinstance(value, str):
            kept[name] = value.encode("utf-8", "replace").decode()
        elif isinstance(value, list) and value and isinstance(value[0], str):
            kept[name] = [text.encode("utf-8", "replace").decode() for text in value]
        else:
            kept[name] = value
    return kept
