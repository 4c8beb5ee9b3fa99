"""Which rows fit: schema check and prompt length of every row, from text and stored image sizes alone.

A byte-level token covers at least one byte, so most rows are known to fit from their byte count; only the
others are tokenised. Results are kept in a small file per data set, tokenizer and prompt wording.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dataset.encode import prompt_length, prompt_length_bound
from dataset.images import upright_size
from dataset.prompts import PromptConfig
from dataset.schema import SchemaError, row_problems
from dataset.shards import RowReader
from utils.files import replacing
from utils.sample import Sample

DEFAULT_CACHE_DIR = "~/.cache/llava-onevision-1.5-rl/lengths"
MAX_REPORTED = 5


def rows_that_fit(
    reader: RowReader,
    processor: Any,
    *,
    max_length: int | None,
    prompts: PromptConfig,
    max_pixels: int | None,
    cache_dir: str | None = None,
) -> np.ndarray:
    """Row numbers [num_kept] (int32) whose prompt has at most `max_length` tokens; all rows when it is None.

    Raises ``SchemaError`` for wrong values, naming file, row, column and value (the first few of them).
    """
    cache_path = _cache_path(reader, processor, prompts, max_pixels, cache_dir)
    lengths = np.load(cache_path) if cache_path.exists() else None
    if lengths is None or (max_length is not None and _undecided(lengths, max_length).any()):
        lengths = _measure(reader, processor, max_length, prompts, max_pixels)
        _save(cache_path, lengths)
    if max_length is None:
        return np.arange(len(lengths), dtype=np.int32)
    return np.flatnonzero(np.abs(lengths) <= max_length).astype(np.int32)


def _undecided(lengths: np.ndarray, max_length: int) -> np.ndarray:
    # Stored negative: an upper bound only, which decides nothing once it exceeds the limit.
    return (lengths < 0) & (-lengths > max_length)


def _measure(
    reader: RowReader,
    processor: Any,
    max_length: int | None,
    prompts: PromptConfig,
    max_pixels: int | None,
) -> np.ndarray:
    lengths = np.zeros(len(reader), dtype=np.int32)
    position, problems = 0, []
    for batch in reader.iter_texts():
        for row in batch:
            sizes = _stored_sizes(row)
            # Where sizes are stored the images themselves were not read; their number is that of the sizes.
            countable = row if sizes is None else row | {"images": sizes}
            found = [
                f"{reader.where(position)} (id {row.get('id')!r}): {text}" for text in row_problems(countable)
            ]
            problems += found
            if not found and processor is not None:
                if sizes is None:
                    sizes = [upright_size(image, row["id"]) for image in row["images"] or ()]
                sample = Sample.from_row(countable)
                length = -prompt_length_bound(
                    processor, sample, sizes, prompts=prompts, max_pixels=max_pixels
                )
                if max_length is not None and -length > max_length:
                    length = prompt_length(processor, sample, sizes, prompts=prompts, max_pixels=max_pixels)
                lengths[position] = length
            position += 1
    if problems:
        more = f"\n... and {len(problems) - MAX_REPORTED} more" if len(problems) > MAX_REPORTED else ""
        raise SchemaError("\n".join(problems[:MAX_REPORTED]) + more)
    return lengths


def _stored_sizes(row: Mapping[str, Any]) -> list[tuple[int, int]] | None:
    sizes = row.get("image_sizes")
    return None if sizes is None else [tuple(size) for size in sizes]


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
    return Path(cache_dir or DEFAULT_CACHE_DIR).expanduser() / f"{name}.npy"


def _save(path: Path, lengths: np.ndarray) -> None:
    with replacing(path) as file:  # several ranks may write the same values at once
        np.save(file, lengths)
