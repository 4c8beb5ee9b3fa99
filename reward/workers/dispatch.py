"""The thread that hands tasks to workers, watches their deadlines, and replaces those that fail.

Each worker has at most one task, so the deadline starts when the worker takes it. A task that runs long makes its
worker *slow*: it keeps its deadline but gives up its slot, and another worker takes over the queue. A little later it
loses its priority too. Thus a few endless tasks cost the others next to nothing, and only `max_workers` of them at
once can make the queue wait.

On a machine busy with other things every task takes long. Time is therefore judged by the processor time a worker has
had: one that was starved is not slow, and gets up to three times its deadline before it is killed.
"""

import contextlib
import json
import os
import selectors
import socket
import threading
import time
from collections import OrderedDict, deque
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from reward.workers.worker import LENGTH, TAKEN
from reward.workers.zygote import Zygote, ZygoteDied

SLOW_NICENESS = 10  # its weight is a tenth of a fresh worker's
_DEMOTE_FACTOR = 4  # of slow_after_seconds, in processor time: when a slow worker loses its priority
_WALL_FACTOR = 4  # of slow_after_seconds, in wall time: when a worker is slow whatever processor time it had
_STARVED_SHARE = 0.2  # of the deadline as processor time: with less, the machine is slow and not the task
_STARVED_FACTOR = 3  # of the deadline: when even a starved worker is killed
_STOPPED_SECONDS = (
    5.0  # a worker that has been stopped (SIGSTOP) is replaced after so long; its task is not to blame
)
_SEND_SECONDS = 10.0
_MAX_SENDS = 3  # to workers that die idle
_MAX_REPLY_BYTES = 16 << 20


@dataclass(slots=True)
class Task:
    """One completion to score.

    key: tasks of one reference go to one worker, which keeps it parsed. future: gets the worker's reply, or
    {"lost": "timeout" | "crash"}.
    """

    key: Any
    payload: bytes
    deadline_seconds: float
    future: Future
    sends: int = 0


@dataclass(slots=True, eq=False)
class Worker:
    """One worker process and what it is doing."""

    pid: int
    connection: socket.socket
    task: Task | None = None
    key: Any = None
    started: float = 0.0
    started_cpu: float = 0.0
    check_at: float = 0.0
    taken: bool = False
    slow: bool = False
    demoted: bool = False
    first_memory_bytes: int | None = None
    buffer: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True)
class Limits:
    """Sizes and times of a pool; see `reward.pool.RewardPool`."""

    num_workers: int
    max_workers: int
    slow_after_seconds: float
    headroom_bytes: int
    recycle_bytes: int


