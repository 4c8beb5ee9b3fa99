"""AReaL's executor without servers, for the tests of the ring buffer."""

import torch
from areal.infra.staleness_manager import StalenessManager

from trains.buffer import (
    Failure,
)
from trains.types import GroupInfo

BATCH, ETA = 3, 2


def info(key, prompt):
    return GroupInfo(key, str(prompt), "s", "number", "answer", [], [], [], [], [], 0)


class FakeExecutor:
    """AReaL's executor without servers: its own staleness manager, generation when the test says so."""

    def __init__(self, version=0, max_concurrent=64):
        self.version = version
        self.queue, self.running, self.finished = [], [], []
        self.staleness_manager = StalenessManager(self, max_concurrent, BATCH, ETA)
        self.staleness_manager.on_version_recovered(version)

    def get_version(self):
        return self.version

    def submit(self, data, workflow, is_eval):
        self.queue.append(data)
        self.staleness_manager.on_rollout_enqueued()

    def start(self):
        while self.queue and self.staleness_manager.get_capacity() > 0:
            self.running.append((self.queue.pop(0), [self.version]))
            self.staleness_manager.on_rollout_submitted()

    def interrupt(self):
        """A weight update cuts every running answer; its next token comes from the weights at that time."""
        for _, versions in self.running:
            versions.append(self.version)

    def finish(self, index, rewards=(0.0, 1.0), failure=None):
        data, versions = self.running.pop(index)
        self.staleness_manager.on_rollout_accepted()
        if failure is not None:
            self.finished.append({"failure": Failure(data["key"], failure, failure == "data")})
            return
        self.finished.append(
            {
                "versions": torch.tensor([[-1, -1, *versions]]),
                "rewards": torch.tensor(rewards),
                "info": [info(data["key"], data["prompt"])],
            }
        )

    def wait(self, count, timeout=None, raise_timeout=True):
        if not self.finished and timeout:  # a blocking call: let the oldest rollout finish
            self.start()
            if not self.running:
                raise AssertionError("deadlock: nothing is running and nothing may start")
            self.finish(0)
        return [self.finished.pop(0)] if self.finished else []
