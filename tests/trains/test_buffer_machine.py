"""The ring buffer under every interleaving of generation, interruption, update, failure and recovery."""

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.trains.fake_executor import BATCH, ETA, FakeExecutor
from trains.buffer import (
    Prompts,
    RingBuffer,
    oldest_version,
)
from trains.host.executor import Executor
from trains.host.rollout import BoundedRollout


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

    freshness, always = "off", None

    @initialize(freshness=st.sampled_from(["auto", "off"]))
    def begin(self, freshness):
        self.freshness = self.always or freshness
        self.buffer = self.new_buffer()
        self.client = client(self.buffer, self.loader)

    def __init__(self):
        super().__init__()
        self.consumed = []
        self.executor = FakeExecutor()
        self.buffer = self.new_buffer()
        self.loader = FakeLoader()
        self.client = client(self.buffer, self.loader)

    def new_buffer(self):
        return self.buffer_class(
            Executor(self.executor),
            batch_size=BATCH,
            max_staleness=ETA,
            max_attempts_per_batch=1000,
            freshness=self.freshness,
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

    @rule(waited=st.floats(0, 1), steps=st.integers(1, 20))
    def the_pace_changes(self, waited, steps):
        """As after steps that spent this share of their time on waiting."""
        for _ in range(steps if self.buffer.pace else 0):
            self.buffer.pace.observe(waited, 1.0)
        assert 2 * BATCH <= self.buffer.target <= self.buffer.capacity

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
        assert len(self.buffer._undelivered) <= self.buffer.capacity


SETTINGS = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestBuffer = BufferMachine.TestCase
TestBuffer.settings = SETTINGS


def machine_with(bug):
    return type("Buggy", (BufferMachine,), {"buffer_class": bug, "always": "off"})  # a full buffer grows old


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
