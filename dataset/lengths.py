"""Which rows can be trained on: what is wrong with a row, and the prompt length of every sound one.

A byte-level token covers at least one byte, so most rows are known to fit from their byte count; only the
others are tokenised. Images' bytes are read in several processes, references of costly verifiers by the reward
pool. Results are kept in a small file per data set (size and time of its files), tokenizer and prompt wording.
"""

import fcntl
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.bad_rows import BadRow
from dataset.encode import prompt_length, prompt_length_bound
from dataset.images import ImageError, checked_size
from dataset.prompts import PromptConfig
from dataset.references import Reference, costly_reference, unreadable
from dataset.schema import row_problems
from dataset.shards import RowReader
from utils.files import replacing
from utils.sample import Sample

DEFAULT_CACHE_DIR = "~/.cache/llava-onevision-1.5-rl/lengths"
CACHE_VERSION = 3  # of what is checked
SPAN_ROWS = 512  # rows that a process checks at a time
MAX_PROCESSES = 16


@dataclass(frozen=True, slots=True)
class RowCheck:
    """What the start of a run knows of every row of a data set."""

    lengths: np.ndarray  # [num_rows] int32: prompt tokens; negative: an upper bound of them
    bad: dict[int, BadRow]  # by row number
    pixels: np.ndarray  # [num_rows] int64: of the row's largest image as it is stored; 0 without images

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
    """Every row's prompt length, or what is wrong with it. Images' bytes are read once; then the answer is cached.

    Of several processes that ask for the same at once, as the ranks of a trainer do, one works and the others wait.
    """
    cache_path = _cache_path(reader, processor, prompts, max_pixels, cache_dir)
    with _one_at_a_time(cache_path):
        found = _load(cache_path, reader)
        if found is None or (max_length is not None and _undecided(found.lengths, max_length).any()):
            found = _measure(reader, processor, max_length, prompts, max_pixels)
            bad = [(number, row.id, row.fault) for number, row in found.bad.items()]
            with replacing(cache_path) as file:
                np.savez(file, lengths=found.lengths, bad=json.dumps(bad), pixels=found.pixels)
    return found


def row_fault(
    row: Mapping[str, Any], measure: Callable[[Sample, list[tuple[int, int]]], int] | None = None
) -> tuple[int, str | None]:
    """(prompt length by `measure`, what is wrong with the row or None): columns, spec, images, prompt, and references
    as far as that is cheap; `dataset.references` reads the others.
    """
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


def largest(sizes: Iterable[tuple[int, int]]) -> int:
    """Pixels of the largest of images of these (width, height); 0 without any."""
    return max((width * height for width, height in sizes), default=0)


def shrunk(pixels: np.ndarray, max_pixels: int) -> str | None:
    """One sentence on the rows `[num_rows]` whose largest image has more than `max_pixels`; None without any."""
    over = pixels[pixels > max_pixels] / max_pixels
    if not len(over):
        return None
    return (
        f"{len(over)} of {len(pixels)} rows have an image of more than {max_pixels} pixels, which is shrunk: from "
        f"{np.median(over):.1f} times that in the median, {over.max():.1f} times at most"
    )


Fault = tuple[int, Any, str]  # row number in the reader, id, what is wrong


def bad_rows(
    reader: RowReader, faults: list[Fault], references: list[tuple[int, Any, Reference]]
) -> list[tuple[int, BadRow]]:
    """(row number, record) of the rows with `faults` and of those whose reference is unreadable, in order."""
    unread = unreadable(reference for *_, reference in references)
    faults = [*faults, *((number, name, unread[ref]) for number, name, ref in references if ref in unread)]
    return [(fault[0], _bad_row(reader, *fault)) for fault in sorted(faults, key=lambda fault: fault[0])]


def _bad_row(reader: RowReader, number: int, sample_id: Any, fault: str) -> BadRow:
    return BadRow(*reader.place(number), sample_id if sample_id is None else str(sample_id), fault)


def _undecided(lengths: np.ndarray, max_length: int) -> np.ndarray:
    # Stored negative: an upper bound only, which decides nothing once it exceeds the limit.
    return (lengths < 0) & (-lengths > max_length)


@dataclass
class Span:
    """What a process found of the rows from `start` on."""

    start: int
    lengths: list[int]
    pixels: list[int]
    faults: list[Fault]
    references: list[tuple[int, Any, Reference]]  # row number, id, what the reward pool is to read


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

    lengths = np.zeros(len(reader), dtype=np.int32)
    pixels = np.zeros(len(reader), dtype=np.int64)
    faults: list[Fault] = []
    references: list[tuple[int, Any, Reference]] = []
    for span in _spans(reader, measured if processor is not None else None):
        lengths[span.start : span.start + len(span.lengths)] = span.lengths
        pixels[span.start : span.start + len(span.pixels)] = span.pixels
        faults += span.faults
        references += span.references
    return RowCheck(lengths, dict(bad_rows(reader, faults, references)), pixels)


_job: tuple[RowReader, Any] | None = None  # of a process that checks rows


def _spans(reader: RowReader, measure: Any) -> Iterator[Span]:
    """All rows in order, checked by as many processes as there are processors."""
    starts = range(0, len(reader), SPAN_ROWS)
    num_processes = min(MAX_PROCESSES, len(os.sched_getaffinity(0)), len(starts))
    if num_processes < 2:
        yield from (_span(reader, measure, start) for start in starts)
        return
    # by fork, as the loader's own workers: nothing is pickled, nothing imported again
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(num_processes, context, _take_job, (reader, measure)) as executor:
        yield from executor.map(_span_of_job, starts)


def _take_job(reader: RowReader, measure: Any) -> None:
    global _job  # noqa: PLW0603
    _job = (reader, measure)


def _span_of_job(start: int) -> Span:
    assert _job is not None
    return _span(*_job, start)


def _span(reader: RowReader, measure: Any, start: int) -> Span:
    found = Span(start, [], [], [], [])

    def measured(sample: Sample, sizes: list[tuple[int, int]]) -> int:
        found.pixels[-1] = largest(sizes)
        return measure(sample, sizes) if measure else 0

    for number, row in enumerate(reader.iter_rows(start, start + SPAN_ROWS), start):
        found.pixels.append(0)
        length, fault = row_fault(row, measured)
        found.lengths.append(length)
        if fault is not None:
            found.faults.append((number, row.get("id"), fault))
        elif (reference := costly_reference(row)) is not None:
            found.references.append((number, row["id"], reference))
    return found


@contextmanager
def _one_at_a_time(cache_path: Path) -> Iterator[None]:
    cache_path.parent.mkdir(parents=True, exist_ok=True)
    with cache_path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _load(path: Path, reader: RowReader) -> RowCheck | None:
    if not path.exists():
        return None
    with np.load(path) as stored:
        bad = json.loads(str(stored["bad"]))
        rows = {number: _bad_row(reader, number, *rest) for number, *rest in bad}
        return RowCheck(stored["lengths"], rows, stored["pixels"])


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
        CACHE_VERSION,
        reader.fingerprint(),
        vocabulary and vocabulary.hexdigest(),
        image_side,
        template,
        prompts,
        max_pixels,
    )
    name = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
    return Path(cache_dir or DEFAULT_CACHE_DIR).expanduser() / f"{name}.npz"
