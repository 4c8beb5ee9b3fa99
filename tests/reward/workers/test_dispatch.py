"""The dispatcher's choice of tasks, without processes: no load on the machine can change it."""

import os
import random
import socket
from collections import deque
from concurrent.futures import Future

import pytest

from reward.workers.dispatch import Dispatcher, Limits, Task, Worker


@pytest.mark.parametrize("seed", range(5))
def test_a_worker_keeps_to_its_reference_while_others_wait(monkeypatch, seed):
    """Two references, two workers: whichever is done first, each keeps to its own while both have work."""
    dispatcher = Dispatcher("no:scorer", Limits(2, 16, 0.25, 0, 0))
    sockets = []

    def fork(self):
        sockets.append(socket.socketpair())
        self._workers.append(Worker(os.getpid(), sockets[-1][0]))
        return self._workers[-1]

    monkeypatch.setattr(Dispatcher, "_fork", fork)
    for key in ["first", "second"] * 8 + ["first"] * 16:
        dispatcher._queues.setdefault(key, deque()).append(Task(key, b"", 5.0, Future()))
    source = random.Random(seed)
    dispatcher._assign()
    own = {worker: worker.key for worker in dispatcher._workers}
    assert sorted(own.values()) == ["first", "second"]
    helped = False
    while busy := [worker for worker in own if worker.task is not None]:
        worker = source.choice(busy)
        waiting = set(dispatcher._queues)
        worker.task = None
        dispatcher._assign()
        if worker.task is not None:
            wanted = own[worker] if own[worker] in waiting else next(iter(waiting))
            assert worker.task.key == wanted
            helped |= wanted != own[worker]
    assert helped  # whoever was done with its own
    assert not dispatcher._queues
    for pair in sockets:
        for end in pair:
            end.close()
