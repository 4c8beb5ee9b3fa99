"""The ring buffer under every interleaving of generation, interruption, update, failure and recovery."""

import itertools
import random

import pytest
import torch
from areal.infra.staleness_manager import StalenessManager
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from trains.buffer import (
    Failure,
    NoSignalError,
    Prompts,
    RingBuffer,
    RolloutFailedError,
    has_signal,
    oldest_version,
)
from trains.host.executor import Executor
from trains.host.rollout import BoundedRollout
from trains.types import GroupInfo

BATCH, ETA = 3, 2


def info(key, prompt):
    return GroupInfo(key, str(prompt), "s", "number", "answer", [], [], [], [], [], 0)


class FakeExecutor:
    """AReaL's executor without servers: its own staleness manager, generation when the test says so."""

    def __init__(self, version=0, max_concurrent=64):
        self.version = version
        self.queue, self.running, self.finished = [], [], []
        self.staleness_manager = StalenessManager(self, max_concurrent, BATCH, ETA)
        self.staleness_manager.on_version_recovered(version)

    def get_version(self):
        return self.version

    def submit(self, data, workflow, is_eval):
        self.queue.append(data)
        self.staleness_manager.on_rollout_enqueued()

    def start(self):
        while self.queue and self.staleness_manager.get_capacity() > 0:
            self.running.append((self.queue.pop(0), [self.version]))
            self.staleness_manager.on_rollout_submitted()

    def interrupt(self):
        """A weight update cuts every running answer; its next token comes from the weights at that time."""
        for _, versions in self.running:
            versions.append(self.version)

    def finish(self, index, rewards=(0.0, 1.0), failure=None):
        data, versions = self.running.pop(index)
        self.staleness_manager.on_rollout_accepted()
        if failure is not None:
            self.finished.append({"failure": Failure(data["key"], failure, failure == "data")})
            return
        self.finished.append(
            {
                "versions": torch.tensor([[-1, -1, *versions]]),
                "rewards": torch.tensor(rewards),
                "info": [info(data["key"], data["prompt"])],
            }
        )

    def wait(self, count, timeout=None, raise_timeout=True):
        if not self.finished and timeout:  # a blocking call: let the oldest rollout finish
            self.start()
            if not self.running:
                raise AssertionError("deadlock: nothing is running and nothing may start")
            self.finish(0)
        return [self.finished.pop(0)] if self.finished else []


class FakeLoader:
    """Like torchdata's stateful loader: a batch counts as drawn when it is handed out, whole."""

    rows_per_batch = 4  # not a divisor of anything else here

    def __init__(self, num_batches=0):
        self.num_batches = num_batches

    def __iter__(self):
        while True:
            first = self.num_batches * self.rows_per_batch
            self.num_batches += 1
            yield list(range(first, first + self.rows_per_batch))


def client(buffer, loader):
    """The part of the rollout client that draws prompts and saves state."""
    rollout = BoundedRollout.__new__(BoundedRollout)
    rollout.buffer, rollout._prompts = buffer, Prompts(loader)
    return rollout


