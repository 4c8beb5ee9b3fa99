"""The ring buffer between rollout and trainer: a strict bound on the age of every token that is trained on.

AReaL's executor generates ahead of the trainer and bounds staleness by capacity: at most (eta + 1) batches are
generated but not consumed. That bounds the age of a group only on average, because a long answer is overtaken by
short ones, and nothing looks at the age when a group is consumed. This buffer sits on the executor and looks:

    gap(token) = trainer version - version of the weights that generated the token
    a group is consumed only if max over its tokens of gap <= eta; else it is evicted and counted

Within that bound it keeps as little in generation as the trainer needs (trains/freshness.py).

It also knows which prompts were drawn from the data and not yet consumed, so that a resumed run repeats none and
loses none.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from trains.freshness import JustInTime
from trains.guards import FinalError
from trains.types import Failure, Group

POLL_SECONDS = 1.0


class Streak(Protocol):
    """Counts what happens in a row, over all trainer ranks (trains/host/streak.py) or over one."""

    def add(self) -> int:
        """One more; how many there are now."""

    def reset(self) -> None:
        """Something else has happened."""


class LocalStreak:
    """Of one rank."""

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def reset(self) -> None:
        self.count = 0


class Executor(Protocol):
    """What the buffer needs; trains/host/executor.py fulfils it with AReaL's `WorkflowExecutor`."""

    def submit(self, data: dict, workflow: Any) -> None: ...

    def finished(self, timeout: float) -> list[Any]: ...

    def release(self) -> None: ...


class NoSignalError(FinalError):
    """Too many groups in a row had equal rewards: the data has nothing left to teach."""


class RolloutFailedError(RuntimeError):
    """A prompt failed again and again, or the data of several in a row is wrong."""


@dataclass
class Entry:
    """A finished group of G rollouts waiting to be consumed."""

    key: int
    group: Group
    oldest_version: int  # of any generated token in the group


