"""Servers that come and go: requests to those that are there, and the current weights for those that are back.

The local launcher starts a dead server again, at another address (areal.launcher.servers). Then

- rollouts that it had not finished are generated again, from the prompt, by a server that is there;
- the first trainer rank loads the current weights into the new one before any rank sends a request to it;
- a hand-over of weights goes on with the servers that are left, and takes the new one along.

Outside of the local launcher the servers are those of the beginning, as with AReaL alone.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import requests
from areal.api import ModelRequest, ModelResponse, WeightUpdateMeta
from areal.api.io_struct import HttpRequest
from areal.infra import RemoteInfEngine, remote_inf_engine
from areal.infra.utils.http import arequest_with_retry, get_default_connector
from areal.launcher import live
from areal.utils import logging

POLL_SECONDS = 0.2
NOTICE_SECONDS = 15.0  # within which the launcher knows of a dead server
ALL_READY_SECONDS = 1200.0

RESUME_SECONDS = 0.02  # between two looks whether an interrupted request may go on

logger = logging.getLogger("Servers")


class _AsyncioOfTheClient:
    """`asyncio` for AReaL's client, which looks every half second whether the rollout goes on after new weights.

    That is its only sleep. Steps of a small model or of short answers last hardly longer than such a look.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    @staticmethod
    async def sleep(seconds: float) -> None:
        """At most `RESUME_SECONDS`."""
        await asyncio.sleep(min(seconds, RESUME_SECONDS))


remote_inf_engine.asyncio = _AsyncioOfTheClient()


class Membership:
    """Which servers there are; read from the launcher's and the first rank's files (areal.launcher.live)."""

    def __init__(self) -> None:
        folder = live.folder_here()
        self.folder = folder
        self._fixed: list[str] = []
        if folder is not None:
            self._servers = live.Reader(folder / "servers.json", {"ready": [], "all": [], "lost": 0})
            self._serving = live.Reader(folder / "serving.json", {"addresses": None})

    @property
    def num_lost(self) -> int:
        """Servers that died since the start."""
        return 0 if self.folder is None else self._servers.read()["lost"]

    @property
    def ready(self) -> list[str]:
        """Servers that are healthy, with whatever weights."""
        return self._fixed if self.folder is None else self._servers.read()["ready"]

    @property
    def serving(self) -> list[str]:
        """Servers that are healthy and have the current weights."""
        if self.folder is None:
            return self._fixed
        known, ready = self._serving.read()["addresses"], self.ready
        return ready if known is None else [address for address in known if address in ready]

    @property
    def are_waiting(self) -> bool:
        """Whether nobody serves, and a server that is ready waits for files with the current weights."""
        return self.folder is not None and self._serving.read().get("waiting", False) and not self.serving

    def begin(self, addresses: list[str]) -> None:
        """The servers where there is no launcher to ask."""
        self._fixed = addresses

    def wait_for_all(self) -> list[str] | None:
        """The addresses of all servers once all are ready; None where there is no launcher to ask.

        Raises TimeoutError after as long as the launcher itself would wait.
        """
        if self.folder is None:
            return None
        deadline = time.monotonic() + ALL_READY_SECONDS
        while time.monotonic() < deadline:
            state = self._servers.read()
            if state["all"] and len(state["ready"]) == len(state["all"]):
                return state["ready"]
            time.sleep(POLL_SECONDS)
        raise TimeoutError(f"not all servers were ready after {ALL_READY_SECONDS:.0f} s")

    def publish(self, addresses: list[str], *, are_waiting: bool = False) -> None:
        """Say which servers have the current weights; the first rank alone does."""
        if self.folder is not None:
            live.write(self.folder / "serving.json", {"addresses": addresses, "waiting": are_waiting})


