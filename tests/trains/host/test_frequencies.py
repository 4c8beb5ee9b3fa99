"""Counts outlive a restart; how often something is done is what the configuration says now."""

from types import SimpleNamespace

from trains.host.frequencies import Frequency


def every(steps, epochs=None, seconds=None):
    return Frequency.of(SimpleNamespace(freq_epochs=epochs, freq_steps=steps, freq_secs=seconds))


def due(frequency, steps):
    return [step for step in range(1, steps + 1) if frequency.check(epochs=0, steps=1)]


def test_a_changed_frequency_counts_on_a_resume_and_the_count_goes_on():
    before = every(5)
    assert due(before, 7) == [5]
    same, more_often, rarer, never = every(5), every(3), every(8), every(None)
    for frequency in (same, more_often, rarer, never):
        frequency.load_state_dict(before.state_dict())
    assert due(same, 9) == [3, 8]
    assert due(more_often, 9) == [1, 4, 7]
    assert due(rarer, 9) == [6]
    assert due(never, 9) == []


def test_a_frequency_that_was_not_there_counts_too():
    before = every(None)
    assert due(before, 4) == []
    after = every(2)
    after.load_state_dict(before.state_dict())
    assert due(after, 4) == [1, 3]


def test_due_now_counts_once():
    frequency = every(None)
    frequency.is_due_now = True
    assert due(frequency, 3) == [1]
