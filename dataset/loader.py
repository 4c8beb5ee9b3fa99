"""The training data loader: curated shards in, lists of rollout-ready rows out.

Start-up reads text columns only; an image is read and decoded when its row is drawn, in the loader's workers.
The loader is torchdata's StatefulDataLoader, as AReaL's `prepare_batch` wants it: an iterable of lists of
dicts with `batch_size` rows each, whose `state_dict` resumes with exactly the next row.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from dataset.bad_rows import BadRow, BadRows
from dataset.encode import image_limits, prepare_images
from dataset.images import ImageError
from dataset.lengths import check_rows, shrunk
from dataset.mixture import MixtureSampler, as_mixture
from dataset.prompts import DEFAULT_PROMPTS, PromptConfig
from dataset.schema import SchemaError
from dataset.shards import RowReader, open_rows
from utils.sample import Sample

logger = logging.getLogger(__name__)
MAX_REPORTED = 5


def create_dataloader(
    data: Any,
    processor: Any,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 219,
    shuffle: bool = True,
    max_length: int | None = None,
    max_pixels: int | None = None,
    prompts: PromptConfig = DEFAULT_PROMPTS,
    num_workers: int = 0,
    cache_dir: str | None = None,
    columns: Mapping[str, str] | None = None,
    max_bad_share: float = 0.01,
    bad_rows: BadRows | None = None,
    keep_originals: bool = False,
    longest_first: bool = False,
) -> "RolloutLoader":
    """A loader of the rows of one data-parallel rank.

    `data` is a path (shard, directory, glob, Hub name), a list of paths, or a mixture: a list of
    ``{"path": ..., "weight": ...}``, the main source first. `batch_size` counts prompts over all ranks.
    Rows are the dicts of ``Sample.to_row`` (`images` decoded, RGB, at the model's size) plus `spec` as a
    dict. Rows with more than `max_length` prompt tokens are left out and counted. So are rows that cannot be used,
    whatever is wrong with them, each listed in `bad_rows`; more than `max_bad_share` of a source is an error. An image
    whose damage shows only in decoding is left out of its batch when drawn. `columns`: see `utils.columns`.
    `longest_first`: each source's rows by falling prompt length, whatever `shuffle` says.

    Rows whose spec names tools, and all with `keep_originals`, also have `originals`: the images as stored.

    Raises ``ValueError`` for a batch size that the ranks cannot share, wrong columns, too many bad rows, or none left.
    """
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(
            f"batch_size: got {batch_size}, wanted a positive multiple of world_size {world_size}"
        )
    if max_length is not None and processor is None:
        raise ValueError("max_length needs a processor to count tokens with")
    mixture, bad_rows = as_mixture(data), BadRows() if bad_rows is None else bad_rows
    readers = [open_rows(part.path, columns=part.columns or columns, seed=seed) for part in mixture]
    kept = []
    for reader in readers:
        check = check_rows(
            reader,
            processor,
            max_length=1 if longest_first else max_length,  # lengths are bounds where a bound decides
            prompts=prompts,
            max_pixels=max_pixels,
            cache_dir=cache_dir,
        )
        bad_rows.add(check.bad.values(), written=rank > 0)
        _refuse_too_many(reader, check.bad, max_bad_share)
        rows = check.fitting(max_length)
        num_long = len(reader) - len(rows) - len(check.bad)
        logger.info(
            "%s: %d rows; %d left out, over %s prompt tokens; %d left out, unusable",
            reader.name,
            len(rows),
            num_long,
            max_length,
            len(check.bad),
        )
        if not len(rows):
            raise ValueError(f"{reader.name}: none of its {len(reader)} rows fits max_length {max_length}")
        if longest_first:
            rows = rows[np.argsort(-np.abs(check.lengths[rows]), kind="stable")]
        kept.append(rows)
        limit = None if processor is None else image_limits(processor, max_pixels).max_pixels
        if limit is not None and (sentence := shrunk(check.pixels[rows], limit)) is not None:
            logger.warning("%s: %s", reader.name, sentence)
    sampler = MixtureSampler(
        [len(rows) for rows in kept],
        [part.weight for part in mixture],
        seed=seed,
        shuffle=shuffle and not longest_first,
        rank=rank,
        world_size=world_size,
    )
    loader = RolloutLoader(
        RolloutRows(readers, kept, processor, max_pixels, keep_originals),
        batch_size=batch_size // world_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=list,
        persistent_workers=num_workers > 0,
    )
    loader.bad_rows = bad_rows
    if loader.num_epoch_rows < batch_size:
        logger.warning(
            "an epoch has %d rows, fewer than one batch (batch_size %d): a step draws rows more than once",
            loader.num_epoch_rows,
            batch_size,
        )
    return loader


def _refuse_too_many(reader: RowReader, bad: Mapping[int, BadRow], max_bad_share: float) -> None:
    if len(bad) <= max_bad_share * len(reader):
        return
    listed = "\n".join(str(row) for row in list(bad.values())[:MAX_REPORTED])
    more = f"\n... and {len(bad) - MAX_REPORTED} more" if len(bad) > MAX_REPORTED else ""
    raise SchemaError(
        f"{reader.name}: {len(bad)} of {len(reader)} rows cannot be used, more than max_bad_share {max_bad_share:g} "
        f"allows:\n{listed}{more}"
    )


class RolloutRows(Dataset):
    """Map-style data set keyed by (source, row), as `MixtureSampler` draws them."""

    def __init__(
        self,
        readers: Sequence[RowReader],
        kept: Sequence[np.ndarray],
        processor: Any = None,
        max_pixels: int | None = None,
        keep_originals: bool = False,
    ) -> None:
        self.readers, self.kept, self.processor, self.max_pixels = readers, kept, processor, max_pixels
        self.keep_originals = keep_originals  # for tools that look closer (dataset/agent)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.kept)

    def __getitem__(self, key: tuple[int, int]) -> "dict[str, Any] | LeftOut":
        """The row with decoded images; without a processor the images stay as stored."""
        source, position = key
        sample = Sample.from_row(self.readers[source].read(int(self.kept[source][position])))
        # `place` lets a checkpoint name the row without its images
        row = sample.to_row() | {"spec": sample.spec, "place": key}
        if self.keep_originals or (sample.spec or {}).get("tools"):
            row["originals"] = list(sample.images)
        if self.processor is not None:
            try:
                row["images"] = prepare_images(self.processor, sample, self.max_pixels)
            except ImageError as error:
                return LeftOut(key, sample.id, str(error))
        return row

    def bad_row(self, place: tuple[int, int], sample_id: str, fault: str) -> BadRow:
        """The record of the row that `place` names."""
        source, position = place
        return BadRow(*self.readers[source].place(int(self.kept[source][position])), sample_id, fault)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """In place of a row that a worker could not make; reported where logging is set up, in the main process."""

    place: tuple[int, int]
    id: str
    reason: str


class RolloutLoader(StatefulDataLoader):
    """StatefulDataLoader whose batches leave out rows that turn out to be unusable; each is listed once."""

    bad_rows: BadRows
    left_out: frozenset[tuple[int, int]] = frozenset()

    @property
    def num_left_out(self) -> int:
        """Rows that turned out to be unusable after the start, over all epochs so far."""
        return len(self.left_out)

    @property
    def num_epoch_rows(self) -> int:
        """Rows of an epoch over all ranks; `len` counts this rank's batches, perhaps one more than another's."""
        return len(self.sampler.sources)

    def leave_out(self, place: tuple[int, int], sample_id: str, reason: str) -> None:
        """Hand out the row at `place` no more, and list it."""
        self.left_out |= {tuple(place)}
        self.bad_rows.add([self.dataset.bad_row(place, sample_id, reason)])

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for batch in super().__iter__():
            for row in batch:
                if isinstance(row, LeftOut):
                    self.leave_out(row.place, row.id, row.reason)
            yield [row for row in batch if not isinstance(row, LeftOut) and row["place"] not in self.left_out]
