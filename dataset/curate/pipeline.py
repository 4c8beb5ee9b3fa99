"""One curation run: rows in, journal out, until enough is kept or the source ends. Memory holds the work in flight.

Rows are numbered in the order of work. Whatever finishes first, selection is decided in that order (`rules.Selection`),
and a row that the journal knows is never measured again.
"""

import asyncio
import random
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dataset.curate.journal import Journal, JournalError, Record, check_same_settings
from dataset.curate.pool import WorkerPool
from dataset.curate.rules import Selection
from dataset.curate.settings import Settings
from dataset.curate.statistics import Statistics, measure
from dataset.curate.worker import Job
from dataset.sources.base import Row, check_columns
from utils.command_line import is_hub_name


@dataclass
class Progress:
    """What a run knows while it runs: where each record lies, and what was decided."""

    selection: Selection
    measurement: dict[str, Any] = field(default_factory=dict)  # the settings that the journal was made with
    offsets: dict[int, int] = field(default_factory=dict)  # position -> offset in the journal
    num_resumed: int = 0
    num_generated: int = 0  # attempts generated in this run
    num_tokens: int = 0  # tokens generated in this run
    seconds: float = 0.0
    exhausted: bool = False  # the source ended, or --max-samples rows were taken
    interrupted: bool = False


def open_journal(settings: Settings) -> tuple[Journal, Progress]:
    """The journal of a run and what it holds already.

    Raises ``JournalError`` when there is one and `--incremental` was not given, when it was made with other settings,
    or when there is none to write results from.
    """
    path, wanted = settings.journal_path, settings.measurement()
    present = path.exists() and path.stat().st_size > 0
    if present and not settings.incremental:
        raise JournalError(
            f"{path} exists: --incremental continues it; for a new start choose another --output-dir or remove it"
        )
    if not present and not settings.measure:
        raise JournalError(f"--to-parquet-only: there is no journal at {path}")
    journal = Journal(path)
    progress = Progress(Selection(settings.rule, settings.dataset_size, settings.max_per_class))
    try:
        for offset, record in journal.records():
            header = record.header
            if header["kind"] == "settings":
                progress.measurement = header["settings"]
                if settings.measure:
                    check_same_settings(path, header["settings"], wanted)
            elif header["kind"] == "exhausted":
                limit, asked = header["max_samples"], settings.max_samples
                progress.exhausted |= limit is None or (asked is not None and asked <= limit)
            elif header["position"] not in progress.offsets:
                take(progress, settings, record, offset)
                progress.num_resumed += 1
        if not progress.measurement:
            progress.measurement = wanted
            journal.append(Record({"kind": "settings", "settings": wanted}))
    except BaseException:
        journal.close()
        raise
    return journal, progress


def take(progress: Progress, settings: Settings, record: Record, offset: int) -> None:
    """Enter one record into the run's state."""
    header = record.header
    position = header["position"]
    progress.offsets[position] = offset
    if settings.max_samples is not None and position >= settings.max_samples:
        return  # measured by an earlier run that looked at more rows
    if header["kind"] == "measured":
        label, sample_id = class_of(header, settings.balance_by), header["sample"]["id"]
        progress.selection.offer(position, statistics_of(header), label, sample_id)
    else:
        progress.selection.offer(position, None, header["reason"])


def statistics_of(header: dict) -> Statistics:
    """The statistics of a measured record, from its stored attempts."""
    attempts = header["attempts"]
    return measure(
        [attempt["reward"] for attempt in attempts],
        [attempt["parts"]["accuracy"] for attempt in attempts],
        header["solved_threshold"],
    )


def class_of(header: dict, balance_by: str) -> str:
    """The class of a sample for `--max-per-class`: its first answer, or one of its type columns."""
    sample = header["sample"]
    return str(sample["answer"][0] if balance_by == "answer" else sample[balance_by])


def number_rows(settings: Settings) -> Iterator[tuple[int, int, str, Row]]:
    """(position, row number, sample id, row) in the order of work: the source's, or shuffled within a buffer.

    Raises ``SourceError`` when the first row lacks a column.
    """
    source, location = settings.source, settings.location
    parts = [
        source.name,
        *([location.config] if location.config and location.config != source.config else []),
    ]
    prefix = "/".join([*parts, location.split])
    rows = enumerate(source.load(location))
    if settings.shuffle_buffer > 1:
        rows = _shuffled(rows, settings.shuffle_buffer, settings.seed)
    for position, (number, row) in enumerate(rows):
        if position == 0:
            check_columns(source, row, location.path or source.name)
        if settings.max_samples is not None and position >= settings.max_samples:
            return
        yield position, number, f"{prefix}/{number:07d}", row


