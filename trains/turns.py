"""One prompt after the other, for runs that must come out the same to the last bit.

A server draws all its samples from one random stream, and the rounding of a token's logits depends on what else is in
its batch: the order in which requests arrive decides both. With turns one request is under way at a time, in the order
in which prompts were submitted.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

POLL_SECONDS = 0.002


class Turns:
    """`expect` a key when its prompt is submitted (any thread); within `of(key)` nobody else has a turn."""

    def __init__(self) -> None:
        self._expected: set[int] = set()
        self._lock = threading.Lock()

    def expect(self, key: int) -> None:
        """A prompt will want its turn; those of smaller keys come first."""
        with self._lock:
            self._expected.add(key)

    @asynccontextmanager
    async def of(self, key: int) -> AsyncIterator[None]:
        """Wait for the turn of `key` and keep it for the block."""
        while self._first() < key:
            await asyncio.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            with self._lock:
                self._expected.discard(key)

    def _first(self) -> int:
        with self._lock:
            return min(self._expected)
