"""Score completions in killable worker processes, from asyncio or from plain code.

    pool = RewardPool()
    output = await pool.score(completion, answer, "svg-code", spec=spec)
    outputs = await pool.score_group(completions, answer, "svg-code", spec=spec)   # the rollouts of one prompt
    pool.close()

Cheap, safe verifiers run where they are called; the others go to persistent workers, which keep the parsed reference
of a prompt for all its rollouts. A worker that exceeds its deadline is killed and replaced (`reward.workers.dispatch`).
One pool serves any number of event loops and threads. docs/rewards_code_sandbox.md describes the processes.
"""

import asyncio
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from reward.reading.judge_text import check
from reward.reading.references import reference_texts
from reward.registry import VERIFIERS
from reward.score import extracted_answer, failed, score_quick, with_verdict
from reward.spec import resolve
from reward.types import RewardOutput, Unavailable, Verdict
from reward.verifiers.custom import is_custom
from reward.workers import judge
from reward.workers.dispatch import Dispatcher, Limits, Task

logger = logging.getLogger(__name__)

_TURN_SECONDS = 0.005  # of a group's cheap judgements before other tasks of the event loop get a turn

_ERRORS: dict[str, type[Exception]] = {"ValueError": ValueError, "Unavailable": Unavailable}
_reported_bugs: set[str] = set()


class RewardPool:
    """A few warm worker processes behind `score` and `score_group`.

    num_workers: workers that share the queue.
    max_workers: processes at most, those counted that are stuck in a task until its deadline.
    slow_after_seconds: a task that has used this much processor time, or four times this much wall time, gives its
        slot to another worker; after four times as much processor time, its priority too.
    headroom_megabytes: address space that a task may use beyond what a fresh worker has.
    recycle_megabytes: growth of a worker's resident memory after which it is replaced.
    scorer: `module:function` that turns a task into a reply inside the worker; the tests replace it.
    """

    def __init__(
        self,
        num_workers: int = 2,
        *,
        max_workers: int = 16,
        slow_after_seconds: float = 0.25,
        headroom_megabytes: int = 1024,
        recycle_megabytes: int = 512,
        scorer: str = "reward.workers.worker:score_task",
    ) -> None:
        if not 1 <= num_workers <= max_workers:
            raise ValueError(f"num_workers: got {num_workers}, wanted 1 to max_workers={max_workers}")
        limits = Limits(
            num_workers, max_workers, slow_after_seconds, headroom_megabytes << 20, recycle_megabytes << 20
        )
        self._pid = os.getpid()
        self._dispatcher = Dispatcher(scorer, limits)
        self._dispatcher.start()
        # Not bound to self: a pool that nobody holds any more is closed by the collector.
        self._finalizer = weakref.finalize(self, _close, self._dispatcher, self._pid)

    async def score(
        self,
        completion: str,
        answer: str | Sequence[str],
        answer_type: str,
        *,
        problem_type: str | None = None,
        prompt_type: str | None = None,
        spec: Mapping[str, Any] | None = None,
        progress: float | None = None,
        num_tokens: int | None = None,
    ) -> RewardOutput:
        """Score one completion without blocking the event loop; arguments as in `reward.score`.

        A timeout or a crash of the worker is a result, with that status. ValueError: the data is wrong.
        Unavailable: this machine lacks what a verifier needs (a sandbox, a browser). RuntimeError: the pool is closed.
        """
        options = _options(problem_type, prompt_type, spec, progress, num_tokens)
        output = score_quick(completion, answer, answer_type, **options)
        if output is not None:
            return output
        reply = await asyncio.wrap_future(self.submit(completion, answer, answer_type, options))
        return read_reply(reply, completion, answer_type, options)

    async def score_group(
        self,
        completions: Sequence[str],
        answer: str | Sequence[str],
        answer_type: str,
        *,
        problem_type: str | None = None,
        prompt_type: str | None = None,
        spec: Mapping[str, Any] | None = None,
        progress: float | None = None,
        num_tokens: Sequence[int] | None = None,
    ) -> list[RewardOutput]:
        """Score the rollouts of one prompt concurrently, in their order; they share the prepared reference.

        num_tokens: one length per completion. Raises as `score` does, for the group as a whole.
        """
        if num_tokens is not None and len(num_tokens) != len(completions):
            raise ValueError(
                f"num_tokens: got {len(num_tokens)}, wanted one per completion, {len(completions)}"
            )
        counts = num_tokens if num_tokens is not None else [None] * len(completions)
        outputs: list[RewardOutput | None] = []
        sent: dict[int, tuple[Future, dict[str, Any]]] = {}
        turn_started = time.monotonic()
        try:
            for index, (completion, count) in enumerate(zip(completions, counts, strict=True)):
                options = _options(problem_type, prompt_type, spec, progress, count)
                outputs.append(score_quick(completion, answer, answer_type, **options))
                if outputs[-1] is None:
                    sent[index] = self.submit(completion, answer, answer_type, options), options
                if time.monotonic() - turn_started > _TURN_SECONDS:
                    await asyncio.sleep(0)
                    turn_started = time.monotonic()
            replies = await asyncio.gather(*(asyncio.wrap_future(future) for future, _ in sent.values()))
        except BaseException:
            for future, _ in sent.values():
                future.cancel()  # what no worker has taken yet
            raise
        for (index, (_, options)), reply in zip(sent.items(), replies, strict=True):
            outputs[index] = read_reply(reply, completions[index], answer_type, options)
        return [output for output in outputs if output is not None]

    def score_blocking(
        self, completion: str, answer: str | Sequence[str], answer_type: str, **options: Any
    ) -> RewardOutput:
        """`score` for code without an event loop; the calling thread waits."""
        options = _options(**options)
        output = score_quick(completion, answer, answer_type, **options)
        if output is not None:
            return output
        reply = self.submit(completion, answer, answer_type, options).result()
        return read_reply(reply, completion, answer_type, options)

    def submit(
        self, completion: str, answer: str | Sequence[str], answer_type: str, options: Mapping[str, Any]
    ) -> Future:
        """Queue a completion for a worker or a judge; `read_reply` makes a RewardOutput of the future's result."""
        if os.getpid() != self._pid:
            raise RuntimeError("a RewardPool does not survive a fork: make one in each process")
        rule = resolve(answer_type, options["spec"])
        answers = list(reference_texts(answer, rule.verifier))
        if VERIFIERS[rule.verifier].remote:
            check(rule.params)
            text = extracted_answer(completion, rule).text
            return judge.the_judge().submit(rule.params, answers, text, completion)
        if is_custom(rule.verifier):  # a worker does not know what was registered here
            options = {**options, "spec": {**(options["spec"] or {}), "verifier": rule.verifier}}
        task = {"completion": completion, "answer": answers, "answer_type": answer_type, "options": options}
        future: Future = Future()
        self._dispatcher.submit(
            Task(
                key=(rule.verifier, tuple(answers), rule.params_key),
                payload=json.dumps(task).encode(),
                deadline_seconds=rule.params.get(
                    "deadline_seconds", VERIFIERS[rule.verifier].deadline_seconds
                ),
                future=future,
            )
        )
        return future

    def counters(self) -> dict[str, int]:
        """Totals since the start: tasks, timeouts, crashes, slow, forks, recycled, restarts; and the judge's."""
        return self._dispatcher.counters | judge.counters()

    def pids(self) -> list[int]:
        """Process ids of the live workers."""
        return self._dispatcher.pids()

    def close(self) -> None:
        """End the workers; tasks in flight fail with RuntimeError. Safe to call twice."""
        self._finalizer()

    def __enter__(self) -> "RewardPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_default: RewardPool | None = None