def check_first_row(settings: Settings) -> None:
    """Open local data before any server starts; what lies on the Hub is read when its rows are wanted.

    Raises ``FileNotFoundError`` where there is none, ``SourceError`` for a first row that lacks a column,
    ``ValueError`` for a file that is not what it says.
    """
    path = settings.location.path
    if path and not Path(path).exists():
        if is_hub_name(path):
            return
        raise FileNotFoundError(f"--dataset-path {path} does not exist (working directory: {Path.cwd()})")
    for row in settings.source.load(settings.location):
        check_columns(settings.source, row, path)
        return


def _shuffled(rows: Iterator[tuple[int, Row]], size: int, seed: int) -> Iterator[tuple[int, Row]]:
    generator, buffer = random.Random(seed), []
    for item in rows:
        if len(buffer) < size:
            buffer.append(item)
            continue
        i = generator.randrange(size)
        yield buffer[i]
        buffer[i] = item
    generator.shuffle(buffer)
    yield from buffer


async def run(settings: Settings, pool: WorkerPool, journal: Journal, progress: Progress) -> None:
    """Measure rows until `dataset_size` samples are kept, the source ends or SIGINT/SIGTERM arrives.

    Whatever was finished is in the journal, also when this raises.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    reader = ThreadPoolExecutor(1, thread_name_prefix="source")
    rows = number_rows(settings)
    running: set[asyncio.Task] = set()
    item: tuple[int, int, str, Row] | None = (-1, -1, "", {})
    started = time.monotonic()
    by_kept = settings.dataset_size is not None
    bar = tqdm(
        total=settings.dataset_size or settings.max_samples,
        initial=len(progress.selection.kept) if by_kept else len(progress.offsets),
        unit="kept" if by_kept else "row",
        smoothing=0.1,
        mininterval=0.5 if sys.stderr.isatty() else 10.0,  # a log file wants few lines
        desc=settings.source.name,
    )

    async def measure_row(job: Job) -> None:
        record = await pool.measure(job)
        take(progress, settings, record, journal.append(record))
        if record.header["kind"] == "measured":
            attempts = record.header["attempts"]
            progress.num_generated += len(attempts)
            progress.num_tokens += sum(attempt["num_tokens"] for attempt in attempts)
        _show(bar, progress, time.monotonic() - started, by_kept)

    try:
        while not progress.selection.complete and not stop.is_set():
            item = await loop.run_in_executor(reader, next, rows, None)
            if item is None:
                break
            position, number, sample_id, row = item
            if position in progress.offsets:
                continue
            while len(running) >= pool.num_slots and not stop.is_set():
                await _wait(running, stop)
            if not stop.is_set() and not progress.selection.complete:
                running.add(asyncio.create_task(measure_row(Job(position, number, sample_id, row))))
            _raise_first(running)
        while running and not stop.is_set():
            await _wait(running, stop)
        if item is None and not stop.is_set():
            progress.exhausted = True
            journal.append(Record({"kind": "exhausted", "max_samples": settings.max_samples}))
    finally:
        progress.interrupted = stop.is_set()
        progress.seconds = time.monotonic() - started
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        bar.close()
        reader.shutdown(wait=False, cancel_futures=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _wait(running: set[asyncio.Task], stop: asyncio.Event) -> None:
    waiter = asyncio.ensure_future(stop.wait())
    await asyncio.wait({*running, waiter}, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    _raise_first(running)


def _raise_first(running: set[asyncio.Task]) -> None:
    for task in [task for task in running if task.done()]:
        running.discard(task)
        task.result()


def _show(bar: tqdm, progress: Progress, seconds: float, by_kept: bool) -> None:
    selection = progress.selection
    bar.set_postfix(
        **({"rows": len(progress.offsets)} if by_kept else {"kept": len(selection.kept)}),
        dropped=len(selection.dropped),
        rejected=len(selection.rejected),
        tok_s=f"{progress.num_tokens / max(seconds, 1e-9):.0f}",
        refresh=False,
    )
    bar.update((len(selection.kept) if by_kept else len(progress.offsets)) - bar.n)