class Dispatcher(threading.Thread):
    """Owns the zygote, the workers and the queue. Only `submit`, `close` and `counters` are for other threads."""

    def __init__(self, scorer: str, limits: Limits) -> None:
        super().__init__(name="reward-pool", daemon=True)
        self.counters = dict.fromkeys(
            ("tasks", "timeouts", "crashes", "slow", "forks", "recycled", "restarts"), 0
        )
        self._scorer = scorer
        self._limits = limits
        self._inbox: deque[Task] = deque()
        self._queues: OrderedDict[Any, deque[Task]] = OrderedDict()
        self._workers: list[Worker] = []
        self._zygote: Zygote | None = None
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._lock = threading.Lock()
        self._closing = False
        self._error: Exception | None = None

    def submit(self, task: Task) -> None:
        """Queue a task. RuntimeError: the pool is closed, or its worker processes cannot be started."""
        with self._lock:
            if self._error is not None:
                raise RuntimeError(str(self._error)) from self._error
            if self._closing:
                raise RuntimeError("the reward pool is closed")
            self._inbox.append(task)
            self._wake()

    def close(self) -> None:
        """Stop: queued and running tasks fail with RuntimeError, every process is killed and reaped."""
        with self._lock:
            self._closing = True
            if self._error is None:
                self._wake()
        if self.is_alive() and threading.current_thread() is not self:
            self.join()

    def pids(self) -> list[int]:
        """Process ids of the live workers (for tests and metrics)."""
        return [worker.pid for worker in list(self._workers)]

    def run(self) -> None:
        """The thread's body."""
        self._selector.register(self._wake_reader, selectors.EVENT_READ, None)
        failure: Exception = RuntimeError("the reward pool was closed")
        try:
            self._start_zygote()
            while not self._closing:
                self._step()
        except Exception as error:
            failure = error
        finally:
            self._shut_down(failure)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it is awake already
            self._wake_writer.send(b"!")

    def _step(self) -> None:
        """Wait for something to happen and deal with it."""
        events = self._selector.select(self._wait_seconds())
        try:
            for selected, _ in events:
                if selected.data is None:
                    self._drain_wake()
                elif selected.data in self._workers:
                    self._read(selected.data)
            while self._inbox:
                task = self._inbox.popleft()
                self._queues.setdefault(task.key, deque()).append(task)
            self._watch_clock()
            self._assign()
        except ZygoteDied:
            self._restart_zygote()

    def _wait_seconds(self) -> float | None:
        times = [worker.check_at for worker in self._workers if worker.task is not None]
        return max(min(times) - time.monotonic(), 0.0) if times else None

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_reader.recv(4096):
                pass

    def _watch_clock(self) -> None:
        """Kill what is past its deadline; take slot and priority from what is slow."""
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.task is None or now < worker.check_at:
                continue
            elapsed, cpu = now - worker.started, _cpu_seconds(worker.pid) - worker.started_cpu
            if elapsed >= _STOPPED_SECONDS and _is_stopped(worker.pid):
                self._lose(worker, "stopped")
                continue
            deadline, slow_after = worker.task.deadline_seconds, self._limits.slow_after_seconds
            if elapsed >= deadline and (
                cpu >= _STARVED_SHARE * deadline or elapsed >= _STARVED_FACTOR * deadline
            ):
                self._lose(worker, "timeout")
                continue
            if not worker.slow and (cpu >= slow_after or elapsed >= _WALL_FACTOR * slow_after):
                worker.slow = True
                self.counters["slow"] += 1
            if not worker.demoted and cpu >= _DEMOTE_FACTOR * slow_after:
                worker.demoted = True
                with contextlib.suppress(OSError):  # it may have ended this moment; then its socket tells
                    os.setpriority(os.PRIO_PROCESS, worker.pid, SLOW_NICENESS)
            step = slow_after / 2 if not worker.demoted else deadline / 10
            remaining = deadline - elapsed
            worker.check_at = now + (min(step, remaining) if remaining > 0 else step)

    def _assign(self) -> None:
        """Give queued tasks to idle workers, forking up to the number of slots that slow workers leave."""
        while self._queues:
            idle = [worker for worker in self._workers if worker.task is None]
            if not idle:
                active = sum(not worker.slow for worker in self._workers)
                if active >= self._limits.num_workers or len(self._workers) >= self._limits.max_workers:
                    return
                idle = [self._fork()]
            worker = next((w for w in idle if w.key in self._queues), idle[0])
            self._hand_over(worker, self._next_task(worker))

    def _next_task(self, worker: Worker) -> Task:
        """A task of the worker's own reference, else of one that nobody works on, else the oldest."""
        key = worker.key
        if key not in self._queues:
            taken = {other.key for other in self._workers if other.task is not None}
            key = next((k for k in self._queues if k not in taken), next(iter(self._queues)))
        queue = self._queues[key]
        task = queue.popleft()
        if not queue:
            del self._queues[key]
        return task

    def _hand_over(self, worker: Worker, task: Task) -> None:
        if task.sends == 0 and not task.future.set_running_or_notify_cancel():
            return  # its caller has gone
        task.sends += 1
        worker.key = task.key
        try:
            worker.connection.settimeout(_SEND_SECONDS)
            worker.connection.sendall(LENGTH.pack(len(task.payload)) + task.payload)
            worker.connection.setblocking(False)
        except OSError:
            self._put_back(task)
            self._remove(worker)
            return
        worker.task = task
        worker.taken = False
        self._start_clock(worker, task)

    def _start_clock(self, worker: Worker, task: Task) -> None:
        worker.started = time.monotonic()
        worker.started_cpu = _cpu_seconds(worker.pid)
        worker.check_at = worker.started + min(self._limits.slow_after_seconds, task.deadline_seconds)

    def _put_back(self, task: Task) -> None:
        """A worker died before it took the task: that is no try, and another one may take it."""
        if task.sends < _MAX_SENDS:
            self._queues.setdefault(task.key, deque()).appendleft(task)
        else:
            self._resolve(task, "crash")

    def _read(self, worker: Worker) -> None:
        """Take in what the worker sent; its reply is complete, partial, or it has died."""
        try:
            chunk = worker.connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        worker.buffer += chunk
        if not chunk or worker.task is None:
            self._lose(worker, "crash")
            return
        if not worker.taken and worker.buffer.startswith(TAKEN):
            del worker.buffer[: len(TAKEN)]
            worker.taken = True
            self._start_clock(worker, worker.task)
        if len(worker.buffer) < LENGTH.size:
            return
        size = LENGTH.unpack(worker.buffer[: LENGTH.size])[0]
        if size > _MAX_REPLY_BYTES:
            self._lose(worker, "crash")
        elif len(worker.buffer) >= LENGTH.size + size:
            self._finish(worker, bytes(worker.buffer[LENGTH.size :]))

    def _finish(self, worker: Worker, payload: bytes) -> None:
        task, worker.task = worker.task, None
        assert task is not None
        worker.buffer.clear()
        try:
            reply = json.loads(payload)
            memory_bytes = int(reply["memory_bytes"])
        except (ValueError, KeyError, TypeError):
            worker.task = task
            self._lose(worker, "crash")
            return
        self.counters["tasks"] += 1
        task.future.set_result(reply)
        if worker.first_memory_bytes is None:
            worker.first_memory_bytes = memory_bytes
        grown = memory_bytes - worker.first_memory_bytes > self._limits.recycle_bytes
        worker.slow = False
        surplus = sum(not other.slow for other in self._workers) > self._limits.num_workers
        # Lost priority cannot be given back by an ordinary user: such a worker is replaced as well.
        if grown or surplus or worker.demoted:
            self.counters["recycled"] += 1
            self._remove(worker)

    def _lose(self, worker: Worker, status: str) -> None:
        """Kill a worker; its task, if any, gets `status` and is not tried again. One whose worker was stopped from
        outside, or died before it took the task, goes to another worker.
        """
        task, worker.task = worker.task, None
        if task is not None and (status == "stopped" or (status == "crash" and not worker.taken)):
            self._put_back(task)
        elif task is not None:
            self._resolve(task, status)
        self._remove(worker)

    def _resolve(self, task: Task, status: str) -> None:
        self.counters["timeouts" if status == "timeout" else "crashes"] += 1
        task.future.set_result({"lost": status})

    def _fork(self) -> Worker:
        assert self._zygote is not None
        pid, connection = self._zygote.fork()
        connection.setblocking(False)
        worker = Worker(pid, connection)
        self._workers.append(worker)
        self._selector.register(connection, selectors.EVENT_READ, worker)
        self.counters["forks"] += 1
        return worker

    def _remove(self, worker: Worker) -> None:
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        self._selector.unregister(worker.connection)
        worker.connection.close()
        if self._zygote is not None:
            self._zygote.kill(worker.pid)

    def _start_zygote(self) -> None:
        self._zygote = Zygote(self._scorer, self._limits.headroom_bytes)
        self._zygote.wait_ready()

    def _restart_zygote(self) -> None:
        """The zygote died and took the workers with it: their tasks crashed, the queue goes on with a new one."""
        self.counters["restarts"] += 1
        old, self._zygote = self._zygote, None
        for worker in list(self._workers):
            self._lose(worker, "crash")
        if old is not None:
            old.close()
        self._start_zygote()
        self._wake()  # the queue still waits for workers

    def _shut_down(self, failure: Exception) -> None:
        """Fail what is left and end every process; `failure` is what later submitters hear."""
        with self._lock:
            self._error = failure
        left = [task for queue in self._queues.values() for task in queue] + list(self._inbox)
        left += [worker.task for worker in self._workers if worker.task is not None]
        zygote, self._zygote = self._zygote, None
        for worker in list(self._workers):
            self._remove(worker)
        if zygote is not None:
            zygote.close()
        for task in left:
            with contextlib.suppress(InvalidStateError):  # its caller has cancelled it
                task.future.set_exception(RuntimeError(str(failure)))
        self._selector.close()
        self._wake_reader.close()
        with self._lock:
            self._wake_writer.close()


def _cpu_seconds(pid: int) -> float:
    """Processor time that a process has used; 0 when it has just ended."""
    try:
        # The kernel's clock id of another process, see clock_getcpuclockid(3).
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0


def _is_stopped(pid: int) -> bool:
    """Whether a process is in the state that SIGSTOP leaves."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "Tt"
    except (OSError, IndexError):
        return False