class ServedEngine(RemoteInfEngine):
    """AReaL's client, whose requests go to the servers that are there."""

    def __init__(self, config: Any, backend: Any):
        self.members = Membership()
        self.targets: list[str] | None = None  # of a hand-over of weights, while it lasts
        super().__init__(config, backend)

    @property
    def addresses(self) -> list[str]:
        """Read wherever AReaL sends something to all servers."""
        return self.members.serving if self.targets is None else self.targets

    @addresses.setter
    def addresses(self, addresses: list[str]) -> None:
        self.members.begin(addresses)

    def choose_server(self) -> str:
        """The next one in turn."""
        serving = self.members.serving
        if not serving:
            raise ConnectionError("no server is there")
        self.server_idx = (self.server_idx + 1) % len(serving)
        return serving[self.server_idx]

    async def agenerate(self, req: ModelRequest) -> ModelResponse:
        """As AReaL's; where the server is lost meanwhile, from the prompt again at another one."""
        while True:
            while not self.members.serving:
                await asyncio.sleep(POLL_SECONDS)
            num_lost = self.members.num_lost
            self._forget_lost()
            try:
                return await super().agenerate(req)
            except (RuntimeError, ValueError, OSError, aiohttp.ClientError, TimeoutError) as error:
                if not await self._was_lost(num_lost):
                    raise
                logger.warning("generated again, its server was lost: %.200r", error)
                if "segments" in req.metadata:
                    req.metadata["segments"].clear()

    def _forget_lost(self) -> None:
        """Requests of one group stay with one server, unless it is gone."""
        serving = self.members.serving
        for rid, address in list(self.rid_to_address.items()):
            if address not in serving:
                del self.rid_to_address[rid]
                self.rid_queue.remove(rid)

    async def _was_lost(self, num_lost: int) -> bool:
        deadline = time.monotonic() + NOTICE_SECONDS
        while self.members.num_lost == num_lost:
            if self.members.folder is None or time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    def _run_request_on_all_servers(self, req: HttpRequest) -> None:
        """As AReaL's; a server that is lost meanwhile is left out."""
        asyncio.run(self._ask_all(req))

    async def _ask_all(self, req: HttpRequest) -> None:
        addresses = list(self.addresses)
        timeout = aiohttp.ClientTimeout(total=self.config.request_timeout)
        async with aiohttp.ClientSession(
            timeout=timeout, read_bufsize=1024 * 1024 * 10, connector=get_default_connector()
        ) as session:
            answers = await asyncio.gather(
                *(
                    arequest_with_retry(
                        session=session,
                        addr=address,
                        endpoint=req.endpoint,
                        payload=req.payload,
                        method=req.method,
                        max_retries=self.config.request_retries,
                        timeout=self.config.request_timeout,
                    )
                    for address in addresses
                ),
                return_exceptions=True,
            )
        for address, answer in zip(addresses, answers, strict=True):
            if not isinstance(answer, BaseException):
                continue
            deadline = time.monotonic() + NOTICE_SECONDS
            while address in self.members.ready:
                if self.members.folder is None or time.monotonic() > deadline:
                    raise answer
                await asyncio.sleep(POLL_SECONDS)
            logger.warning("%s was lost during %s", address, req.endpoint)

    def load_weights(self, meta: WeightUpdateMeta) -> None:
        """Have all servers read the files of `meta`."""
        for request in self.backend.build_disk_weight_update_requests(meta).requests:
            self._run_request_on_all_servers(request)


class Keeper(threading.Thread):
    """Of the first trainer rank: gives servers that are back the current weights, and says who serves."""

    def __init__(self, engine: ServedEngine, meta: WeightUpdateMeta):
        super().__init__(name="server-keeper", daemon=True)
        if meta.path is not None:  # of hand-overs of a process that was killed
            for folder in Path(meta.path).parent.glob("weight_update_v*"):
                shutil.rmtree(folder, ignore_errors=True)
        self.engine, self.members = engine, engine.members
        self.lock = threading.Lock()  # held while weights are handed over
        self.current: WeightUpdateMeta | None = None  # files that hold the current weights
        self.are_first = True  # the weights are still those of `actor.path`
        self._known = list(self.members.serving)
        self._told: set[str] = set()

    @contextmanager
    def hand_over(self, meta: WeightUpdateMeta, *, through_disk: bool) -> Iterator[None]:
        """While servers get the weights of `meta`: all that are ready, or without the disk those that serve."""
        with self.lock:
            ready = list(self.members.ready)
            self.engine.targets = ready if through_disk else list(self.members.serving)
            try:
                yield
            finally:
                done, self.engine.targets = self.engine.targets, None
            earlier, self.current = self.current, meta if through_disk else None
            self.are_first = False
            self._publish(done)
            if earlier is not None and earlier.path != meta.path:
                shutil.rmtree(earlier.path, ignore_errors=True)

    def stage(self, meta: WeightUpdateMeta) -> None:
        """Files with the current weights are there now (nothing was handed over)."""
        with self.lock:
            self.current = meta
            self.members.publish(self._known)

    def close(self) -> None:
        """The run is over: nobody needs the files any more."""
        with self.lock:
            if self.current is not None:
                shutil.rmtree(self.current.path, ignore_errors=True)

    def run(self) -> None:
        """The thread's body."""
        while True:
            time.sleep(POLL_SECONDS)
            with self.lock:
                for address in [a for a in self.members.ready if a not in self._known]:
                    self._welcome(address)

    def _welcome(self, address: str) -> None:
        if self.current is None and not self.are_first:
            if address not in self._told:
                self._told.add(address)
                print(f"[grpo] server {address} waits for weights, which come through the disk", flush=True)
                self.members.publish(self._known, are_waiting=True)
            return
        try:
            if self.current is not None:
                self._load(address, self.current)
        except requests.RequestException as error:
            logger.warning("%s did not take the weights: %r", address, error)
            return  # tried again, if it is still there
        self._publish([*self._known, address])

    def _load(self, address: str, meta: WeightUpdateMeta) -> None:
        for request in self.engine.backend.build_disk_weight_update_requests(meta).requests:
            response = requests.request(
                request.method, f"http://{address}{request.endpoint}", json=request.payload, timeout=600
            )
            response.raise_for_status()

    def _publish(self, addresses: list[str]) -> None:
        known = [address for address in addresses if address in self.members.ready]
        version = 0 if self.current is None else self.current.version
        for address in known:
            if address not in self._known:
                print(f"[grpo] server {address} serves with the weights of version {version}", flush=True)
        self._known = known
        self.members.publish(self._known)
