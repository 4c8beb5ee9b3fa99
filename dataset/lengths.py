"""Which rows can be trained on: what is wrong with a row, and the prompt length of every sound one.

A byte-level token covers at least one byte, so most rows are known to fit from their byte count; only the
others are tokenised. Results are kept in a small file per data set, tokenizer and prompt wording.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.encode import prompt_length, prompt_length_bound
from dataset.images import ImageError, checked_size
from dataset.prompts import PromptConfig
from dataset.schema import row_problems
from dataset.shards import RowReader
from utils.files import replacing
from utils.sample import Sample

DEFAULT_CACHE_DIR = "~/.cache/llava-onevision-1.5-rl/lengths"


@dataclass(frozen=True, slots=True)
class RowCheck:
    """What the start of a run knows of every row of a data set."""

    lengths: np.ndarray  # [num_rows] int32: prompt tokens; negative: an upper bound of them
    bad: dict[int, str]  # row number -> file, row, id and reason

    def fitting(self, max_length: int | None) -> np.ndarray:
        """Row numbers [num_kept] (int32) of sound rows with at most `max_length` prompt tokens."""
        fits = np.ones(len(self.lengths), bool) if max_length is None else np.abs(self.lengths) <= max_length
        fits[list(self.bad)] = False
        return np.flatnonzero(fits).astype(np.int32)


def check_rows(
    reader: RowReader,
    processor: Any,
    *,
    max_length: int | None,
    prompts: PromptConfig,
    max_pixels: int | None,
    cache_dir: str | None = None,
) -> RowCheck:
    """Every row's prompt length, or what is wrong with it. Images' bytes are read once; then the answer is cached."""
    cache_path = _cache_path(reader, processor, prompts, max_pixels, cache_dir)
    found = _load(cache_path)
    if found is None or (max_length is not None and _undecided(found.lengths, max_length).any()):
        found = _measure(reader, processor, max_length, prompts, max_pixels)
        with replacing(cache_path) as file:
            np.savez(file, lengths=found.lengths, bad=json.dumps(list(found.bad.items())))
    return found


def row_fault(
    row: Mapping[str, Any], measure: Callable[[Sample, list[tuple[int, int]]], int] | None = None
) -> tuple[int, str | None]:
    """(prompt length by `measure`, what is wrong with the row or None): columns, reference and spec, images, prompt."""
    problem = next(row_problems(row), None)
    if problem is None:
        try:
            sizes = [checked_size(image, row["id"]) for image in row["images"] or ()]
            return (measure(Sample.from_row(row), sizes) if measure else 0), None
        except ImageError as error:
            problem = f"column 'images': {error}"
        except ValueError as error:
            problem = str(error)
    return 0, problem


def _undecided(lengths: np.ndarray, max_length: int) -> np.ndarray:
    # Stored negative: an upper bound only, which decides nothing once it exceeds the limit.
    return (lengths < 0) & (-lengths > max_length)


def _measure(
    reader: RowReader,
    processor: Any,
    max_length: int | None,
    prompts: PromptConfig,
    max_pixels: int | None,
) -> RowCheck:
    options = {"prompts": prompts, "max_pixels": max_pixels}

    def measured(sample: Sample, sizes: list[tuple[int, int]]) -> int:
        length = -prompt_length_bound(processor, sample, sizes, **options)
        if max_length is not None and -length > max_length:
            length = prompt_length(processor, sample, sizes, **options)
        return length

    lengths, bad = np.zeros(len(reader), dtype=np.int32), {}
    for position, row in enumerate(reader.iter_rows()):
        lengths[position], fault = row_fault(row, measured if processor is not None else None)
        if fault is not None:
            bad[position] = f"{reader.where(position)} (id {row.get('id')!r}): {fault}"
    return RowCheck(lengths, bad)


def _load(path: Path) -> RowCheck | None:
    if not path.exists():
        return None
    with np.load(path) as stored:
        return RowCheck(stored["lengths"], dict(json.loads(str(stored["bad"]))))


def _cache_path(
    reader: RowReader, processor: Any, prompts: PromptConfig, max_pixels: int | None, cache_dir: str | None
) -> Path:
    tokenizer = getattr(processor, "tokenizer", None)
    vocabulary = (
        "" if tokenizer is None else hashlib.sha256(repr(sorted(tokenizer.get_vocab().items())).encode())
    )
    image_side = "" if processor is None else repr(processor.image_processor.to_dict())
    template = getattr(processor, "chat_template", "")
    parts = (
        reader.fingerprint(),
        vocabulary and vocabulary.hexdigest(),
        image_side,
        template,
        prompts,
        max_pixels,
    )
    name = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
    return Path(cache_dir or DEFAULT_CACHE_DIR).expanduser() / f"{name}.npz"
