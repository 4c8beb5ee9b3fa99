"""Asks judges over HTTP: one thread with an event loop of its own per process, so that no step ever waits on a socket.

Every score has a deadline, waiting for its turn included. What comes of a stall or an error is a status of its own,
`judge_timeout` or `judge_error`, never a score of 0 that looks like a judgement.
"""

import asyncio
import atexit
import logging
import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import aiohttp

from reward.reading.judge_text import cache_key, read_reply, request_body
from reward.types import Verdict

logger = logging.getLogger(__name__)

BACKOFF_SECONDS = 0.25
MAX_REPLY_BYTES = 4 << 20
_AGAIN = {408, 409, 425, 429}  # and every 5xx


class JudgeFailed(Exception):
    """The judge gave no score; the message says why."""


class Judge:
    """One client for all endpoints. `submit` from any thread."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._session: aiohttp.ClientSession | None = None
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._sent: Counter[str] = Counter()  # requests by url, for the budget
        self._running: dict[str, asyncio.Task[bytes]] = {}
        self._logged: set[str] = set()
        threading.Thread(target=self._loop.run_forever, name="reward-judge", daemon=True).start()

    def submit(
        self, params: Mapping[str, Any], references: Sequence[str], answer: str, completion: str
    ) -> Future[Verdict]:
        """Ask, or look up, one question; a verdict comes by the deadline, whatever the judge does."""
        return asyncio.run_coroutine_threadsafe(
            self._verdict(params, references, answer, completion), self._loop
        )

    def close(self) -> None:
        """Close the connections; whoever still waits hears nothing more."""
        if self.pid == os.getpid() and self._session is not None:
            asyncio.run_coroutine_threadsafe(self._session.close(), self._loop).result(5.0)

    async def _verdict(
        self, params: Mapping[str, Any], references: Sequence[str], answer: str, completion: str
    ) -> Verdict:
        body = request_body(params, references, answer, completion)
        key = cache_key(params, body)
        file = Path(params["cache_dir"], key[:2], key + ".json") if params["cache_dir"] else None
        try:
            if file is not None and file.exists():
                self.counters["judge_cached"] += 1
                return read_reply(file.read_bytes(), params)
            async with asyncio.timeout(params["deadline_seconds"]):
                reply = await self._once(key, params, body)
            verdict = read_reply(reply, params)
        except TimeoutError:
            self.counters["judge_timeouts"] += 1
            return Verdict(0.0, "judge_timeout", trace=(f"no reply in {params['deadline_seconds']:g} s",))
        except (JudgeFailed, ValueError) as error:
            self.counters["judge_errors"] += 1
            self._log(f"{params['url']}: {error}")
            return Verdict(0.0, "judge_error", trace=(str(error),))
        if file is not None:
            _keep(file, reply)
        return verdict

    async def _once(self, key: str, params: Mapping[str, Any], body: bytes) -> bytes:
        """The reply to a question; the same question asked meanwhile waits for the same reply."""
        if key not in self._running:
            task = asyncio.ensure_future(self._ask(params, body))
            self._running[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(self._running[key])

    def _finished(self, key: str, task: asyncio.Task[bytes]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # nobody may wait for it any more

    async def _ask(self, params: Mapping[str, Any], body: bytes) -> bytes:
        url, last = params["url"], ""
        turn = self._turns.setdefault(url, asyncio.Semaphore(int(params["concurrency"])))
        for attempt in range(int(params["retries"]) + 1):
            if attempt:
                await asyncio.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
            async with turn:
                if params["budget"] is not None and self._sent[url] >= params["budget"]:
                    raise JudgeFailed(f"the budget of {params['budget']} requests is spent")
                self._sent[url] += 1
                self.counters["judge_requests"] += 1
                try:
                    status, reply = await self._post(params, body)
                except TimeoutError:
                    last = f"no reply in {params['timeout_seconds']:g} s"
                    continue
                except (aiohttp.ClientError, OSError) as error:
                    last = f"{type(error).__name__}: {error}"
                    continue
            if status == 200:
                return reply
            last = f"status {status}: {reply[:200].decode('utf-8', 'replace')}"
            if status < 500 and status not in _AGAIN:
                break
        raise JudgeFailed(last)

    async def _post(self, params: Mapping[str, Any], body: bytes) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        headers = {"Content-Type": "application/json"}
        if params["api_key_variable"]:
            headers["Authorization"] = f"Bearer {os.environ[params['api_key_variable']]}"
        timeout = aiohttp.ClientTimeout(total=params["timeout_seconds"])
        async with self._session.post(params["url"], data=body, headers=headers, timeout=timeout) as reply:
            content = bytearray()
            async for chunk in reply.content.iter_chunked(1 << 16):
                content += chunk
                if len(content) > MAX_REPLY_BYTES:
                    raise JudgeFailed(f"a reply of more than {MAX_REPLY_BYTES} bytes")
            return reply.status, bytes(content)

    def _log(self, text: str) -> None:
        if len(self._logged) < 20 and text not in self._logged:
            self._logged.add(text)
            logger.error("a judge gave no score: %s", text)


def _keep(file: Path, reply: bytes) -> None:
    """Whole or absent, for several processes at once; not synced to the disk, which would take longer than a judge."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.write_bytes(reply)
    temporary.replace(file)


_judge: Judge | None = None
_lock = threading.Lock()


def the_judge() -> Judge:
    """The judge client of this process, made at first use."""
    global _judge  # noqa: PLW0603
    with _lock:
        if _judge is None or _judge.pid != os.getpid():
            _judge = Judge()
            atexit.register(_judge.close)
        return _judge


def counters() -> dict[str, int]:
    """judge_requests, judge_cached, judge_timeouts and judge_errors since the start, those that are not 0."""
    return dict(_judge.counters) if _judge is not None else {}