_default_lock = threading.Lock()


def default_pool() -> RewardPool:
    """The pool of this process that `reward.score` uses; made on first use, closed at exit."""
    global _default  # noqa: PLW0603
    with _default_lock:
        if _default is None or _default._pid != os.getpid():
            _default = RewardPool()
        return _default


def score_blocking(
    completion: str, answer: str | Sequence[str], answer_type: str, **options: Any
) -> RewardOutput:
    """Score in the default pool and wait; arguments as in `reward.score`."""
    return default_pool().score_blocking(completion, answer, answer_type, **options)


def read_reply(
    reply: Mapping[str, Any] | Verdict, completion: str, answer_type: str, options: Mapping[str, Any]
) -> RewardOutput:
    """The RewardOutput of a worker's reply or a judge's verdict, or the error it reports about our data or machine."""
    kept = {name: options[name] for name in ("problem_type", "prompt_type", "spec", "num_tokens")}
    if isinstance(reply, Verdict):
        return with_verdict(reply, completion, answer_type, **kept)
    if "error" in reply:
        error = _ERRORS.get(reply["error"])
        raise error(reply["message"]) if error else RuntimeError(f"{reply['error']}: {reply['message']}")
    status, detail = reply.get("lost"), ""
    output = reply.get("output", {})
    if "bug" in output:
        _report_bug(output["bug"])
        status, detail = "crash", _where(output["bug"])
    if status is not None:
        return failed(status, completion, answer_type, detail=detail, **kept)
    return RewardOutput(**{**output, "trace": tuple(output["trace"])})


def _options(
    problem_type: str | None = None,
    prompt_type: str | None = None,
    spec: Mapping[str, Any] | None = None,
    progress: float | None = None,
    num_tokens: int | None = None,
) -> dict[str, Any]:
    return {
        "problem_type": problem_type,
        "prompt_type": prompt_type,
        "spec": spec,
        "progress": progress,
        "num_tokens": num_tokens,
    }


def _where(traceback: str) -> str:
    """`FILE:LINE: ERROR` of a traceback's text."""
    lines = traceback.strip().splitlines()
    place = next((line for line in reversed(lines) if line.lstrip().startswith("File ")), "").split('"')
    number = place[2].split(",")[1].removeprefix(" line ") if len(place) == 3 else "?"
    return f"{place[1]}:{number}: {lines[-1]}" if len(place) == 3 else lines[-1]


def _report_bug(text: str) -> None:
    """Log a verifier's own exception, each kind once: it scored 0 with status `crash`, and is a bug of ours."""
    kind = text.strip().splitlines()[-1].partition(":")[0] + text.strip().splitlines()[-2]
    if kind not in _reported_bugs:
        _reported_bugs.add(kind)
        logger.error("a verifier raised on a model's answer; it scored 0 with status crash:\n%s", text)


def _close(dispatcher: Dispatcher, pid: int) -> None:
    if os.getpid() == pid:
        dispatcher.close()
