"""What hangs is named: a phase that takes too long by the run's own measure, a rank that is mute, a stopped process."""

import json
import signal
import subprocess
import sys
import time

import psutil
import pytest
from areal.launcher import live, watchdog
from areal.launcher.watchdog import HangError, Watchdog

from trains.heartbeat import Heartbeat

FLOOR = 30.0


class Servers:
    """One server, of which it is noted that it was started again."""

    def __init__(self, server, log):
        self.server, self.log, self.restarted = server, log, []

    def __iter__(self):
        return iter([self.server])

    def restart(self, server, reason):
        self.restarted.append(reason)


class Server:
    address, is_ready, processes = "127.0.0.1:1", True, ()

    def tree(self):
        return list(self.processes)


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "1000"])
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


@pytest.fixture
def dog(tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.write_text("what was printed before\n")
    said = []
    dog = Watchdog(live.make(tmp_path), log, Servers(Server(), log), FLOOR, said.append)
    dog.said, dog._servers_seen = said, [(Server.address, True)]
    dog._servers_changed = 0.0
    monkeypatch.setattr(watchdog, "answers", lambda url, seconds: True)
    monkeypatch.setattr(watchdog, "STOPPED_SECONDS", 0.3)
    monkeypatch.setattr(watchdog, "LOOK_SECONDS", 0.0)
    return dog


def beat(dog, pid, phase, *, seconds, longest=None, mute=0.0, rank=0):
    """A rank that got on `seconds` ago and wrote `mute` seconds ago."""
    now = time.monotonic()
    content = {
        "rank": rank, "pid": pid, "phase": phase, "step": 6, "progress": now - seconds,
        "longest": {} if longest is None else {phase: longest}, "written": now - mute, "longest_mute": 1.0,
    }  # fmt: skip
    (dog.folder / f"rank{rank}.json").write_text(json.dumps(content))
    dog._looked = now - 0.001


@pytest.mark.parametrize(
    ("seconds", "longest", "is_hang"),
    [
        (29, 1.0, False),  # below the floor
        (31, 1.0, True),
        (31, 5.0, False),  # the run has needed 5 s, so 50 s are no hang
        (51, 5.0, True),
        (299, None, False),  # nothing is known of the phase: ten times the floor
        (301, None, True),
    ],
)
def test_the_limit_is_learned_from_the_run(seconds, longest, is_hang, dog, sleeper):
    beat(dog, sleeper.pid, "update", seconds=seconds, longest=longest)
    if not is_hang:
        dog.look()
        return
    with pytest.raises(
        HangError, match=rf"rank 0 \(pid {sleeper.pid}\) .* {seconds} s, in phase update of step 7"
    ):
        dog.look()


def test_the_rank_that_is_behind_is_named_first(dog, sleeper):
    beat(dog, sleeper.pid, "update", seconds=40, longest=1.0, rank=0)
    beat(dog, sleeper.pid, "save", seconds=90, longest=1.0, rank=1)
    with pytest.raises(HangError, match=r"rank 1 .* in phase save .*; rank 0 .* in phase update"):
        dog.look()


def test_a_rank_that_runs_no_python_is_named_before_those_that_wait_for_it(dog, sleeper):
    beat(dog, sleeper.pid, "update", seconds=90, longest=1.0, rank=0)
    beat(dog, sleeper.pid, "update", seconds=90, longest=1.0, rank=1, mute=31.0)
    with pytest.raises(HangError, match=r"rank 1 .* has run no Python for 31 s"):
        dog.look()


def test_a_server_that_is_silent_is_started_again_and_the_run_goes_on(dog, sleeper, monkeypatch):
    monkeypatch.setattr(watchdog, "answers", lambda url, seconds: False)
    beat(dog, sleeper.pid, "rollout", seconds=40, longest=1.0)
    dog.look()
    assert dog.servers.restarted == ["hung"]
    assert "HANG: server 127.0.0.1:1 hangs: no answer, while rank 0" in dog.said[0]


def test_waiting_for_a_server_that_comes_back_is_no_hang(dog, sleeper):
    dog.servers.server.is_ready = False
    beat(dog, sleeper.pid, "rollout", seconds=400, longest=1.0)
    dog.look()
    dog.servers.server.is_ready = True
    beat(dog, sleeper.pid, "rollout", seconds=400, longest=1.0)
    dog.look()
    assert not dog.servers.restarted
    beat(dog, sleeper.pid, "update", seconds=400, longest=1.0)
    with pytest.raises(HangError):
        dog.look()


@pytest.mark.parametrize("part", ["server", "rank", "other"])
def test_a_stopped_process_is_named(part, dog, sleeper):
    if part == "server":
        dog.servers.server.processes = (sleeper,)
    if part == "rank":
        beat(dog, sleeper.pid, "exchange", seconds=1, longest=1.0)
    sleeper.send_signal(signal.SIGSTOP)
    if part == "rank":
        wanted = rf"rank 0 \(pid {sleeper.pid}\) is stopped .* in phase exchange of step 7"
        with pytest.raises(HangError, match=wanted):
            look_on(dog)
        return
    look_on(dog)
    assert str(sleeper.pid) in dog.said[0]
    assert dog.servers.restarted == (["hung"] if part == "server" else [])
    if part == "other":
        assert sleeper.status() != psutil.STATUS_STOPPED, "it was told to go on"


def look_on(dog, seconds=10):
    deadline = time.monotonic() + seconds
    while not dog.said and time.monotonic() < deadline:
        dog.look()
        time.sleep(0.05)


def test_traces_come_out_of_the_log(dog, tmp_path):
    script = (
        "import threading, time\n"
        "for _ in range(60): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
        "def waits_for_ever():\n  print('ready', flush=True)\n  time.sleep(1000)\n"
        "waits_for_ever()"
    )
    with dog.trainer_log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", script],
            stdout=subprocess.PIPE,
            stderr=log,
        )
        assert process.stdout.readline() == b"ready\n"
        text = watchdog._traces([psutil.Process(process.pid)], dog.trainer_log)
    process.wait()
    process.stdout.close()
    assert "waits_for_ever" in "".join(text.splitlines()[:4]), "the main thread comes first"
    assert text.count("(most recent call first)") > 10
    assert "what was printed before" not in text


def test_a_heartbeat_knows_what_a_phase_has_needed(monkeypatch):
    clock = iter([0.0, 2.0, 5.0, 6.0, 16.0, 17.0, 18.0]).__next__
    monkeypatch.setattr("trains.heartbeat.time.monotonic", clock)
    heartbeat = Heartbeat()  # 0
    heartbeat.enter("rollout", 3)  # 2
    heartbeat.progress()  # 5
    heartbeat.progress()  # 6
    heartbeat.enter("update")  # 16
    assert heartbeat.longest == {"start": 2.0, "rollout": 10.0}
    content = heartbeat.content()  # 17
    assert (content["phase"], content["step"], content["progress"]) == ("update", 3, 16.0)
    assert content["longest_mute"] == 17.0
