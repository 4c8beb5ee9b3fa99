"""The ring buffer by hand: order, eviction, failures, dropped groups, and where it refuses."""

import itertools

import pytest
import torch

from tests.trains.fake_executor import BATCH, ETA, FakeExecutor, info
from trains.buffer import (
    Entry,
    LocalStreak,
    NoSignalError,
    Prompts,
    RingBuffer,
    RolloutFailedError,
    has_signal,
    oldest_version,
)
from trains.host.executor import Executor


def test_oldest_prompts_are_consumed_first():
    executor = FakeExecutor()
    buffer = RingBuffer(Executor(executor), batch_size=BATCH, max_staleness=ETA, freshness="off")
    buffer._fill(iter(range(100)), None)
    executor.start()
    for index in (5, 3, 3, 0, 0, 0):  # finish out of order
        executor.finish(index)
    batch = buffer.next_batch(iter(range(100, 200)), None, executor.get_version)
    assert [group["info"][0].key for group in batch] == [0, 1, 2]


def test_evicted_prompts_are_generated_again_and_their_places_given_back():
    executor = FakeExecutor()
    buffer = RingBuffer(Executor(executor), batch_size=BATCH, max_staleness=ETA, freshness="off")
    buffer._fill(iter(range(100)), None)
    executor.start()
    executor.version = ETA + 1  # everything running began one version too early
    batch = buffer.next_batch(iter(range(100, 200)), None, executor.get_version)
    assert all(oldest_version(group) == ETA + 1 for group in batch)
    assert buffer.counts["evicted"] == (ETA + 1) * BATCH
    assert {int(group["info"][0].sample_id) for group in batch} <= set(range(9)), (
        "old prompts come again first"
    )
    assert executor.staleness_manager.get_stats().accepted == BATCH, "only what was consumed still counts"


def test_a_prompt_that_always_takes_too_long_is_given_up():
    executor = FakeExecutor()
    buffer = RingBuffer(Executor(executor), batch_size=1, max_staleness=ETA, max_attempts_per_batch=3)
    original = executor.finish

    def finish(index, **kwargs):
        data, versions = executor.running[index]
        if data["prompt"] == 0:
            versions[0] = executor.version - ETA - 1
        original(index, **kwargs)

    executor.finish = finish
    executor.version = 10
    executor.staleness_manager.on_version_recovered(10)
    consumed = [
        buffer.next_batch(prompts, None, executor.get_version)[0]["info"][0].sample_id
        for prompts in [iter(range(100))]
        for _ in range(6)
    ]
    assert consumed == ["1", "2", "3", "4", "5", "6"]
    assert (buffer.counts["evicted"], buffer.counts["given_up"]) == (3, 1)
    assert "0" not in map(str, buffer.state_dict()["undelivered"])


def test_groups_without_signal_are_replaced_until_the_data_has_none():
    executor = FakeExecutor()
    buffer = RingBuffer(
        Executor(executor),
        batch_size=BATCH,
        max_staleness=ETA,
        drop_without_signal=True,
        max_attempts_per_batch=2,
    )

    original = executor.finish
    executor.finish = lambda index, **kwargs: original(index, rewards=(1.0, 1.0))
    with pytest.raises(NoSignalError, match="6 groups in a row"):
        buffer.next_batch(iter(range(1000)), None, executor.get_version)
    assert buffer.counts["dropped_without_signal"] == 6


def test_signal_in_between_starts_the_count_again():
    executor = FakeExecutor()
    buffer = RingBuffer(
        Executor(executor),
        batch_size=BATCH,
        max_staleness=ETA,
        drop_without_signal=True,
        max_attempts_per_batch=1,
    )
    rewards = itertools.cycle([(1.0, 1.0), (1.0, 1.0), (0.0, 1.0)])  # BATCH in a row would be too many
    original = executor.finish
    executor.finish = lambda index, **kwargs: original(index, rewards=next(rewards))
    assert len(buffer.next_batch(iter(range(1000)), None, executor.get_version)) == BATCH
    assert buffer.counts["dropped_without_signal"] == 2 * BATCH


