"""A count that all trainer ranks share, in the store of torch's process group: nobody has to wait for anybody."""

from __future__ import annotations

import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store


class SharedStreak:
    """What happens in a row on any of the ranks, in the order in which the store hears of it."""

    def __init__(self, name: str):
        self._store = dist.PrefixStore(name, _get_default_store())
        self._store.add("count", 0)

    def add(self) -> int:
        """One more; how many there are now."""
        return self._store.add("count", 1)

    def reset(self) -> None:
        """Begin anew."""
        self._store.add("count", -self._store.add("count", 0))