class BufferMachine(RuleBasedStateMachine):
    buffer_class = RingBuffer

    def __init__(self):
        super().__init__()
        self.consumed = []
        self.executor = FakeExecutor()
        self.buffer = self.new_buffer()
        self.loader = FakeLoader()
        self.client = client(self.buffer, self.loader)

    def new_buffer(self):
        return self.buffer_class(
            Executor(self.executor), batch_size=BATCH, max_staleness=ETA, max_attempts_per_batch=1000
        )

    @rule(which=st.integers(0, 20))
    def generate_one_out_of_order(self, which):
        self.executor.start()
        if self.executor.running:
            self.executor.finish(which % len(self.executor.running))

    @rule()
    def a_rollout_fails(self):
        self.executor.start()
        if self.executor.running:
            self.executor.finish(0, failure="transient")

    @rule()
    def train(self):
        batch = self.buffer.next_batch(self.client._prompts, None, self.executor.get_version)
        assert len(batch) == BATCH
        for group in batch:
            gap = self.executor.version - oldest_version(group)
            assert 0 <= gap <= ETA, f"consumed a token {gap} versions old"
            self.consumed.append(group["info"][0].sample_id)
        self.executor.version += 1
        self.executor.interrupt()

    @rule()
    def weights_change_without_training(self):
        self.executor.version += 1
        self.executor.interrupt()

    @rule()
    def crash_and_recover(self):
        state = self.client.state_dict()
        self.executor = FakeExecutor(self.executor.version)
        self.buffer = self.new_buffer()
        self.loader = FakeLoader(self.loader.num_batches)
        self.client = client(self.buffer, self.loader)
        self.client.load_state_dict(state)
        assert self.executor.staleness_manager.get_capacity() <= (ETA + 1) * BATCH, "a burst after recovery"

    @invariant()
    def nothing_is_consumed_twice(self):
        assert len(self.consumed) == len(set(self.consumed))

    @invariant()
    def no_prompt_is_lost(self):
        undelivered = set(map(str, self.client.state_dict()["undelivered"]))
        drawn = range(self.loader.num_batches * self.loader.rows_per_batch)
        assert undelivered | set(self.consumed) == set(map(str, drawn))
        assert not undelivered & set(self.consumed)

    @invariant()
    def the_ring_is_bounded(self):
        open_groups = len(self.executor.queue) + len(self.executor.running) + len(self.executor.finished)
        assert open_groups + self.buffer.num_ready <= (ETA + 1) * BATCH


SETTINGS = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestBuffer = BufferMachine.TestCase
TestBuffer.settings = SETTINGS


def machine_with(bug):
    return type("Buggy", (BufferMachine,), {"buffer_class": bug})


class OffByOne(RingBuffer):
    """Evicts one version too late, and so does its own check at run time."""

    def __init__(self, *args, max_staleness, **kwargs):
        super().__init__(*args, max_staleness=max_staleness + 1, **kwargs)


class LooksAtYesterday(RingBuffer):
    def next_batch(self, prompts, workflow, get_version):
        return super().next_batch(prompts, workflow, lambda: get_version() - 1)


class ForgetsEvicted(RingBuffer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs, resubmit_evicted=False)


@pytest.mark.parametrize("bug", [OffByOne, LooksAtYesterday, ForgetsEvicted])
def test_the_machine_finds_injected_bugs(bug):
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine_with(bug), settings=SETTINGS)


def test_oldest_prompts_are_consumed_first():
    executor = FakeExecutor()
    buffer = RingBuffer(Executor(executor), batch_size=BATCH, max_staleness=ETA)
    buffer._fill(iter(range(100)), None)
    executor.start()
    for index in (5, 3, 3, 0, 0, 0):  # finish out of order
        executor.finish(index)
    batch = buffer.next_batch(iter(range(100, 200)), None, executor.get_version)
    assert [group["info"][0].key for group in batch] == [0, 1, 2]


def test_evicted_prompts_are_generated_again_and_their_places_given_back():
    executor = FakeExecutor()
    buffer = RingBuffer(Executor(executor), batch_size=BATCH, max_staleness=ETA)
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


def test_signal_needs_a_real_difference():
    assert not has_signal({"rewards": torch.tensor([0.3, 0.3 + 1e-8])})
    assert has_signal({"rewards": torch.tensor([0.3, 0.4])})


def test_an_empty_loader_is_an_error_and_not_a_hang():
    with pytest.raises(ValueError, match="empty"):
        next(Prompts([]))


def test_random_long_runs_keep_the_bound():
    """A thousand steps with stragglers: some prompts take many versions to finish."""
    generator = random.Random(0)
    executor = FakeExecutor()
    buffer = RingBuffer(Executor(executor), batch_size=BATCH, max_staleness=ETA)
    prompts = iter(range(10**6))
    for _ in range(1000):
        executor.start()
        for _ in range(generator.randrange(5)):
            if executor.running:
                executor.finish(generator.randrange(len(executor.running)))
        batch = buffer.next_batch(prompts, None, executor.get_version)
        assert all(executor.version - oldest_version(group) <= ETA for group in batch)
        executor.version += 1
        executor.interrupt()
    assert buffer.counts["consumed"] == 1000 * BATCH
    assert buffer.counts["evicted"] > 0  # otherwise this run would not have tested the bound


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
    assert not buffer._attempts


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