class RingBuffer:
    """Holds up to (eta + 1) x batch_size groups, counting those in generation; see the module docstring.

    Args:
        executor: generates and scores what is submitted to it; see `Executor`.
        batch_size: groups (prompts) consumed a step by this data-parallel rank.
        max_staleness: eta; 0 is synchronous training.
        resubmit_evicted: generate an evicted prompt again; otherwise it is skipped.
        drop_without_signal: dynamic sampling (DAPO, Yu et al. 2025, section 3.2): a group whose rewards are all
            equal is dropped and another prompt takes its place.
        freshness: `auto` submits just in time, as few groups as keep the trainer from waiting; `off` always fills the
            capacity.
        max_attempts_per_batch: with `drop_without_signal`, give up after dropping this many batches of groups in a
            row; the number of times that one prompt may fail, and that it may be evicted; prompts in a row whose data
            is wrong.
        dropped: counts the dropped groups in a row, over all ranks.
        num_ranks: that share the batch.
        leave_out: called with a prompt whose data is wrong and the reason; without it the first one stops the run.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        batch_size: int,
        max_staleness: int,
        resubmit_evicted: bool = True,
        drop_without_signal: bool = False,
        freshness: str = "auto",
        max_attempts_per_batch: int = 8,
        dropped: Streak | None = None,
        num_ranks: int = 1,
        leave_out: Callable[[Any, str], None] | None = None,
    ):
        self.executor = executor
        self.batch_size = batch_size
        self.max_staleness = max_staleness
        self.resubmit_evicted = resubmit_evicted
        self.drop_without_signal = drop_without_signal
        self.max_attempts_per_batch = max_attempts_per_batch
        self.dropped = dropped or LocalStreak()
        self.num_ranks = num_ranks
        self.leave_out = leave_out
        self._wrong_in_a_row = 0
        self.pace = JustInTime(batch_size, self.capacity) if freshness == "auto" else None
        self.counts: Counter[str] = Counter()  # since the start: submitted, consumed, evicted, ...
        self._undelivered: dict[int, Any] = {}  # prompts submitted and not consumed, in order of submission
        self._failures: Counter[int] = Counter()  # by prompt; evictions are no fault of it
        self._evictions: Counter[int] = Counter()
        self._ready: list[Entry] = []
        self._next_key = 0
        self._to_resubmit: list[Any] = []  # prompts restored from a checkpoint
        self._delivered_at = time.monotonic()
        self._waited = 0.0  # seconds, for the batch that is being put together

    @property
    def capacity(self) -> int:
        """Groups in generation or waiting: (eta + 1) batches."""
        return (self.max_staleness + 1) * self.batch_size

    @property
    def target(self) -> int:
        """Groups to keep in generation or waiting, at most `capacity`."""
        return self.capacity if self.pace is None else self.pace.target

    @property
    def num_ready(self) -> int:
        """Groups that are generated and scored."""
        return len(self._ready)

    def next_batch(
        self,
        prompts: Iterator[Any],
        workflow: Any,
        get_version: Callable[[], int],
        give_up: Callable[[], bool] | None = None,
    ) -> list[Group] | None:
        """The `batch_size` oldest finished groups, none with a token older than eta versions; blocks for them.

        `prompts` is endless. None where `give_up`, asked about once a second, says so
        first. Raises `NoSignalError` or `RolloutFailedError`, see the classes.
        """
        while True:
            version = get_version()
            self._evict(version, workflow)
            self._fill(prompts, workflow)
            if len(self._ready) >= self.batch_size:
                break
            if give_up is not None and give_up():
                return None
            for group in self._collect():
                if group is None:
                    raise RolloutFailedError("AReaL rejected a rollout; the trainer's log says why")
                if "failure" in group:
                    self._on_failure(group["failure"], workflow)
                    continue
                self._wrong_in_a_row = 0
                if self.drop_without_signal and not has_signal(group):
                    self._on_dropped(group)
                else:
                    if self.drop_without_signal:
                        self.dropped.reset()
                    self._ready.append(Entry(group["info"][0].key, group, oldest_version(group)))
        self._ready.sort(key=lambda entry: entry.key)
        batch, self._ready = self._ready[: self.batch_size], self._ready[self.batch_size :]
        for entry in batch:
            gap = version - entry.oldest_version
            if gap > self.max_staleness:  # never, after `_evict`; what is trained on is worth a second look
                raise RuntimeError(f"group {entry.key} is {gap} versions old, eta is {self.max_staleness}")
            del self._undelivered[entry.key]
            self._forget(entry.key)
        self.counts["consumed"] += len(batch)
        self._observe()
        return [entry.group for entry in batch]

    def state_dict(self) -> dict[str, Any]:
        """Counts and the prompts that a resumed run must generate again."""
        return {"undelivered": [*self._undelivered.values(), *self._to_resubmit], "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore before the first `next_batch`; the undelivered prompts come first."""
        if self._undelivered:
            raise RuntimeError("the buffer can be restored only before it is used")
        self._to_resubmit = list(state["undelivered"])
        self.counts = Counter(state["counts"])

    def _fill(self, prompts: Iterator[Any], workflow: Any) -> None:
        while len(self._undelivered) < self.target:
            prompt = self._to_resubmit.pop(0) if self._to_resubmit else next(prompts)
            self._submit(self._next_key, prompt, workflow)
            self._next_key += 1

    def _submit(self, key: int, prompt: Any, workflow: Any) -> None:
        self._undelivered[key] = prompt
        self.executor.submit({"key": key, "prompt": prompt}, workflow)
        self.counts["submitted"] += 1

    def _collect(self) -> Iterator[Any]:
        """Wait for one finished group, then take all that are there."""
        start = time.monotonic()
        results = self.executor.finished(POLL_SECONDS)
        self._waited += time.monotonic() - start
        while results:
            yield from results
            results = self.executor.finished(0)

    def _observe(self) -> None:
        now = time.monotonic()
        if self.pace is not None:
            self.pace.observe(self._waited, now - self._delivered_at)
        self._waited, self._delivered_at = 0.0, now

    def _evict(self, version: int, workflow: Any) -> None:
        stale = [entry for entry in self._ready if version - entry.oldest_version > self.max_staleness]
        self._ready = [entry for entry in self._ready if version - entry.oldest_version <= self.max_staleness]
        for entry in stale:
            self.counts["evicted"] += 1
            self.executor.release()
            self._evictions[entry.key] += 1
            prompt = self._undelivered.pop(entry.key)
            if self.resubmit_evicted and self._evictions[entry.key] < self.max_attempts_per_batch:
                self._submit(entry.key, prompt, workflow)
            else:  # its answers take longer than the bound allows; again and again they would be thrown away
                self.counts["given_up"] += 1
                self._forget(entry.key)

    def _forget(self, key: int) -> None:
        for counts in (self._failures, self._evictions):
            counts.pop(key, None)

    def _on_dropped(self, group: Group) -> None:
        self.counts["dropped_without_signal"] += 1
        self.executor.release()
        key, num_dropped = group["info"][0].key, self.dropped.add()
        del self._undelivered[key]
        self._forget(key)
        if num_dropped >= self.max_attempts_per_batch * self.batch_size * self.num_ranks:
            raise NoSignalError(
                f"{num_dropped} groups in a row had equal rewards: the data has no signal left for this policy "
                "(all solved or all unsolvable); curate it again, or set buffer.drop_without_signal: false"
            )

    def _on_failure(self, failure: Failure, workflow: Any) -> None:
        self.counts["failed"] += 1
        self.executor.release()
        if failure.is_data_error and self.leave_out is not None:
            self._wrong_in_a_row += 1
            if self._wrong_in_a_row < self.max_attempts_per_batch:
                self._forget(failure.key)
                self.leave_out(self._undelivered.pop(failure.key), failure.message)
                return
        self._failures[failure.key] += 1
        if failure.is_data_error or self._failures[failure.key] >= self.max_attempts_per_batch:
            name = _name(self._undelivered[failure.key])
            raise RolloutFailedError(
                f"sample {name}: {failure.message} (failed {self._failures[failure.key]} times)"
            )
        self._submit(failure.key, self._undelivered.pop(failure.key), workflow)


