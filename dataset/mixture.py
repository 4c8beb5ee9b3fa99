"""In which order rows are drawn: a weighted mixture of sources, shuffled, sharded by rank, resumable.

Everything is a function of (seed, epoch, position), so the whole state of a loader is two integers and any
row of any rank can be recomputed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class MixturePart:
    """One source of a mixture; in YAML ``{path: ./data/stage1-normal, weight: 0.1}``."""

    path: str | tuple[str, ...]  # shard, directory, glob or Hub name; or several of them
    weight: float = 1.0  # share of the rows drawn, relative to the other parts
    columns: Mapping[str, str] | None = None  # of this source alone, see `utils.columns`


def as_mixture(data: Any) -> tuple[MixturePart, ...]:
    """A mixture from a path, a list of paths (one source), a part, or a list of parts or ``{path, weight}``
    mappings.

    Raises ``ValueError`` for an empty mixture, unknown keys or a weight that is not a positive finite number.
    """
    if isinstance(data, str | MixturePart | Mapping):
        data = [data]
    items = list(data)
    if items and all(isinstance(item, str) for item in items):
        return (MixturePart(items[0] if len(items) == 1 else tuple(items)),)
    parts = tuple(_as_part(item) for item in items)
    if not parts:
        raise ValueError("mixture: got no source, wanted at least one path")
    for part in parts:
        if not (np.isfinite(part.weight) and part.weight > 0):
            raise ValueError(f"mixture: weight of {part.path} is {part.weight}, wanted a positive number")
    return parts


def exact_counts(weights: Sequence[float], num_rows: int) -> np.ndarray:
    """Rows per source [num_sources] summing to `num_rows`, each within one of its exact share (largest
    remainder).
    """
    shares = np.asarray(weights, dtype=float) / np.sum(weights) * num_rows
    counts = np.floor(shares + 1e-9).astype(int)
    missing = num_rows - counts.sum()
    counts[np.argsort(counts - shares, kind="stable")[:missing]] += 1
    return counts


def schedule(weights: Sequence[float], num_rows: int) -> np.ndarray:
    """The source of each position [num_rows]: shares exact over the whole and even along the way.

    Draw k of a source with c draws belongs at (k + 1/2) / c of the epoch; sorting these places interleaves
    them.
    """
    counts = exact_counts(weights, num_rows)
    places = np.concatenate([(np.arange(count) + 0.5) / max(count, 1) for count in counts])
    sources = np.repeat(np.arange(len(counts)), counts)
    return sources[np.argsort(places, kind="stable")]


class MixtureSampler:
    """Yields (source, row) pairs of one rank for one epoch; each `iter` continues with the next epoch.

    An epoch is one pass over the first source, its length scaled up by the share of the others. A source
    that is shorter or longer than its share simply goes on: every source is a chain of complete passes, each
    in a fresh permutation, so no row comes twice before all others of its source have come once.
    Ranks take positions in turn: disjoint, their union is the epoch, lengths differ by at most one.
    """

    def __init__(
        self,
        num_rows: Sequence[int],
        weights: Sequence[float] | None = None,
        *,
        seed: int = 219,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        weights = [1.0] * len(num_rows) if weights is None else weights
        if len(weights) != len(num_rows) or not len(num_rows):
            raise ValueError(
                f"got {len(num_rows)} sources and {len(weights)} weights, wanted as many of each"
            )
        if min(num_rows) < 1:
            raise ValueError(f"every source needs rows, got {list(num_rows)}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: got {rank}, wanted 0 to {world_size - 1}")
        self.num_rows, self.seed, self.shuffle = list(num_rows), seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        epoch_rows = max(1, round(num_rows[0] * float(np.sum(weights)) / weights[0]))
        self.sources = schedule(weights, epoch_rows)
        self.counts = np.bincount(self.sources, minlength=len(num_rows))
        # how many rows of its own source come before a position, within the epoch
        self.draws = np.empty(epoch_rows, dtype=np.int64)
        for source in range(len(num_rows)):
            self.draws[self.sources == source] = np.arange(self.counts[source])

    def __len__(self) -> int:
        return len(range(self.rank, len(self.sources), self.world_size))

    def __iter__(self) -> "MixtureIterator":
        return MixtureIterator(self)

    def row_at(self, epoch: int, position: int) -> tuple[int, int]:
        """The (source, row) at a position of the whole epoch, over all ranks."""
        source = int(self.sources[position])
        draw = epoch * int(self.counts[source]) + int(self.draws[position])
        turn, offset = divmod(draw, self.num_rows[source])
        if not self.shuffle:
            return source, offset
        return source, int(_permutation(self.seed, source, turn, self.num_rows[source])[offset])


class MixtureIterator(Iterator[tuple[int, int]]):
    """One epoch of a sampler, with the state that torchdata's StatefulDataLoader stores."""

    def __init__(self, sampler: MixtureSampler) -> None:
        self.sampler, self.epoch, self.yielded = sampler, sampler.epoch, 0

    def __next__(self) -> tuple[int, int]:
        position = self.sampler.rank + self.yielded * self.sampler.world_size
        if position >= len(self.sampler.sources):
            self.sampler.epoch = self.epoch + 1
            raise StopIteration
        self.yielded += 1
        return self.sampler.row_at(self.epoch, position)

    def state_dict(self) -> dict[str, int]:
        """Epoch, rows yielded, and what they refer to, so that a changed set is noticed."""
        return {
            "epoch": self.epoch,
            "yielded": self.yielded,
            "epoch_rows": len(self.sampler.sources),
            "world_size": self.sampler.world_size,
            "seed": self.sampler.seed,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue with the row after the stored one. Raises ``ValueError`` when data, seed or ranks
        changed.
        """
        own = self.state_dict()
        for key in ("epoch_rows", "world_size", "seed"):
            if state[key] != own[key]:
                raise ValueError(f"cannot resume the loader: {key} was {state[key]} and is now {own[key]}")
        self.epoch, self.yielded = state["epoch"], state["yielded"]
        self.sampler.epoch = self.epoch


@lru_cache(maxsize=8)
def _permutation(seed: int, source: int, turn: int, num_rows: int) -> np.ndarray:
    return np.random.default_rng([seed, source, turn]).permutation(num_rows).astype(np.int32)


def _as_part(item: Any) -> MixturePart:
    if isinstance(item, MixturePart):
        return item
    if isinstance(item, str):
        return MixturePart(item)
    unknown = set(item) - {"path", "weight", "columns"}
    if unknown or "path" not in item:
        raise ValueError(f"mixture: got keys {sorted(item)}, wanted path, weight and columns")
    path = item["path"] if isinstance(item["path"], str) else tuple(item["path"])
    return MixturePart(path, float(item.get("weight", 1.0)), item.get("columns"))
