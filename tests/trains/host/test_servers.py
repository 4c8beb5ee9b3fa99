"""The trainer's side of servers that come and go; the launcher's files are written by hand."""

import asyncio
import inspect
from types import SimpleNamespace

import pytest
from areal.api import WeightUpdateMeta
from areal.api.io_struct import HttpRequest, WeightUpdateRequests
from areal.infra import RemoteInfEngine, remote_inf_engine
from areal.launcher import live

from trains.host import servers
from trains.host.servers import Keeper, ServedEngine
from trains.turns import Turns

A, B, NEW = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"


class Backend:
    def build_disk_weight_update_requests(self, meta):
        return WeightUpdateRequests(requests=[HttpRequest("/load", {"model_path": meta.path})])


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.setenv(live.VARIABLE, str(live.make(tmp_path)))
    monkeypatch.setattr(servers, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(servers, "NOTICE_SECONDS", 0.1)
    engine = ServedEngine(SimpleNamespace(request_timeout=1, request_retries=1), Backend())
    healthy(engine, [A, B])
    assert engine.members.wait_for_all() == [A, B]
    return engine


def healthy(engine, ready, lost=0, all_servers=None):
    state = {"ready": ready, "all": all_servers or ready, "lost": lost}
    live.write(engine.members.folder / "servers.json", state)


def disk(tmp_path, version):
    folder = tmp_path / f"weight_update_v{version}"
    folder.mkdir()
    return WeightUpdateMeta(type="disk", path=str(folder), version=version)


def request(rid="a"):
    return SimpleNamespace(rid=rid, metadata={"segments": []})


def answered_by(engine, monkeypatch, dies=()):
    """AReaL's own `agenerate`, reduced to its choice of a server; the ones of `dies` are lost while they answer."""

    async def agenerate(self, req):
        address = self.rid_to_address.get(req.rid) or self.choose_server()
        self.rid_to_address[req.rid] = address
        self.rid_queue.append(req.rid)
        req.metadata["segments"].append((3, 7))
        if address in dies:
            healthy(engine, [a for a in self.members.ready if a != address], self.members.num_lost + 1)
            raise RuntimeError("Failed after 3 retries each.")
        return address

    monkeypatch.setattr(RemoteInfEngine, "agenerate", agenerate)


@pytest.mark.parametrize("dead", [A, B])
def test_a_rollout_of_a_lost_server_is_generated_again_by_another_one(dead, engine, monkeypatch):
    answered_by(engine, monkeypatch, dies=[dead])
    requests = [request("a"), request("b")]
    other = B if dead == A else A
    assert [asyncio.run(engine.agenerate(r)) for r in requests] == [other, other]
    assert all(r.metadata["segments"] == [(3, 7)] for r in requests), (
        "from the prompt: no token of the lost one"
    )


def test_without_any_server_requests_wait(engine, monkeypatch):
    answered_by(engine, monkeypatch)
    healthy(engine, [], lost=2)

    async def both():
        waiting = asyncio.create_task(engine.agenerate(request()))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        healthy(engine, [NEW], lost=2)
        return await waiting

    assert asyncio.run(both()) == NEW


def test_an_error_of_a_server_that_lives_is_an_error(engine, monkeypatch):
    async def agenerate(self, req):
        raise RuntimeError("Failed after 3 retries each.")

    monkeypatch.setattr(RemoteInfEngine, "agenerate", agenerate)
    with pytest.raises(RuntimeError, match="3 retries"):
        asyncio.run(engine.agenerate(request()))


def test_a_server_gets_the_current_weights_before_anybody_asks_it(engine, tmp_path, monkeypatch):
    keeper, asked, loaded = Keeper(engine, disk(tmp_path, 0)), [], []
    assert not (tmp_path / "weight_update_v0").exists(), "what a killed process had left is removed"
    monkeypatch.setattr(engine, "_run_request_on_all_servers", lambda r: asked.append(list(engine.addresses)))
    monkeypatch.setattr(keeper, "_load", lambda address, meta: loaded.append((address, meta.version)))
    first, second = disk(tmp_path, 1), disk(tmp_path, 2)
    with keeper.hand_over(first, through_disk=True):
        engine.load_weights(first)
    healthy(engine, [A], lost=1)
    assert engine.addresses == [A]
    healthy(engine, [A, NEW], lost=1)
    assert engine.addresses == [A], "it has other weights"
    keeper._welcome(NEW)
    assert loaded == [(NEW, 1)]
    assert engine.addresses == [A, NEW]
    assert (tmp_path / "weight_update_v1").exists(), "kept for servers that come back"
    healthy(engine, [NEW], lost=2)
    healthy(engine, [B, NEW], lost=2)
    with keeper.hand_over(second, through_disk=True):
        engine.load_weights(second)
    assert asked == [[A, B], [B, NEW]], "a hand-over takes those along that are ready"
    assert engine.addresses == [B, NEW]
    assert not (tmp_path / "weight_update_v1").exists()
    keeper.close()
    assert not (tmp_path / "weight_update_v2").exists()


def test_without_files_a_server_waits_for_them(engine, tmp_path, monkeypatch):
    keeper, loaded = Keeper(engine, WeightUpdateMeta(type="xccl")), []
    monkeypatch.setattr(keeper, "_load", lambda address, meta: loaded.append((address, meta.version)))
    with keeper.hand_over(WeightUpdateMeta(type="xccl", version=1), through_disk=False):
        assert engine.addresses == [A, B]
    healthy(engine, [A, NEW], lost=1)
    keeper._welcome(NEW)
    assert engine.addresses == [A]
    assert not engine.members.are_waiting, "somebody serves; the next hand-over is through the disk"
    healthy(engine, [NEW], lost=2)
    assert engine.members.are_waiting, "nobody is left: the trainer has to write the weights now"
    keeper.stage(disk(tmp_path, 1))
    assert not engine.members.are_waiting
    keeper._welcome(NEW)
    assert loaded == [(NEW, 1)]
    assert engine.addresses == [NEW]


def test_outside_of_the_launcher_the_servers_are_those_of_the_beginning(monkeypatch):
    monkeypatch.delenv(live.VARIABLE, raising=False)
    engine = ServedEngine(SimpleNamespace(), Backend())
    assert engine.members.wait_for_all() is None
    engine.addresses = [A, B]
    assert engine.addresses == [A, B]
    assert {engine.choose_server(), engine.choose_server()} == {A, B}
    assert engine.members.num_lost == 0


def test_turns_are_taken_in_the_order_of_keys_one_at_a_time():
    turns, done, under_way = Turns(), [], []
    for key in (0, 1, 2, 3):
        turns.expect(key)

    async def take(key):
        async with turns.of(key):
            under_way.append(key)
            assert len(under_way) == 1
            await asyncio.sleep(0.01)
            under_way.remove(key)
            done.append(key)
            if key == 1:
                raise RuntimeError("a turn that fails is over, too")

    async def everybody():
        return await asyncio.gather(*(take(key) for key in (3, 1, 0, 2)), return_exceptions=True)

    results = asyncio.run(everybody())
    assert done == [0, 1, 2, 3]
    assert [type(result) for result in results] == [type(None), RuntimeError, type(None), type(None)]


def test_an_interrupted_request_goes_on_soon_after_the_weights(monkeypatch):
    """AReaL looks every half second, in which a small model answers a whole batch."""
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(remote_inf_engine.asyncio.sleep(0.5))
    assert slept == [servers.RESUME_SECONDS]
    assert remote_inf_engine.asyncio.run is asyncio.run
    assert "asyncio.sleep" in inspect.getsource(remote_inf_engine.RemoteInfEngine.agenerate)