def _name(prompt: Any) -> str:
    """A row's id, as its file or generator has it."""
    return str(prompt.get("id", "without an id")) if isinstance(prompt, dict) else repr(prompt)


def oldest_version(group: Group) -> int:
    """The version of the oldest generated token in a group; prompt tokens carry -1.

    `group["versions"]` is `[G, seq]`, integers.
    """
    versions = group["versions"]
    return int(versions[versions >= 0].min())


def has_signal(group: Group, tolerance: float = 1e-6) -> bool:
    """Whether the rewards `[G]` of a group differ by more than rounding."""
    rewards = group["rewards"]
    return bool(rewards.max() - rewards.min() > tolerance)


class Prompts:
    """The rows of a dataloader of batches, one by one, epoch after epoch.

    A loader's state counts a batch as drawn once its first row is handed out; `drawn` holds the rest of it, so that a
    checkpoint can keep them. Raises ValueError when the data is empty.
    """

    def __init__(self, dataloader: Any):
        self.drawn: deque[Any] = deque()
        self._batches = _endless(dataloader)

    def __iter__(self) -> Prompts:
        return self

    def __next__(self) -> Any:
        while not self.drawn:
            self.drawn.extend(next(self._batches))
        return self.drawn.popleft()


def _endless(dataloader: Any) -> Iterator[list[Any]]:
    for epoch in itertools.count():
        num_rows = 0
        for rows in dataloader:
            num_rows += len(rows)
            yield rows
        if num_rows == 0 and epoch > 0:  # the first pass may be the empty rest of a resumed epoch
            raise ValueError("the training data is empty after filtering")
