"""The pipeline model against timings worked out by hand, and what must hold in every run."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import pipeline_simulation
from utils.doctor.pipeline_model import Group, Server, simulate
from utils.doctor.pipeline_parameters import Parameters, load

# 2 groups of 2 requests of 10 tokens at 0.1 s a token, however many run: rollout 1 s, reward 0.25 s,
# training 2 s, exchange 0.5 s.
FIXED = Parameters(
    num_servers=1,
    num_trainers=1,
    groups_per_step=2,
    group_size=2,
    eta=0,
    decode_seconds=((1, 0.1),),
    train_seconds_per_token=0.0,
    train_fixed_seconds=2.0,
    median_tokens=10,
    sigma_tokens=0.0,
    max_tokens=10,
    reward_seconds=0.25,
    sync_seconds=0.5,
    num_steps=12,
    warmup_steps=4,
)


def test_eta_zero_is_the_synchronous_pipeline():
    result = simulate(FIXED)
    assert result.step_seconds == pytest.approx(1.0 + 0.25 + 2.0 + 0.5)
    assert result.tokens_per_second == pytest.approx(40 / 3.75)
    assert result.tokens_per_group == 20
    assert result.trainer_wait_share == pytest.approx(1.25 / 3.75)
    assert result.server_idle_share == pytest.approx(2.75 / 3.75)
    assert result.frozen_share == pytest.approx(0.5 / 3.75)
    assert set(result.gaps) == {0}
    assert result.evicted == 0


def test_asynchronous_and_trainer_bound_hides_the_rollout():
    """Rollout and reward (1.25 s) fit beside the training (2 s): a step is training plus exchange."""
    result = simulate(replace(FIXED, eta=1))
    assert result.step_seconds == pytest.approx(2.5)
    assert result.trainer_wait_share == pytest.approx(0.0)
    assert set(result.gaps) == {0, 1}


def test_asynchronous_and_rollout_bound_hides_the_training():
    """One request at a time, 4 of 1 s a step: decoding never stops but for the exchange."""
    result = simulate(replace(FIXED, eta=3, max_running_requests=1))
    assert result.step_seconds == pytest.approx(4.0 + 0.5)
    assert result.server_idle_share == pytest.approx(0.5 / 4.5)


def test_trainers_share_the_tokens_of_prompt_and_response():
    """4 responses of 10 and prompts of 90 tokens: 400 tokens at 0.01 s over 2 trainers are 2 s."""
    p = replace(FIXED, train_fixed_seconds=0, train_seconds_per_token=0.01, prompt_tokens=90, num_trainers=2)
    assert simulate(p).step_seconds == pytest.approx(3.75)


def test_contention_slows_decoding_only_while_the_trainer_computes():
    assert simulate(replace(FIXED, contention=3.0)).step_seconds == pytest.approx(3.75)
    bound = replace(FIXED, eta=3, max_running_requests=1, contention=2.0)
    # A step decodes 4 s of work: 2 s of training pass 1 s of it, 3 s more follow, and the exchange.
    assert simulate(bound).step_seconds == pytest.approx(2.0 + 3.0 + 0.5)


def test_the_client_prepares_one_group_after_another():
    """The second group is sent 2 x 0.4 s after the step began: a synchronous step is longer by that much."""
    result = simulate(replace(FIXED, client_seconds=0.4))
    assert result.step_seconds == pytest.approx(3.75 + 0.8)


def test_the_trainer_is_slower_beside_a_decoding_server():
    """One request at a time, 4 of 1 s and an exchange of 0.5 s a step: the training hides, however slow it is."""
    assert simulate(replace(FIXED, train_contention=2.0)).step_seconds == pytest.approx(3.75)
    bound = replace(FIXED, eta=1, train_contention=2.0, decode_seconds=((1, 0.1),))
    # Rollout passes 1 s of the training at half its speed; the other 1.5 s follow alone.
    assert simulate(bound).step_seconds == pytest.approx(1.0 + 1.5 + 0.5)


def test_the_measured_run_is_reproduced():
    """The demo's job on a CPU, both modes, from parts that were measured by themselves (docs/algorithm.md)."""
    scenario = load(Path(pipeline_simulation.__file__).with_name("pipeline_cpu.json"))
    compared = pipeline_simulation.compare(scenario)
    assert [name for name, *_ in compared] == ["async_step_seconds", "sync_step_seconds"]
    assert all(abs(modelled / measured - 1) < 0.15 for _, measured, modelled in compared)


def test_a_server_decodes_its_requests_in_step():
    """3 s a token for two, 1 s for one: tokens 2 and 4 finish at 2 * 3 = 6 and at 6 + 2 * 1 = 8."""
    server = Server(replace(FIXED, decode_seconds=((1, 1.0), (2, 3.0)), max_running_requests=2))
    short, long, third = (Group([], 0, False) for _ in range(3))
    server.queue.extend([(2.0, short), (4.0, long), (5.0, third)])
    server.admit(version=7)
    assert server.seconds_to_next(1.0) == pytest.approx(6.0)
    server.advance(6.0, 1.0)
    assert server.pop_finished() == [short]
    assert server.seconds_to_next(1.0) == pytest.approx(2.0)
    assert (short.oldest_version, third.oldest_version) == (7, None)
    server.advance(2.0, 1.0)
    server.admit(version=8)
    assert server.pop_finished() == [long]
    assert third.oldest_version == 8


def test_prefill_and_interruption_stall_the_server():
    server = Server(replace(FIXED, prefill_seconds=0.5))
    server.queue.append((10.0, Group([], 0, False)))
    server.admit(0)
    assert server.seconds_to_next(1.0) == pytest.approx(0.5 + 1.0)
    server.advance(1.0, 1.0)
    server.interrupt()
    assert server.seconds_to_next(1.0) == pytest.approx(0.5 + 0.5)


