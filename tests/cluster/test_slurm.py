"""`python -m areal.launcher.slurm` against real slurmctld and slurmd: two nodes, every way in which a job can end."""

import os
import re
import signal
import subprocess
import time

import psutil
import pytest

from tests.cluster.launches import NAMED_WITHIN_SECONDS, Launch, leftovers, records

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
LONG = "total_train_steps=10000"


@pytest.fixture
def launch(slurm, overrides):
    """Start a launch; ended with the test."""
    started = []

    def start(*more, variables=None, **options):
        environment = {**slurm, "FOR_WORKERS": "a value, with a comma", **(variables or {})}
        started.append(Launch("slurm", [*overrides, *more], environment, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def ask(slurm):
    """Run one of Slurm's commands; what it prints."""

    def run(*command):
        return subprocess.run(
            command, env={**os.environ, **slurm}, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    return run


def job_id(run, name, *, count=1):
    return run.until(rf"submitted {name} as Slurm job (\d+), log: ", count=count)[1]


def assert_nothing_left(ask, folder):
    assert not ask("squeue", "-h").strip()
    assert not leftovers(folder)


def test_it_trains_with_two_jobs_on_two_nodes(launch, ask, runs, tmp_path):
    run = launch("total_train_steps=3")
    server = run.until(r"started llm_server:0 on (\w+) \(pid (\d+)\), log: (.*)")
    trainer = run.until(r"started trainer:0 on (\w+) \(pid (\d+)\), log: (.*)")
    assert {server[1], trainer[1]} == {"alpha", "beta"}
    for start in (server, trainer):
        assert psutil.Process(int(start[2])).environ()["FOR_WORKERS"] == "a value, with a comma"
        assert os.readlink(f"/proc/{start[2]}/cwd") == os.getcwd()
        assert str(runs) in start[3]
    jobs = [job_id(run, name) for name in ("llm_server", "trainer")]
    assert set(ask("squeue", "-h", "-o", "%i").split()) == set(jobs)
    assert run.end() == 0, run.text
    assert all(os.path.getsize(start[3]) > 0 for start in (server, trainer))
    assert [record["step"] for record in records(runs)] == [1, 2, 3]
    assert max(record["parity_max"] for record in records(runs)) < 1e-4
    for step in (1, 2, 3):
        assert run.until(rf"\[grpo\] step {step}/3")
    assert_nothing_left(ask, tmp_path)


def test_a_killed_trainer_is_submitted_again_and_goes_on(launch, ask, runs, tmp_path):
    run = launch(
        "total_train_steps=16",  # enough that the run is still there when it is killed
        "valid_dataset=null",
        "recover.mode=on",
        "recover.freq_steps=1",
        "recover.retries=1",
    )
    run.until(r"\[grpo\] step 2/")
    rank = next(
        p
        for p in psutil.Process(run.pid("trainer")).children(recursive=True)
        if re.search(r"python\S* (-u )?trains/grpo\.py", " ".join(p.cmdline()))
    )
    rank.kill()
    run.until(
        r"trainer \(Slurm job \d+, \w+\) exited with status \d+ on \w+; its log: ", NAMED_WITHIN_SECONDS
    )
    assert job_id(run, "trainer", count=2) != job_id(run, "trainer")
    assert run.end() == 0, run.text
    assert [record["step"] for record in records(runs)] == list(range(1, 17))
    assert_nothing_left(ask, tmp_path)


def test_scancel_from_outside_is_named(launch, ask, tmp_path):
    run = launch(LONG)
    run.until(r"\[grpo\] step 1/")
    ask("scancel", job_id(run, "llm_server"))
    run.until(r"llm_server \(Slurm job \d+, \w+\) was cancelled \(scancel\); its log: ", NAMED_WITHIN_SECONDS)
    assert run.end(90) == 1
    assert_nothing_left(ask, tmp_path)


def test_a_time_limit_is_named_and_does_not_count_as_success(launch, ask, tmp_path):
    run = launch(LONG, variables={"SBATCH_TIMELIMIT": "1"})
    run.until(r"(llm_server|trainer) \(Slurm job \d+, \w+\) ran into its time limit; its log: ", 240)
    assert run.end(90) == 1
    assert_nothing_left(ask, tmp_path)


def test_ctrl_c_cancels_what_runs_and_what_waits(launch, ask, tmp_path):
    run = launch(LONG)
    run.pid("llm_server")
    began = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    assert run.end(90) == 130
    assert time.monotonic() - began < NAMED_WITHIN_SECONDS
    assert_nothing_left(ask, tmp_path)
    holder = ask(
        "sbatch", "--parsable", "--nodes=2", "--gres=gpu:1", "--output=/dev/null", "--wrap=sleep 300"
    ).strip()
    try:
        run = launch("trial_name=again")
        run.until(r"llm_server \(Slurm job \d+\) waits: (Resources|Priority)")
        run.process.send_signal(signal.SIGTERM)
        assert run.end(90) == 143
        assert ask("squeue", "-h", "-o", "%i").split() == [holder]
    finally:
        ask("scancel", holder)


def test_what_slurm_refuses_is_said(launch, ask, tmp_path):
    run = launch("cluster.n_gpus_per_node=2", "allocation_mode=sglang:d2+fsdp:d2")
    assert run.end() == 2
    assert run.until(r"sbatch refused llm_server: .*Requested node configuration is not available")
    nobody = launch(variables={"PATH": "/nowhere"})
    assert nobody.end() == 2
    assert nobody.until("Slurm's sbatch, squeue, scancel, scontrol not found")
    assert_nothing_left(ask, tmp_path)
