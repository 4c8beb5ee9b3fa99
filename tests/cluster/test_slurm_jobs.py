"""The Slurm launcher's jobs on real daemons with small programs in the place of servers and trainers."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from areal.launcher import cluster, slurm_jobs

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
SHAPE = {"n_gpus_per_node": 1, "cpus_per_task": 1, "mem_per_task": 500, "container_image": ""}


@pytest.fixture
def launcher(slurm, tmp_path, monkeypatch):
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FROM_SHELL", "a b,c")
    made = slurm_jobs.SupervisedSlurmLauncher("experiment", "trial", str(tmp_path / "two words"), "none")
    made.program = tmp_path / "program.py"
    yield made
    made.stop_all()


def submit(launcher, name, script, count=1, **more):
    launcher.program = launcher.program.with_name(f"{name}.py")
    launcher.program.write_text(script)
    launcher.submit_array(
        job_name=name, cmd=[f"python3 {launcher.program} {i}" for i in range(count)], count=count, nodes=count,
        **{**SHAPE, **more},
    )  # fmt: skip


def waited(launcher):
    with pytest.raises(cluster.JobException) as failure:
        launcher.wait()
    return failure.value.reason.name


def test_tasks_on_two_nodes_find_each_other(launcher, capsys):
    script = (
        "import os, sys\n"
        "print('task', sys.argv[1], os.environ['SLURMD_NODENAME'], os.environ['PLACE'], os.environ['FROM_SHELL'],\n"
        "      os.environ['LIST'], os.environ['CUDA_VISIBLE_DEVICES'], flush=True)\n"
    )
    env = [{"PLACE": "${master_addrs[0]}:${master_ports[0]}", "LIST": f"{i},b c"} for i in range(2)]
    submit(launcher, "trainer", script, count=2, env_vars=env)
    launcher.wait()
    lines = sorted(
        line for line in (launcher.folder / "trainer.log").read_text().splitlines() if line.startswith("task")
    )
    first, second = (line.split(" ", 3) for line in lines)
    assert {first[2], second[2]} == {"alpha", "beta"}
    assert first[3].startswith("127.0.0.1:")
    assert first[3].split(" ", 1)[1] == "a b,c 0,b c 0"
    assert second[3] == first[3].replace("a b,c 0,b c", "a b,c 1,b c"), "both were told the same place"
    assert "started trainer:1 on beta" in capsys.readouterr().out


def test_the_exit_status_of_one_task_ends_the_other(launcher, tmp_path):
    submit(
        launcher,
        "trainer",
        "import sys, time\nsys.argv[1] == '1' and sys.exit(7)\ntime.sleep(1000)\n",
        count=2,
    )
    assert waited(launcher) == "FAILED"
    assert launcher.status == 7
    assert "exited with status 7 on beta; its log: " in launcher.failure
    launcher.stop_all()
    assert not running(tmp_path)


def running(folder):
    deadline = time.monotonic() + 10
    found = True
    while found and time.monotonic() < deadline:
        found = [
            p
            for p in psutil.process_iter(["cmdline"])
            if any(str(folder) in word for word in p.info["cmdline"] or ())
        ]
        time.sleep(0.2)
    return found


def test_what_ends_it_from_outside_is_named(launcher, tmp_path):
    submit(launcher, "llm_server", "import time\ntime.sleep(1000)\n")
    submit(launcher, "trainer", "import time\ntime.sleep(1000)\n")
    jobs = {job.name: number for number, job in launcher.submitted.items()}
    while len(launcher.announced) < 2:
        launcher.check_alive()
        time.sleep(0.2)
    began = time.monotonic()
    subprocess.run(["scancel", str(jobs["trainer"])], check=True)
    assert waited(launcher) == "CANCELLED"
    assert time.monotonic() - began < 30
    assert (
        f"trainer (Slurm job {jobs['trainer']}, beta) was cancelled (scancel); its log: " in launcher.failure
    )
    launcher.stop_all()
    assert not subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout
    assert not running(tmp_path)


def test_a_time_limit_is_named_and_is_no_success(launcher, monkeypatch):
    """AReaL's launcher takes it for an end without fault."""
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")
    submit(launcher, "trainer", "import time\ntime.sleep(1000)\n")
    assert waited(launcher) == "FAILED", "it is submitted again where recover.mode is on"
    assert "ran into its time limit" in launcher.failure
    assert launcher.status == 1


def test_a_killed_process_is_named(launcher):
    submit(launcher, "llm_server", "import time\ntime.sleep(1000)\n")
    while not launcher.announced:
        launcher.check_alive()
        time.sleep(0.2)
    state = launcher.state_of(launcher.job_folder / "llm_server.0.json")
    psutil.Process(state["pid"]).kill()
    assert waited(launcher) == "FAILED"
    assert "was killed by SIGKILL on alpha" in launcher.failure
    assert launcher.status == 137


def test_the_log_is_where_the_message_says(launcher, capsys):
    submit(launcher, "trainer", "print('[grpo] step 1'); print('the last word')\nraise SystemExit(3)\n")
    assert waited(launcher) == "FAILED"
    output = capsys.readouterr()
    log = Path(output.err.split("its log: ")[1].splitlines()[0])
    assert "the last word" in log.read_text()
    assert "the last word" in output.err
    assert "[grpo] step 1" in output.out
    assert sys.executable in log.parent.joinpath("jobs", "trainer.sh").read_text()
