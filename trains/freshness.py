"""How far generation runs ahead of the trainer: as little as keeps the trainer from waiting.

Capacity alone always fills the buffer: where generation is faster than training, every token is eta versions old for
nothing. A batch that is generated while another is trained on is one version old, so two batches are the least that
costs no throughput; more is needed where answers take longer than a step. What a step waited for says which it is.
"""

from __future__ import annotations


class JustInTime:
    """The number of groups to keep submitted and not consumed, from what the trainer has waited.

    A window of steps whose waiting exceeds `WAIT_SHARE` of its time raises the target in proportion, `CALM_WINDOWS`
    windows without lower it by the smallest part. Where the servers are the bottleneck that ends at `capacity`, as
    without it.

    Args:
        batch_size: groups consumed a step.
        capacity: groups at most, (eta + 1) x batch_size.
    """

    WINDOW = 4  # steps; a single one may wait for a straggler
    WAIT_SHARE = 0.01
    CALM_WINDOWS = 4
    PARTS = 8  # of a batch, by which the target moves

    def __init__(self, batch_size: int, capacity: int):
        self.floor, self.capacity = min(2 * batch_size, capacity), capacity
        self.target = self.floor
        self._part = max(1, batch_size // self.PARTS)
        self._waited, self._total, self._steps, self._calm = (
            0.0,
            0.0,
            -1,
            0,
        )  # the first step waits in any case

    def observe(self, waited_seconds: float, total_seconds: float) -> None:
        """Take note of a step: what it took, and the part of it that went by without a finished batch."""
        self._steps += 1
        if self._steps == 0:
            return
        self._waited, self._total = self._waited + waited_seconds, self._total + total_seconds
        if self._steps % self.WINDOW:
            return
        share = self._waited / max(self._total, 1e-9)
        self._waited = self._total = 0.0
        if share > self.WAIT_SHARE:
            parts = 1 + int(share * self.PARTS)
            self.target, self._calm = min(self.capacity, self.target + parts * self._part), 0
        else:
            self._calm += 1
            if self._calm % self.CALM_WINDOWS == 0:
                self.target = max(self.floor, self.target - self._part)
