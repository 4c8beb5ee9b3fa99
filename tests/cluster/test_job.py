"""The process that runs a job on its node: how it ended, and what it refuses. No cluster is needed for that."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from areal.launcher import job


def start(tmp_path, script, **more):
    """The process of `job.py` with a Python program as its command."""
    program = tmp_path / "program.py"
    program.write_text(script)
    (tmp_path / "witness").touch()
    description = {
        "name": "trainer:0",
        "argv": [sys.executable, str(program)],
        "cwd": str(tmp_path),
        "env": {"FROM_LAUNCHER": "a b,c"},
        "drop": ["RAY_"],
        "log": str(tmp_path / "a log.txt"),
        "state": str(tmp_path / "state.json"),
        "witness": str(tmp_path / "witness"),
        "host": "127.0.0.9",
        "with_parent": False,
        **more,
    }
    variables = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    process = subprocess.Popen(
        [sys.executable, "-P", job.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**variables, "RAY_JOB_ID": "1"},
    )
    process.stdin.write(json.dumps(description))
    process.stdin.close()
    return process


def state(tmp_path):
    return json.loads((tmp_path / "state.json").read_text())


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_status_environment_and_log(tmp_path):
    process = start(
        tmp_path,
        "import os, sys\n"
        "print(os.environ['FROM_LAUNCHER'], os.environ['AREAL_SERVER_HOST'], 'RAY_JOB_ID' in os.environ, os.getcwd())\n"
        "sys.exit(7)\n",
    )
    assert process.wait(30) == 7
    assert f"a b,c 127.0.0.9 False {tmp_path}" in (tmp_path / "a log.txt").read_text()
    assert state(tmp_path)["how"] == "exited with status 7"


def test_a_signal_is_named(tmp_path):
    process = start(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert process.wait(30) == 128 + signal.SIGKILL
    assert state(tmp_path)["how"] == "was killed by SIGKILL"


def test_being_stopped_takes_everything_along(tmp_path):
    """A child in a session of its own that ignores SIGTERM, too."""
    process = start(
        tmp_path,
        "import signal, subprocess, sys, time\n"
        "child = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); "
        "time.sleep(1000)'\n"
        "subprocess.Popen([sys.executable, '-c', child], start_new_session=True)\n"
        "time.sleep(1000)\n",
    )
    until(lambda: (tmp_path / "a log.txt").exists() and "\n1\n" in (tmp_path / "a log.txt").read_text())
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) == 2
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert not [p for p in below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert state(tmp_path)["stopped"]


def test_a_killed_worker_takes_everything_along(tmp_path):
    """Ray's worker kills its child with SIGKILL when it ends."""
    process = start(
        tmp_path,
        "import subprocess, time\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "print('up', flush=True)\ntime.sleep(1000)\n",
        with_parent=True,
    )
    until(lambda: (tmp_path / "a log.txt").exists() and "\nup\n" in (tmp_path / "a log.txt").read_text())
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) == 3
    process.kill()
    process.wait()
    until(lambda: not [p for p in below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE])
    assert state(tmp_path)["stopped"]


def test_a_server_without_its_scheduler_is_dead(tmp_path):
    """SGLang itself goes on, mute."""
    process = start(
        tmp_path,
        "import multiprocessing, setproctitle, time\n"
        "def scheduler():\n"
        "    setproctitle.setproctitle('sglang::scheduler')\n"
        "    time.sleep(1000)\n"
        "multiprocessing.Process(target=scheduler).start()\n"
        "print('up', flush=True)\n"
        "time.sleep(1000)\n",
        name="llm_server:0",
    )

    def scheduler():
        found = psutil.Process(process.pid).children(recursive=True)
        return next((p for p in found if "sglang::scheduler" in " ".join(p.cmdline())), None)

    until(scheduler)
    time.sleep(2 * job.INNER_SECONDS)  # it has to be seen alive first
    scheduler().kill()
    assert process.wait(30) == 1
    assert "lost its process" in state(tmp_path)["how"]
    assert "sglang::scheduler" in state(tmp_path)["how"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"cwd": "/nowhere"}, "it has no folder /nowhere; the project must lie on a file system"),
        ({"argv": ["/nowhere/python", "x"]}, "it has no /nowhere/python; the environment must lie"),
        ({"witness": "/nowhere/witness"}, "it does not see /nowhere/witness"),
    ],
)
def test_a_node_that_cannot_run_it_says_why(more, message, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "SHARED_SECONDS", 0.0)
    description = {
        "argv": [sys.executable],
        "cwd": str(tmp_path),
        "env": {},
        "drop": [],
        "witness": str(tmp_path),
        **more,
    }
    with pytest.raises(job.NodeUnusable, match=message):
        job.prepare(description)


def test_tasks_of_a_slurm_step_meet_in_the_shared_folder(tmp_path, monkeypatch):
    """Every task gets its own command and variables, with the addresses of all filled in."""
    monkeypatch.setattr(job, "address", lambda: "127.0.0.5")
    for name, value in {"SLURM_JOB_ID": "12", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "witness").touch()
    (tmp_path / "12.0.address").write_text("127.0.0.4 4000")
    description = {
        "argv": [["/nowhere"], [sys.executable, "second"]],
        "env": [
            {},
            {"MASTER": "${master_addrs[0]}:${master_ports[0]} ${master_addrs[1]}", "LIST": "a:1,b:2"},
        ],
        "cwd": str(tmp_path),
        "drop": [],
        "witness": str(tmp_path / "witness"),
    }
    argv, variables = job.prepare(description)
    assert argv == [sys.executable, "second"]
    assert variables["MASTER"] == "127.0.0.4:4000 127.0.0.5"
    assert variables["LIST"] == "a:1,b:2"
    assert (variables["head_node_ip"], variables["trainer_port"]) == ("127.0.0.4", "4000")
    monkeypatch.setattr(job, "MEETING_SECONDS", 0.0)
    (tmp_path / "12.0.address").unlink()
    with pytest.raises(job.NodeUnusable, match="task 0 of 2 did not appear"):
        job.prepare(description)