def test_a_rollout_that_areal_rejects_is_named():
    executor = FakeExecutor()
    buffer = RingBuffer(Executor(executor), batch_size=1, max_staleness=0)
    executor.wait = lambda *args, **kwargs: [None]
    with pytest.raises(RolloutFailedError, match="AReaL rejected a rollout"):
        buffer.next_batch(iter("abc"), None, executor.get_version)


def test_a_mistake_in_the_data_stops_the_run_and_a_passing_fault_does_not():
    executor = FakeExecutor()
    buffer = RingBuffer(Executor(executor), batch_size=1, max_staleness=0)
    buffer._fill(iter("abc"), None)
    executor.start()
    executor.finish(0, failure="transient")
    assert len(buffer.next_batch(iter("xyz"), None, executor.get_version)) == 1
    assert buffer.counts["failed"] == 1
    buffer._fill(iter("defg"), None)
    executor.version = 1
    executor.start()
    executor.finish(0, failure="data")
    with pytest.raises(RolloutFailedError, match="data"):
        buffer.next_batch(iter("xyz"), None, executor.get_version)


def test_rows_with_wrong_data_are_left_out_until_too_many_come_in_a_row():
    executor, left_out = FakeExecutor(), []
    buffer = RingBuffer(
        Executor(executor),
        batch_size=1,
        max_staleness=0,
        max_attempts_per_batch=3,
        leave_out=lambda prompt, reason: left_out.append((prompt, reason)),
    )
    original, wrong = executor.finish, iter([True, True, False, True, True, True])
    executor.finish = lambda index: original(index, failure="data" if next(wrong) else None)
    prompts = iter("abcdefgh")
    (group,) = buffer.next_batch(prompts, None, executor.get_version)
    assert group["info"][0].sample_id == "c"
    assert left_out == [("a", "data"), ("b", "data")]
    assert buffer.state_dict()["undelivered"] == [], "nor generated again after a restart"
    assert buffer.counts["failed"] == 2
    executor.version = 1
    with pytest.raises(RolloutFailedError, match="data"):
        buffer.next_batch(prompts, None, executor.get_version)
    assert [prompt for prompt, _ in left_out] == ["a", "b", "d", "e"]


def test_signal_needs_a_real_difference():
    assert not has_signal({"rewards": torch.tensor([0.3, 0.3 + 1e-8])})
    assert has_signal({"rewards": torch.tensor([0.3, 0.4])})


def test_an_empty_loader_is_an_error_and_not_a_hang():
    with pytest.raises(ValueError, match="empty"):
        next(Prompts([]))


def test_a_prompt_that_fails_again_and_again_stops_the_run_and_its_places_are_given_back():
    executor = FakeExecutor()
    buffer = RingBuffer(Executor(executor), batch_size=1, max_staleness=0, max_attempts_per_batch=3)
    original, seen = executor.finish, []

    def finish(index):
        seen.append(executor.staleness_manager.get_stats().accepted)
        original(index, failure="transient")

    executor.finish = finish
    with pytest.raises(RolloutFailedError, match="transient"):
        buffer.next_batch(iter("abc"), None, executor.get_version)
    assert seen == [0, 0, 0], "each failure gave its place back before the next attempt"
    assert (buffer.counts["failed"], buffer.counts["submitted"]) == (3, 3)


def test_failures_of_a_prompt_that_was_trained_on_are_forgotten():
    executor = FakeExecutor()
    buffer = RingBuffer(Executor(executor), batch_size=1, max_staleness=0, max_attempts_per_batch=2)
    buffer._fill(iter("abc"), None)
    executor.start()
    executor.finish(0, failure="transient")
    buffer.next_batch(iter("xyz"), None, executor.get_version)
    assert not buffer._failures


def test_evictions_are_no_failures():
    """Seven evictions and one fault that passes: the prompt has failed once, and is generated again."""
    executor = FakeExecutor()
    buffer = RingBuffer(Executor(executor), batch_size=1, max_staleness=0, max_attempts_per_batch=8)
    buffer._fill(iter([{"id": "a"}]), None)
    for _ in range(7):
        executor.start()
        executor.finish(0)
        buffer._ready += [
            Entry(g["info"][0].key, g, oldest_version(g)) for g in buffer._collect() if "info" in g
        ]
        executor.version += 1
        buffer._evict(executor.version, None)
    assert buffer.counts["evicted"] == 7
    executor.start()
    executor.finish(0, failure="transient")
    (group,) = buffer.next_batch(iter("xyz"), None, executor.get_version)
    assert group["info"][0].sample_id == "{'id': 'a'}"
    assert not buffer._evictions


