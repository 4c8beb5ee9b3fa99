"""Just in time: a simulated trainer and servers, on a clock of their own."""

import heapq
import itertools
import random

import pytest

from trains.freshness import JustInTime

BATCH, ETA = 16, 4


class Simulation:
    """Steps of one second; groups take `seconds()` each to generate, `places` at a time."""

    def __init__(self, seconds, *, places=10**6, pace=None):
        self.seconds, self.places, self.pace = seconds, places, pace
        self.now, self.numbers = 0.0, itertools.count()
        self.ready, self.waiting, self.running = [], [], []
        self.gaps, self.targets = [], []

    @property
    def target(self):
        return self.pace.target if self.pace else (ETA + 1) * BATCH

    def start(self, now, version):
        while self.waiting and len(self.running) < self.places:
            self.waiting.pop()
            heapq.heappush(self.running, (now + self.seconds(), version))

    def run(self, num_steps):
        """Seconds a step and mean gap of the second half."""
        ends = []
        for version in range(num_steps):
            asked, trained_until = self.now, self.now
            outstanding = len(self.ready) + len(self.waiting) + len(self.running)
            self.waiting += [None] * max(0, self.target - outstanding)
            self.start(self.now, version)
            while len(self.ready) < BATCH:
                trained_until = max(trained_until, self.finish_one(version))
            self.now = trained_until
            self.gaps.append([version - born for born in self.ready[:BATCH]])
            del self.ready[:BATCH]
            waited, self.now = self.now - asked, self.now + 1.0
            while self.running and self.running[0][0] <= self.now:
                self.finish_one(version)
            if self.pace:
                self.pace.observe(waited, waited + 1.0)
            ends.append(self.now)
            self.targets.append(self.target)
        half = num_steps // 2
        gaps = [gap for step in self.gaps[half:] for gap in step]
        return (ends[-1] - ends[half - 1]) / (num_steps - half), sum(gaps) / len(gaps)

    def finish_one(self, version):
        end, born = heapq.heappop(self.running)
        self.ready.append(born)
        self.start(end, version)
        return end


def both(make_seconds, **options):
    """(seconds a step, gap) with the capacity always filled, and just in time."""
    full = Simulation(make_seconds(), **options).run(600)
    return full, Simulation(make_seconds(), pace=JustInTime(BATCH, (ETA + 1) * BATCH), **options).run(600)


def spread(low, high):
    def make():
        generator = random.Random(0)
        return lambda: generator.uniform(low, high)

    return make


@pytest.mark.parametrize(
    ("low", "high", "gap"), [(0.1, 0.5, 1.2), (0.3, 0.95, 1.2), (1.1, 1.9, 2.4), (0.5, 2.5, 3.0)]
)
def test_the_smallest_gap_that_costs_no_throughput(low, high, gap):
    (full_seconds, full_gap), (seconds, fresh_gap) = both(spread(low, high))
    assert full_gap > 3.5
    assert fresh_gap <= gap
    assert seconds <= full_seconds * 1.02


def test_slow_servers_are_kept_as_busy_as_without():
    (full_seconds, _), (seconds, _) = both(
        spread(0.5, 1.5), places=8
    )  # 8 places finish half a batch a second
    assert full_seconds > 1.9
    assert seconds <= full_seconds * 1.02


def test_a_slow_phase_is_followed_and_left_again():
    pace = JustInTime(BATCH, (ETA + 1) * BATCH)
    phase = {"seconds": 0.5}
    simulation = Simulation(lambda: phase["seconds"], pace=pace)
    simulation.run(40)
    assert pace.target == 2 * BATCH
    phase["seconds"] = 2.5
    simulation.run(60)
    assert pace.target >= 3.5 * BATCH
    phase["seconds"] = 0.5
    simulation.run(300)
    assert pace.target == 2 * BATCH


@pytest.mark.parametrize(("eta", "floor"), [(0, 1), (1, 2), (4, 2)])
def test_the_bounds(eta, floor):
    pace = JustInTime(BATCH, (eta + 1) * BATCH)
    assert pace.target == floor * BATCH
    for _ in range(200):
        pace.observe(1.0, 1.0)
    assert pace.target == (eta + 1) * BATCH
    for _ in range(2000):
        pace.observe(0.0, 1.0)
    assert pace.target == floor * BATCH


def test_the_first_step_waits_in_any_case():
    pace = JustInTime(BATCH, (ETA + 1) * BATCH)
    pace.observe(100.0, 100.0)
    for _ in range(4):
        pace.observe(0.0, 1.0)
    assert pace.target == 2 * BATCH
