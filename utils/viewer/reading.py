"""What a run left in its folder, read so that a run that is under way, or was cut off, can be shown."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from utils.rollout_files import FOLDER, shards
from utils.run_manifest import MANIFEST

PER_TOKEN = ("token_ids", "tokens", "behavior_logprobs", "proximal_logprobs", "entropy")


class RunFolder:
    """The records of one run. Raises ValueError where the folder holds none.

    Attributes:
        manifest: `run.json`, {} where there is none.
        steps: one record per step in order, of `metrics.jsonl`.
        evaluations: one record per evaluation in order.
        num_broken: lines that could not be read; the last one of a run that was cut off.
        shards: step -> its parquet files, one per trainer rank.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest = _json(folder / MANIFEST)
        self.steps, broken_steps = _records(folder / "metrics.jsonl")
        self.evaluations, broken_evaluations = _records(folder / "evaluations.jsonl")
        self.num_broken = broken_steps + broken_evaluations
        self.shards: dict[int, list[Path]] = {}
        for path, step in shards(folder / FOLDER):
            self.shards.setdefault(step, []).append(path)
        if not (self.manifest or self.steps or self.evaluations or self.shards):
            raise ValueError(
                f"{folder} holds no records of a run: no run.json, no metrics.jsonl, no rollouts/"
            )

    @property
    def name(self) -> str:
        """experiment/trial, or the folder where no manifest tells."""
        names = [str(self.manifest[key]) for key in ("experiment_name", "trial_name") if key in self.manifest]
        return "/".join(names) or self.folder.name

    @property
    def is_finished(self) -> bool:
        return bool(self.manifest.get("finished"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its configuration by dotted key, secrets masked, from the folder of its logs; {} where that is gone."""
        import yaml

        path = Path(str(self.manifest.get("logs", ""))) / "config.yaml"
        try:
            return flattened(yaml.safe_load(path.read_text()))
        except (OSError, yaml.YAMLError):
            return {}

    def rows(self, step: int, columns: list[str] | None = None) -> tuple[list[dict[str, Any]], list[str]]:
        """The rollouts of a step in the order rank, group, rollout; and what could not be read, a sentence each."""
        rows, faults = [], []
        for path in self.shards.get(step, ()):
            try:
                with pq.ParquetFile(path) as file:  # `read_table` would import pandas
                    rows += _rows(file.read(columns))
            except (OSError, pa.ArrowException) as error:
                faults.append(f"{path.name} cannot be read: {error}")
        return rows, faults


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as dicts; numbers of tokens stay float32 arrays."""
    import numpy as np

    names = [
        name for name in ("behavior_logprobs", "proximal_logprobs", "entropy") if name in table.column_names
    ]
    rows = table.drop_columns(names).to_pylist()
    for name in names:
        column = table[name].combine_chunks()
        values = column.values.to_numpy(zero_copy_only=False).astype(np.float32)
        offsets, present = column.offsets.to_numpy(), column.is_valid().to_pylist()
        for i, row in enumerate(rows):
            row[name] = values[offsets[i] : offsets[i + 1]] if present[i] else None
    return rows


def flattened(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as `a.b.c: value`."""
    if not isinstance(value, dict):
        return {prefix.removesuffix("."): value}
    found: dict[str, Any] = {}
    for key, part in value.items():
        found |= flattened(part, f"{prefix}{key}.")
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _records(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Records with a step, the last of each step, in order; and how many lines are none."""
    by_step: dict[int, dict[str, Any]] = {}
    num_broken = 0
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return [], 0
    for line in lines:
        try:
            record = json.loads(line)
            by_step[int(record["step"])] = record
        except (ValueError, TypeError, KeyError):
            num_broken += 1
    return [by_step[step] for step in sorted(by_step)], num_broken
