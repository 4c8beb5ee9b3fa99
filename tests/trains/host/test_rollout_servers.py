"""The rollout client and what stands in for servers, over HTTP: one dies in the middle, and nothing is lost."""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from areal.api import ModelRequest, RolloutWorkflow, WeightUpdateMeta
from areal.api.cli_args import GenerationHyperparameters, InferenceEngineConfig
from areal.launcher import live
from areal.launcher.servers import PORTS, find_free_ports

from trains.config import BufferConfig
from trains.host import servers
from trains.host.rollout import BoundedRollout

SERVER = """
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
asked = []
class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(asked)
    def do_POST(self):
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "null")
        asked.append([self.path, content if self.path.startswith("/update") else None])
        if self.path != "/generate":
            return self.answer({})
        time.sleep(0.3)
        meta = {"finish_reason": {"type": "stop"}, "output_token_logprobs": [[-1.0, int(sys.argv[1])]]}
        self.answer({"meta_info": meta})
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Server).serve_forever()
"""


class OneAnswer(RolloutWorkflow):
    async def arun_episode(self, engine, data):
        request = ModelRequest(
            rid=str(data["key"]),
            input_ids=[1, 2, 3],
            gconfig=GenerationHyperparameters(max_new_tokens=1, n_samples=1),
            metadata={"segments": []},
        )
        response = await engine.agenerate(request)
        return {"key": data["key"], "by": response.output_tokens[0], "segments": request.metadata["segments"]}


class Fleet:
    """Processes, and the launcher's file about them."""

    def __init__(self, folder):
        self.folder, self.processes, self.lost = folder, {}, 0
        (folder / "server.py").write_text(SERVER)

    def start(self):
        (port,) = find_free_ports(1, PORTS)
        self.processes[port] = subprocess.Popen([sys.executable, self.folder / "server.py", str(port)])
        deadline = time.monotonic() + 20
        while self.asked(port) is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.publish()
        return port

    def kill(self, port):
        process = self.processes.pop(port)
        process.kill()
        process.wait()
        self.lost += 1
        self.publish()

    def publish(self):
        ready = [f"127.0.0.1:{port}" for port in self.processes]
        live.write(self.folder / "servers.json", {"ready": ready, "all": ready, "lost": self.lost})

    def asked(self, port):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/asked", timeout=1) as response:
                return json.load(response)
        except OSError:
            return None


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    folder = live.make(tmp_path)
    monkeypatch.setenv(live.VARIABLE, str(folder))
    monkeypatch.setattr(servers, "POLL_SECONDS", 0.05)
    fleet = Fleet(folder)
    yield fleet
    for port in list(fleet.processes):
        fleet.kill(port)


@pytest.fixture
def rollout(fleet):
    fleet.ports = [fleet.start(), fleet.start()]
    config = InferenceEngineConfig(
        experiment_name="e", trial_name="t", consumer_batch_size=8, max_head_offpolicyness=1, request_retries=1,
        max_concurrent_rollouts=16, request_timeout=30,
    )  # fmt: skip
    rollout = BoundedRollout(config, BufferConfig(), [])
    rollout.initialize(train_data_parallel_size=1)
    yield rollout
    rollout.destroy()


def answers(rollout, count):
    found, deadline = [], time.monotonic() + 40
    while len(found) < count:
        assert time.monotonic() < deadline, found
        found += rollout.executor.finished(1.0)
    return found


def paths(fleet, port):
    return [path for path, _ in fleet.asked(port)]


def test_rollouts_weights_and_a_server_that_dies_and_comes_back(rollout, fleet, tmp_path):
    first, second = fleet.ports
    weights = [
        WeightUpdateMeta(type="disk", path=str(tmp_path / f"weight_update_v{v}"), version=v) for v in (1, 2)
    ]
    for meta in weights:
        Path(meta.path).mkdir()
    rollout.keep_servers(WeightUpdateMeta(type="disk"))
    for key in range(4):
        rollout.executor.submit({"key": key, "prompt": None}, OneAnswer())
    assert {answer["by"] for answer in answers(rollout, 4)} == {first, second}, "in turn"

    for key in range(4, 8):
        rollout.executor.submit({"key": key, "prompt": None}, OneAnswer())
    threading.Timer(0.15, fleet.kill, [first]).start()
    found = answers(rollout, 4)
    assert sorted(answer["key"] for answer in found) == [4, 5, 6, 7], "none lost, none twice"
    assert {answer["by"] for answer in found} == {second}, "what the dead one had begun, too"
    assert all(answer["segments"] == [(3, 0)] for answer in found)

    rollout.pause()
    with rollout.keeper.hand_over(weights[0], through_disk=True):
        rollout.pause_generation()
        rollout.load_weights(weights[0])
        rollout.continue_generation()
    rollout.set_version(1)
    rollout.resume()
    assert paths(fleet, second)[-5:] == [
        "/abort_request",
        "/pause_generation",
        "/flush_cache?timeout=60",
        "/update_weights_from_disk",
        "/continue_generation",
    ]

    new = fleet.start()
    deadline = time.monotonic() + 20
    while f"127.0.0.1:{new}" not in rollout.servers.serving:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [path for path in paths(fleet, new) if path != "/generate"] == ["/update_weights_from_disk"]
    assert fleet.asked(new)[0][1]["model_path"] == weights[0].path
    for key in range(8, 12):
        rollout.executor.submit({"key": key, "prompt": None}, OneAnswer())
    assert {answer["by"] for answer in answers(rollout, 4)} == {second, new}

    with rollout.keeper.hand_over(weights[1], through_disk=True):
        threading.Timer(0.0, fleet.kill, [second]).start()
        time.sleep(0.3)
        rollout.load_weights(weights[1])  # goes on with the one that is left
    assert rollout.servers.serving == [f"127.0.0.1:{new}"]
    assert fleet.asked(new)[-1][1]["model_path"] == weights[1].path
    assert not Path(weights[0].path).exists()