def test_a_group_that_outlives_the_bound_is_evicted_and_replaced():
    """One response in a hundred takes 60 s while a step takes 2.5 s: with eta 1 no such group survives."""
    tail = replace(
        FIXED,
        eta=1,
        max_tokens=600,
        measured_tokens=(10,) * 99 + (600,),
        num_steps=100,
        max_running_requests=8,
    )
    strict, loose = simulate(tail), simulate(replace(tail, eta=40))
    assert strict.evicted > 0
    assert loose.evicted == 0
    assert max(strict.gaps) <= 1
    assert max(loose.gaps) > 1
    assert strict.tokens_per_group == 20 < loose.tokens_per_group  # eviction takes the long ones
    assert strict.consumed == loose.consumed == 100 * 2


@settings(max_examples=60, deadline=None)
@given(
    eta=st.integers(0, 5),
    num_servers=st.integers(1, 3),
    group_size=st.integers(1, 4),
    groups_per_step=st.integers(1, 5),
    sigma_tokens=st.floats(0, 2),
    train_fixed_seconds=st.floats(0, 4),
    sync_seconds=st.floats(0, 1),
    reward_seconds=st.floats(0, 3),
    prefill_seconds=st.floats(0, 0.2),
    drop_share=st.sampled_from([0.0, 0.3]),
    max_concurrent_groups=st.integers(1, 12),
    max_running_requests=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_conservation_and_the_staleness_bound(**changes):
    p = replace(FIXED, max_tokens=200, **changes)
    result = simulate(p)
    assert result.consumed == p.num_steps * p.groups_per_step
    accounted = result.consumed + result.evicted + result.dropped + result.ready + result.in_flight
    assert result.submitted == accounted
    assert min(result.gaps) >= 0
    assert max(result.gaps) <= p.eta
    assert sum(result.gaps.values()) == result.consumed
    assert result.submitted - result.evicted - result.dropped <= (p.eta + p.num_steps + 1) * p.groups_per_step
    assert result.step_seconds >= p.train_fixed_seconds + p.sync_seconds - 1e-9
    assert 0 <= result.server_idle_share <= 1 + 1e-9
    if p.eta == 0:
        assert result.evicted == 0


def test_the_same_seed_gives_the_same_run():
    p = replace(FIXED, eta=2, sigma_tokens=1.0, max_tokens=100)
    assert simulate(p) == simulate(p)
    assert simulate(p) != simulate(replace(p, seed=1))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_servers": 0},
        {"eta": -1},
        {"drop_share": 1.0},
        {"contention": 0.5},
        {"warmup_steps": 12},
        {"decode_seconds": ()},
    ],
    ids=str,
)
def test_impossible_parameters_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        replace(FIXED, **changes)


def test_the_shipped_scenario_favours_asynchrony_for_thinking_at_four_plus_four():
    scenario = load(pipeline_simulation.DEFAULT_FILE)
    assert len(scenario.workloads) == 3
    p = replace(scenario.pipeline, num_steps=16, warmup_steps=4)
    asynchronous, synchronous = simulate(p), simulate(pipeline_simulation.synchronous(p))
    assert synchronous.step_seconds / asynchronous.step_seconds > 1.5


def write(path, **changes):
    data = {
        "pipeline": {
            "num_servers": 1,
            "num_trainers": 1,
            "groups_per_step": 2,
            "group_size": 2,
            "eta": 1,
            "decode_seconds": {"1": 0.1},
            "train_seconds_per_token": 0.0,
            "train_fixed_seconds": 2.0,
            "median_tokens": 10,
            "sigma_tokens": 0.0,
            "max_tokens": 10,
            "reward_seconds": 0.25,
            "sync_seconds": 0.5,
        }
    }
    path.write_text(json.dumps(data | changes))
    return path


@pytest.mark.parametrize(("sync_seconds", "status"), [(3.75, 0), (4.3, 0), (5.0, 1)])
def test_the_model_is_compared_with_a_measurement(tmp_path, monkeypatch, capsys, sync_seconds, status):
    measured = {"async_step_seconds": 2.5, "sync_step_seconds": sync_seconds}
    path = write(tmp_path / "measured.json", measured=measured)
    monkeypatch.setattr("sys.argv", ["pipeline_simulation", str(path), "--plots", str(tmp_path / "plots")])
    assert pipeline_simulation.main() == status
    printed = capsys.readouterr().out
    assert "async_step_seconds: measured 2.500, modelled 2.500 (+0.0%)" in printed
    assert "| synchronous 1+1 | 3.8 | 1.50x |" in printed
    for name in ("pipeline_eta.png", "pipeline_split.png"):
        assert (tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG")


def test_unknown_keys_of_a_file_are_named(tmp_path):
    with pytest.raises(ValueError, match="unknown keys piplines"):
        load(write(tmp_path / "a.json", piplines={}))
    with pytest.raises(ValueError, match=r"workloads\.x: unknown keys etta"):
        load(write(tmp_path / "b.json", workloads={"x": {"etta": 1}}))
    scenario = load(write(tmp_path / "c.json", measured={"step": 1.0}))
    with pytest.raises(ValueError, match="unknown keys step"):
        pipeline_simulation.compare(scenario)


def test_colocated_uses_every_gpu_for_both_jobs():
    shared = pipeline_simulation.colocated(replace(FIXED, num_servers=3, eta=4), 5.0)
    assert (shared.num_servers, shared.num_trainers, shared.eta, shared.sync_seconds) == (4, 4, 0, 5.5)


def test_infinite_waiting_is_reported():
    with pytest.raises(RuntimeError, match="stands still"):
        simulate(replace(FIXED, reward_seconds=math.inf))
