"""The launcher's side of a server that dies: started again, elsewhere, and only so often."""

import json
import subprocess
import sys
import time

import pytest
from areal.launcher import live, servers

SERVER = """
import subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
helper = subprocess.Popen(["sleep", "1000"])
class Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Healthy).serve_forever()
"""


@pytest.fixture
def two(tmp_path):
    """Two servers that were started by somebody else and are ready, as `Servers`; what was said."""
    script, folder, said = tmp_path / "server.py", live.make(tmp_path), []
    script.write_text(SERVER)
    first = []
    for port in servers.find_free_ports(2, servers.PORTS):
        argv = [sys.executable, str(script), "--port", str(port)]
        first.append(subprocess.Popen(argv))
        noted = {
            "pid": first[-1].pid,
            "address": f"127.0.0.1:{port}",
            "argv": argv,
            "environment": {"MARK": "1"},
        }
        (folder / f"server-{port}.json").write_text(json.dumps(noted))
        until(lambda port=port: servers.answers(f"http://127.0.0.1:{port}/health", 1.0))
    both = servers.Servers(folder, tmp_path / "log", {"PATH": "/usr/bin:/bin"}, 2, said.append)
    both.adopt()
    both.said = said
    yield both
    for server in both:
        servers.end(server.tree())
    for process in first:
        process.kill()
        process.wait()


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def published(both):
    return live.Reader(both.folder / "servers.json", None).read()


def recover(both):
    def is_back():
        both.watch()
        return all(server.is_ready for server in both)

    until(is_back)


@pytest.mark.parametrize("victim", ["main", "helper"])
def test_a_dead_server_comes_back_elsewhere_and_the_other_one_stays(victim, two):
    dead, other = two
    address, processes = dead.address, dead.tree()
    assert published(two) == {
        "ready": [address, other.address],
        "all": [address, other.address],
        "lost": 0,
    }
    (dead.process if victim == "main" else dead.inner[0]).kill()
    until(lambda: dead.fault() is not None)
    two.watch()
    assert published(two)["ready"] == [other.address]
    assert published(two)["lost"] == 1
    assert not [p for p in processes if servers.is_alive(p)], "nothing of it is left"
    recover(two)
    assert dead.address != address, "a request for the dead one cannot reach the new one"
    assert published(two)["ready"] == [dead.address, other.address]
    assert dead.process.environ()["MARK"] == "1"
    assert "started again (1 of 2)" in two.said[0]
    assert "is ready" in two.said[1]
    assert dead.inner


def test_a_server_that_dies_too_often_is_lost(two):
    dead, _ = two
    for _ in range(2):
        dead.process.kill()
        until(lambda: dead.fault() is not None)
        recover(two)
    dead.process.kill()
    until(lambda: dead.fault() is not None)
    with pytest.raises(servers.ServerLostError, match="max_server_restarts=2 are used up"):
        two.watch()


def test_the_command_line_changes_in_the_port_alone():
    argv = ["python3", "-m", "server", "--port", "10", "--host", "127.0.0.1"]
    assert servers.with_option(argv, "--port", "11") == [*argv[:4], "11", *argv[5:]]
    assert servers.with_option(argv, "--nccl-port", "11") == argv
