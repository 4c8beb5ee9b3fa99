"""The Ray launcher's jobs on real raylets with small programs in the place of servers and trainers."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray
from areal.launcher import cluster, ray_jobs

from tests.cluster.launches import ROOT, leftovers
from tests.cluster.raylets import Raylets

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
SLEEP = "import time\ntime.sleep(1000)\n"


@pytest.fixture
def launcher(raylets, tmp_path, monkeypatch):
    monkeypatch.setenv("FROM_SHELL", "a b,c")
    monkeypatch.setenv("AREAL_LAUNCHER_WAIT_SECONDS", "60")
    ray.init(address=raylets.address, log_to_driver=False, logging_level="ERROR")
    made = ray_jobs.SupervisedRayLauncher("experiment", "trial", str(tmp_path / "two words"))
    made.program = tmp_path / "program.py"
    yield made
    made.stop_all()
    ray.shutdown()


def submit(launcher, name, script, count=1, nodes=1, **more):
    program = launcher.program.with_name(f"{name}.py")
    program.write_text(script)
    launcher.submit_array(
        job_name=name, file_path=str(program), func_name="main", count=count, nodes=nodes,
        list_args=[[[str(i)]] for i in range(count)], gpus_per_task=1, cpus_per_task=1, mem_per_task=500, **more,
    )  # fmt: skip


def waited(launcher):
    with pytest.raises(cluster.JobException) as failure:
        launcher.wait()
    return failure.value.reason.name


def states(launcher):
    """What the nodes have said, once all have."""
    paths = [job.state for job in launcher.jobs.values()]
    while not all(launcher.state_of(path) for path in paths):
        launcher.check_alive()
        time.sleep(0.2)
    return [launcher.state_of(path) for path in paths]


def test_ranks_on_two_nodes_and_what_reaches_them(launcher, raylets, capsys, tmp_path):
    script = (
        "import os, sys\n"
        "print('[grpo] rank', sys.argv[1], os.environ['RANK'], os.environ['FROM_SHELL'], os.getcwd(), flush=True)\n"
        "print('host', os.environ['AREAL_SERVER_HOST'], os.environ['MASTER_ADDR'])\n"
    )

    def hook(group):
        host, port = ray_jobs.master_address(group)
        assert port > 0
        return [{"RANK": str(i), "MASTER_ADDR": host} for i in range(2)]

    submit(launcher, "trainer", script, count=2, nodes=2, env_hook=hook)
    launcher.wait()
    logs = [(launcher.folder / name).read_text() for name in ("trainer.log", "trainer.1.log")]
    assert all(f"[grpo] rank {i} {i} a b,c {ROOT}" in log for i, log in enumerate(logs))
    hosts = [log.split("host ")[1].split() for log in logs]
    assert {own for own, _ in hosts} == {"127.0.0.2", "127.0.0.3"}
    assert {master for _, master in hosts} == {hosts[0][0]}
    assert "[grpo] rank 0 0" in capsys.readouterr().out
    launcher.stop_all()
    assert raylets.is_given_back()


def test_the_exit_status_and_the_log(launcher, capsys):
    submit(launcher, "trainer", "print('the reason')\nraise SystemExit(7)\n")
    assert waited(launcher) == "FAILED"
    assert launcher.status == 7
    output, error = capsys.readouterr()
    assert "started trainer:0 on 127.0.0." in output
    assert "trainer:0 exited with status 7; its log: " in error
    assert "the reason" in Path(error.split("its log: ")[1].splitlines()[0]).read_text()


def test_a_server_that_ends_is_a_failure(launcher):
    submit(launcher, "llm_server", "pass\n")
    assert waited(launcher) == "FAILED"
    assert "llm_server:0 exited with status 0" in launcher.failure
    assert launcher.status == 1


def test_stopping_ends_processes_and_gives_everything_back(launcher, raylets, tmp_path):
    submit(launcher, "llm_server", SLEEP)
    submit(launcher, "trainer", SLEEP)
    pids = [state["pid"] for state in states(launcher)]
    began = time.monotonic()
    launcher.stop_all()
    assert time.monotonic() - began < ray_jobs.STOP_SECONDS, "no job had to be forced"
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not leftovers(tmp_path)
    assert raylets.is_given_back()


def test_a_killed_raylet_takes_its_job_along_and_another_node_takes_its_place(launcher, raylets, tmp_path):
    submit(launcher, "llm_server", SLEEP)
    submit(launcher, "trainer", SLEEP)
    on = {state["host"]: state["pid"] for state in states(launcher)}
    began = time.monotonic()
    raylets.kill("127.0.0.3")
    assert waited(launcher) == "FAILED"
    assert time.monotonic() - began < 30
    assert "was lost with 127.0.0.3" in launcher.failure
    launcher.stop_all()
    raylets.remove("127.0.0.3")
    assert not leftovers(tmp_path)
    assert not psutil.pid_exists(on["127.0.0.3"])
    raylets.add("127.0.0.3", tmp_path)
    submit(launcher, "llm_server", SLEEP)
    submit(launcher, "trainer", SLEEP)  # waits for the new node
    assert {state["host"] for state in states(launcher)} == {"127.0.0.2", "127.0.0.3"}


def test_nodes_that_are_not_there_are_named(launcher, raylets, monkeypatch):
    monkeypatch.setattr(launcher, "_wait_seconds", 3.0)
    with pytest.raises(
        cluster.CannotStart, match=r"wanted 3 node\(s\) with 1 GPU, .*; Ray has 127.0.0.2 \(1 GPU"
    ):
        submit(launcher, "trainer", SLEEP, count=3, nodes=3)
    assert raylets.is_given_back()


PYTHON = (sys.executable, "-W", "ignore", "-c")
WAITS = {
    "for its jobs": "launcher.wait",
    "in a question to the head": "lambda: [ray.nodes() for _ in iter(int, 1)]",
}


@pytest.mark.parametrize("waits", WAITS)
def test_a_dead_head_ends_the_launcher_with_a_message(short_folder, tmp_path, waits):
    """Ray itself would end this process after a minute, without a word."""
    from tests.cluster.slurm_daemons import free_ports

    own = Raylets(short_folder / f"head{len(waits)}", free_ports(1)[0], head="127.0.0.4")
    try:
        own.add("127.0.0.4", tmp_path)
        own.wait(1)
        program = tmp_path / "program.py"
        program.write_text(SLEEP)
        driver = subprocess.Popen(
            [*PYTHON, DRIVER, own.address, str(tmp_path / "runs"), str(program), WAITS[waits]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )
        assert any("started" in line for line in driver.stdout)
        own.remove("127.0.0.4")
        output = driver.communicate(timeout=120)[0]
        assert "trainer:0 was lost with" in output
        if waits != "for its jobs":  # else the job's own end may be seen first
            assert f"its head {own.address} does not answer; {ray_jobs.REPEAT}" in output
        assert driver.returncode == 1, output
        assert not leftovers(program)
    finally:
        own.close()


DRIVER = """
import os, sys, time, ray
from areal.launcher import cluster, ray_jobs
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
launcher = ray_jobs.SupervisedRayLauncher("experiment", "trial", sys.argv[2])
launcher.submit_array(
    "trainer", file_path=sys.argv[3], func_name="main", count=1, nodes=1, list_args=[[[]]], gpus_per_task=1,
    cpus_per_task=1, mem_per_task=500,
)
while not launcher.announced:
    launcher.check_alive()
    time.sleep(0.1)
with ray_jobs.watched_head(launcher, sys.argv[1]):
    status = cluster.supervise(eval(sys.argv[4]), lambda: launcher)
sys.stdout.flush()
os._exit(status)
"""
