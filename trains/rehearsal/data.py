"""The configured data before anything starts: rows, what is left out and why, lengths, rewards of the references."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from typing import Any

import numpy as np

from dataset.encode import prompt_length
from dataset.images import checked_size
from dataset.lengths import check_rows
from dataset.mixture import as_mixture
from dataset.prompts import PromptConfig
from dataset.shards import open_rows
from reward.tools.audit import audit
from trains.rehearsal.answers import reference_completion
from utils.sample import Sample

NUM_MEASURED = 200  # rows whose prompt is tokenised for the report
NUM_AUDITED = 16  # rows of each source and answer type
MAX_SHOWN = 5


def examine(config: Any, processor: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """(a record for each part of the training and held-out data, what is wrong with them).

    A record: {"path", "for", "rows", "kept", "too_long", "unusable", "reasons", "lengths", "max_length", "weight"}.
    """
    data, records, problems = config.train_dataset, [], []
    parts = [("training", part, data.max_length) for part in as_mixture(data.mixture or data.path)]
    columns = {"training": data.columns}
    if config.valid_dataset is not None:
        held_out = config.valid_dataset
        parts.append(("evaluation", as_mixture(held_out.path)[0], held_out.max_length))
        columns["evaluation"] = data.columns if held_out.columns is None else held_out.columns
    prompts = config.prompts.settings(config.seed)
    for purpose, part, max_length in parts:
        path = part.path if isinstance(part.path, str) else ",".join(part.path)
        named = part.columns or columns[purpose]
        try:
            reader = open_rows(part.path, columns=named, seed=config.seed)
            check = check_rows(
                reader, processor, max_length=max_length, prompts=prompts, max_pixels=data.max_pixels
            )
            kept = check.fitting(max_length)
            record = {
                "path": path,
                "for": purpose,
                "rows": len(reader),
                "kept": len(kept),
                "too_long": len(reader) - len(kept) - len(check.bad),
                "unusable": len(check.bad),
                "reasons": [str(row) for row in list(check.bad.values())[:MAX_SHOWN]],
                "max_length": max_length,
                "weight": part.weight,
            }
            records.append(record)
            if len(check.bad) > data.max_bad_share * len(reader):
                problems.append(
                    f"{path}: {len(check.bad)} of {len(reader)} rows cannot be used, more than "
                    f"train_dataset.max_bad_share={data.max_bad_share:g} allows; the first: {record['reasons'][0]}"
                )
                continue
            if not len(kept):
                problems.append(f"{path}: none of its {len(reader)} rows fits max_length={max_length}")
                continue
            record["lengths"] = _lengths(reader, kept, processor, prompts, data.max_pixels)
        except (FileNotFoundError, ValueError) as error:
            problems.append(str(error))
    return records, problems


def audit_rewards(config: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """(a record for each source and answer type of the training data, failures): do references pay for themselves?"""
    data, records, problems = config.train_dataset, [], []
    settings = config.reward.settings(config.gconfig.max_new_tokens)
    for part in as_mixture(data.mixture or data.path):
        path = part.path if isinstance(part.path, str) else ",".join(part.path)
        for result in audit(path, NUM_AUDITED, config.seed, settings, part.columns or data.columns):
            records.append(
                {
                    "path": path,
                    "source": result.source,
                    "answer_type": result.answer_type,
                    "samples": result.num_samples,
                    "means": dict(result.means),
                    "failures": list(result.failures),
                    "is_dead": result.is_dead,
                }
            )
            if result.failures:
                more = f" (and {len(result.failures) - 1} more)" if len(result.failures) > 1 else ""
                problems.append(
                    f"rewards of {path}, {result.source}, {result.answer_type}: {result.failures[0]}{more}"
                )
    return records, problems


def lengths(records: list[dict[str, Any]], *, is_bytes: bool) -> dict[str, Any] | None:
    """Over all parts of the training data, by weight: mean tokens of a prompt, references of rows that do not think by
    their tokens, share of rows that think; None where nothing was measured. `is_bytes`: the tokens are bytes.
    """
    parts = [part for part in records if part["for"] == "training" and "lengths" in part]
    if not parts:
        return None
    total = sum(part["weight"] for part in parts)
    means = {
        name: sum(part["weight"] * part["lengths"][key] for part in parts) / total
        for name, key in (("prompt_mean", "mean"), ("thinking_share", "thinking_share"))
    }
    references = sum((Counter(part["lengths"]["references"]) for part in parts), Counter())
    return {**means, "references": dict(sorted(references.items())), "is_bytes": is_bytes}


def _lengths(reader: Any, kept: np.ndarray, processor: Any, prompts: PromptConfig, max_pixels: int | None):
    """Tokens of some rows: of prompts {"median", "mean", "longest", "measured"}, of the references where the model is
    not asked to think {"references": rows by tokens}, and {"thinking_share"} of rows where it is.
    """
    rows = [int(row) for row in kept]
    chosen = rows if len(rows) <= NUM_MEASURED else random.Random(0).sample(rows, NUM_MEASURED)
    lengths: list[int] = []
    references: Counter[int] = Counter()
    thinking = 0
    for position in chosen:
        sample = Sample.from_row(reader.read(position))
        sizes = [checked_size(image, sample.id) for image in sample.images]
        lengths.append(prompt_length(processor, sample, sizes, prompts=prompts, max_pixels=max_pixels))
        if sample.prompt_type == "think":
            thinking += 1
            continue
        with contextlib.suppress(ValueError):  # a reference that cannot be written out; the audit names it
            text = reference_completion(sample)
            references[len(processor.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1] += 1
    return {
        "median": int(np.median(lengths)),
        "mean": float(np.mean(lengths)),
        "longest": max(lengths),
        "measured": len(lengths),
        "references": dict(references),
        "thinking_share": thinking / len(lengths),
    }