def test_a_prompt_that_stops_the_run_is_named():
    executor = FakeExecutor()
    buffer = RingBuffer(Executor(executor), batch_size=1, max_staleness=0)
    buffer._fill(iter([{"id": "digits-17"}]), None)
    executor.start()
    executor.finish(0, failure="data")
    with pytest.raises(RolloutFailedError, match="sample digits-17: data"):
        buffer.next_batch(iter("xyz"), None, executor.get_version)


def test_groups_without_signal_are_counted_over_all_ranks():
    """Two ranks with equal groups alone: the limit is that of the whole batch, and a group with signal on one of them
    begins the count anew for both.
    """
    streak, executors = LocalStreak(), [FakeExecutor(), FakeExecutor()]
    ranks = [
        RingBuffer(
            Executor(executor),
            batch_size=1,
            max_staleness=ETA,
            drop_without_signal=True,
            max_attempts_per_batch=3,
            dropped=streak,
            num_ranks=2,
        )
        for executor in executors
    ]
    group = {"info": [info(0, "a")]}
    for rank in ranks:
        rank._undelivered[0] = "a"
        rank._on_dropped(group)
    assert streak.count == 2
    assert len(ranks[0].next_batch(iter(range(1000)), None, executors[0].get_version)) == 1
    assert streak.count == 0
    for executor in executors:
        original = executor.finish
        executor.finish = lambda index, original=original: original(index, rewards=(1.0, 1.0))
    ranks[1]._undelivered.clear()
    with pytest.raises(NoSignalError, match="6 groups in a row"):
        ranks[1].next_batch(iter(range(1000)), None, executors[1].get_version)


def test_places_of_dropped_groups_are_given_back():
    executor = FakeExecutor()
    buffer = RingBuffer(Executor(executor), batch_size=BATCH, max_staleness=ETA, drop_without_signal=True)
    rewards = itertools.cycle([(1.0, 1.0), (0.0, 1.0)])
    original = executor.finish
    executor.finish = lambda index: original(index, rewards=next(rewards))
    buffer.next_batch(iter(range(1000)), None, executor.get_version)
    assert executor.staleness_manager.get_stats().accepted == BATCH


def test_groups_without_signal_stay_unless_it_is_asked_for():
    executor = FakeExecutor()
    buffer = RingBuffer(Executor(executor), batch_size=BATCH, max_staleness=ETA)
    original = executor.finish
    executor.finish = lambda index: original(index, rewards=(1.0, 1.0))
    assert len(buffer.next_batch(iter(range(1000)), None, executor.get_version)) == BATCH


def test_a_buffer_in_use_is_not_restored_and_a_stale_group_is_never_handed_out():
    executor = FakeExecutor()
    buffer = RingBuffer(Executor(executor), batch_size=1, max_staleness=0)
    buffer._fill(iter("abc"), None)
    with pytest.raises(RuntimeError, match="before it is used"):
        buffer.load_state_dict(buffer.state_dict())
    executor.start()
    executor.finish(0)
    executor.version = 1
    buffer._evict = lambda *_: None
    with pytest.raises(RuntimeError, match="group 0 is 1 versions old, eta is 0"):
        buffer.next_batch(iter("xyz"), None, executor.get_version)


def test_an_epoch_may_be_empty_once_where_a_run_resumes_at_its_end():
    epochs = iter([[], [["a", "b"]], [["c"]]])

    class Loader:
        def __iter__(self):
            return iter(next(epochs))

    prompts = Prompts(Loader())
    assert [next(prompts) for _ in range(3)] == ["a", "b", "c"]
    epochs = iter([[], []])
    with pytest.raises(ValueError, match="empty after filtering"):
        next(Prompts(Loader()))
