"""The training data loader: curated shards in, lists of rollout-ready rows out.

Start-up reads text columns only; an image is read and decoded when its row is drawn, in the loader's workers.
The loader is torchdata's StatefulDataLoader, as AReaL's `prepare_batch` wants it: an iterable of lists of
dicts with `batch_size` rows each, whose `state_dict` resumes with exactly the next row.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from dataset.encode import prepare_images
from dataset.images import ImageError
from dataset.lengths import rows_that_fit
from dataset.mixture import MixtureSampler, as_mixture
from dataset.prompts import DEFAULT_PROMPTS, PromptConfig
from dataset.shards import RowReader, open_rows
from utils.sample import Sample

logger = logging.getLogger(__name__)


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
) -> "RolloutLoader":
    """A loader of the rows of one data-parallel rank.

    `data` is a path (shard, directory, glob, Hub name), a list of paths, or a mixture: a list of
    ``{"path": ..., "weight": ...}``, the main source first. `batch_size` counts prompts over all ranks.
    Rows are the dicts of ``Sample.to_row`` (`images` decoded, RGB, at the model's size) plus `spec` as a
    dict. Rows with more than `max_length` prompt tokens are left out and counted; one whose image is corrupt
    is left out of its batch when drawn, with an error in the log that names it.

    Raises ``ValueError`` for a batch size that the ranks cannot share, a schema problem, or no row that fits.
    """
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(
            f"batch_size: got {batch_size}, wanted a positive multiple of world_size {world_size}"
        )
    if max_length is not None and processor is None:
        raise ValueError("max_length needs a processor to count tokens with")
    mixture = as_mixture(data)
    readers = [open_rows(part.path) for part in mixture]
    kept = []
    for reader in readers:
        rows = rows_that_fit(
            reader,
            processor,
            max_length=max_length,
            prompts=prompts,
            max_pixels=max_pixels,
            cache_dir=cache_dir,
        )
        num_dropped = len(reader) - len(rows)
        logger.info(
            "%s: %d rows; %d left out, over %s prompt tokens", reader.name, len(rows), num_dropped, max_length
        )
        if not len(rows):
            raise ValueError(f"{reader.name}: none of its {len(reader)} rows fits max_length {max_length}")
        kept.append(rows)
    sampler = MixtureSampler(
        [len(rows) for rows in kept],
        [part.weight for part in mixture],
        seed=seed,
        shuffle=shuffle,
        rank=rank,
        world_size=world_size,
    )
    return RolloutLoader(
        RolloutRows(readers, kept, processor, max_pixels),
        batch_size=batch_size // world_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=list,
        persistent_workers=num_workers > 0,
    )


class RolloutRows(Dataset):
    """Map-style data set keyed by (source, row), as `MixtureSampler` draws them."""

    def __init__(
        self,
        readers: Sequence[RowReader],
        kept: Sequence[np.ndarray],
        processor: Any = None,
        max_pixels: int | None = None,
    ) -> None:
        self.readers, self.kept, self.processor, self.max_pixels = readers, kept, processor, max_pixels

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.kept)

    def __getitem__(self, key: tuple[int, int]) -> "dict[str, Any] | LeftOut":
        """The row with decoded images; without a processor the images stay as stored."""
        source, position = key
        sample = Sample.from_row(self.readers[source].read(int(self.kept[source][position])))
        # `place` lets a checkpoint name the row without its images
        row = sample.to_row() | {"spec": sample.spec, "place": key}
        if self.processor is not None:
            try:
                row["images"] = prepare_images(self.processor, sample, self.max_pixels)
            except ImageError as error:
                return LeftOut(str(error))
        return row


@dataclass(frozen=True, slots=True)
class LeftOut:
    """In place of a row that a worker could not make; reported where logging is set up, in the main process."""

    reason: str


class RolloutLoader(StatefulDataLoader):
    """StatefulDataLoader whose batches leave out rows with unreadable images: `num_left_out`, and one log line each."""

    num_left_out = 0

    @property
    def num_epoch_rows(self) -> int:
        """Rows of an epoch over all ranks; `len` counts this rank's batches, perhaps one more than another's."""
        return len(self.sampler.sources)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for batch in super().__iter__():
            for row in batch:
                if isinstance(row, LeftOut):
                    self.num_left_out += 1
                    logger.error("row left out: %s", row.reason)
            yield [row for row in batch if not isinstance(row, LeftOut)]
