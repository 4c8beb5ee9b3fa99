"""`python -m areal.launcher.ray` on two real raylets: one serves, one trains; every way in which a run can end."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.cluster.launches import NAMED_WITHIN_SECONDS, Launch, below, leftovers, records

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
HOSTS = r"127\.0\.0\.\d"


@pytest.fixture
def launch(raylets, overrides):
    """Start a launch on the raylets; ended with the test."""
    started = []

    def start(*more, variables=None, **options):
        environment = {
            "RAY_ADDRESS": raylets.address,
            "FOR_WORKERS": "a value, with a comma",
            **(variables or {}),
        }
        started.append(Launch("ray", [*overrides, *more], environment, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


def assert_nothing_left(raylets, folder):
    assert not leftovers(folder)
    assert raylets.is_given_back()


def variable(pid, name):
    return psutil.Process(pid).environ().get(name)


def test_it_trains_over_two_nodes(launch, raylets, runs, tmp_path):
    run = launch("total_train_steps=3")
    server, trainer = (
        run.until(rf"started {name}:0 on ({HOSTS}) \(pid (\d+)\)") for name in ("llm_server", "trainer")
    )
    assert {server[1], trainer[1]} == {"127.0.0.2", "127.0.0.3"}
    assert variable(int(server[2]), "FOR_WORKERS") == "a value, with a comma"
    assert variable(int(trainer[2]), "FOR_WORKERS") == "a value, with a comma"
    assert os.readlink(f"/proc/{trainer[2]}/cwd") == os.getcwd(), "the project's folder, not the raylet's"
    assert run.end() == 0, run.text
    assert "the trainer finished" in run.text
    assert [record["step"] for record in records(runs)] == [1, 2, 3]
    assert max(record["parity_max"] for record in records(runs)) < 1e-4
    for step in (1, 2, 3):
        assert run.until(rf"\[grpo\] step {step}/3")
    log = next(runs.rglob("llm_server.log")).read_text()
    assert f"host='{server[1]}'" in log or server[1] in log
    assert_nothing_left(raylets, tmp_path)


def test_it_goes_on_after_a_killed_trainer_and_a_killed_raylet(launch, raylets, runs, tmp_path):
    run = launch(
        "total_train_steps=20",  # enough that the run is still there when it is killed
        "valid_dataset=null",
        "recover.mode=on",
        "recover.freq_steps=1",
        "recover.retries=2",
        variables={"AREAL_LAUNCHER_WAIT_SECONDS": "300"},
    )
    run.until(r"\[grpo\] step 2/")
    psutil.Process(run.pid("trainer")).kill()
    run.until(
        r"trainer:0 was killed by SIGKILL; its log: .*/two words/runs/logs/.*trainer\.log",
        NAMED_WITHIN_SECONDS,
    )
    second = run.pid("trainer", count=2)
    assert psutil.pid_exists(second)
    run.until(r"\[grpo\] step 4/")
    raylets.kill("127.0.0.3")
    run.until(r"(trainer|llm_server):0 was lost with 127\.0\.0\.3", 2 * NAMED_WITHIN_SECONDS)
    raylets.remove("127.0.0.3")
    raylets.add("127.0.0.3", tmp_path)
    assert run.end(600) == 0, run.text
    assert [record["step"] for record in records(runs)] == list(range(1, 21))
    samples = [sample for record in records(runs) for sample in record["sample_ids"]]
    assert len(set(samples)) == len(samples), "a prompt was trained on twice"
    assert_nothing_left(raylets, tmp_path)


def test_a_dead_server_is_named_and_everything_ends(launch, raylets, tmp_path):
    run = launch("total_train_steps=10000")
    run.until(r"\[grpo\] step 1/")
    below(run.pid("llm_server"), "sglang::scheduler").kill()
    run.until(
        r"\[launcher\] llm_server:0 lost its process \d+ \(sglang::scheduler\S*; its log: ",
        NAMED_WITHIN_SECONDS,
    )
    assert run.end(60) == 1
    assert_nothing_left(raylets, tmp_path)


def test_the_exit_status_is_the_trainers(launch, raylets, tmp_path):
    """An entry script of one's own, which fails behind a server that is well."""
    Path("trains/fails.py").write_text("import sys\nprint('[grpo] for people', flush=True)\nsys.exit(7)\n")
    try:
        run = launch("total_train_steps=3", entry="trains/fails.py")
        assert run.end() == 7, run.text
    finally:
        Path("trains/fails.py").unlink()
    assert run.until("for people")
    assert run.until(r"trainer:0 exited with status 7; its log: ")
    assert_nothing_left(raylets, tmp_path)


def test_ctrl_c_in_training_and_sigterm_while_the_server_starts(launch, raylets, tmp_path):
    run = launch("total_train_steps=10000")
    run.until(r"\[grpo\] step 1/")
    began = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    assert run.end(60) == 130
    assert time.monotonic() - began < NAMED_WITHIN_SECONDS
    assert_nothing_left(raylets, tmp_path)
    run = launch("trial_name=again")
    run.pid("llm_server")
    run.process.send_signal(signal.SIGTERM)
    assert run.end(60) == 143
    assert_nothing_left(raylets, tmp_path)


def test_what_the_cluster_lacks_is_said(launch, raylets):
    run = launch(
        "cluster.n_gpus_per_node=2",
        "allocation_mode=sglang:d2+fsdp:d2",  # two whole nodes
        variables={"AREAL_LAUNCHER_WAIT_SECONDS": "3"},
    )
    assert run.end() == 2
    assert run.until(r"wanted 1 node\(s\) with 2 GPU, .* free for llm_server; Ray has 127.0.0.2 \(1 GPU")
    nobody = launch(variables={"RAY_ADDRESS": "127.0.0.2:1"})
    assert nobody.end() == 2
    assert nobody.until("no Ray cluster")
    assert raylets.is_given_back()


def test_a_dry_run_names_the_nodes(launch):
    run = launch("--dry-run")
    assert run.end() == 0
    assert run.until("processes that ray would start")
    assert run.until("trainer rank 0: node 1")
