"""The workers of a run: one in this process, or many as Ray actors on one or several nodes.

Work is handed to free slots (`concurrency` per worker). A worker that loses its server for good is taken out and its
rows go to the others; when none is left the run ends with the reason.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from dataset.curate.journal import Record
from dataset.curate.worker import Job, Worker, WorkerFailed, WorkerPlan


class NoWorkersLeft(RuntimeError):
    """Every worker has failed; the message has every reason."""


class RemoteWorker(Protocol):
    """What the pool asks of a worker, wherever it runs."""

    async def start(self) -> str: ...

    async def measure(self, job: Job) -> Record: ...

    async def close(self) -> None: ...


class WorkerPool:
    """Hands jobs to workers."""

    def __init__(self, workers: dict[str, RemoteWorker], concurrency: int) -> None:
        self._workers, self._concurrency = workers, concurrency
        self._alive: set[str] = set()
        self._free: asyncio.Queue[str | None] = asyncio.Queue()
        self.failures: dict[str, str] = {}

    @property
    def num_slots(self) -> int:
        """How many rows can be in flight at once."""
        return len(self._workers) * self._concurrency

    async def start(self) -> dict[str, str]:
        """Start all workers; returns name -> server address. Raises ``NoWorkersLeft`` when none starts."""
        names = list(self._workers)
        results = await asyncio.gather(*(w.start() for w in self._workers.values()), return_exceptions=True)
        addresses = {}
        for name, result in zip(names, results, strict=True):
            if isinstance(result, BaseException):
                if not isinstance(result, Exception):
                    raise result
                self.failures[name] = f"{type(result).__name__}: {_reason(result)}"
            else:
                addresses[name] = result
                self._alive.add(name)
                for _ in range(self._concurrency):
                    self._free.put_nowait(name)
        if not self._alive:
            raise NoWorkersLeft(self._summary("no worker could start"))
        return addresses

    async def measure(self, job: Job) -> Record:
        """The record of a row from whichever worker has a free slot. Raises ``NoWorkersLeft``."""
        while True:
            name = await self._free.get()
            if name is None:
                self._free.put_nowait(None)  # wake the next one who waits
                raise NoWorkersLeft(self._summary("every worker has failed"))
            if name not in self._alive:
                continue  # a slot of a worker that has failed since
            try:
                record = await self._workers[name].measure(job)
            except WorkerFailed as error:
                self._retire(name, str(error))
                continue
            self._free.put_nowait(name)
            return record

    async def close(self) -> None:
        """Stop every worker."""
        await asyncio.gather(*(worker.close() for worker in self._workers.values()), return_exceptions=True)

    def _retire(self, name: str, reason: str) -> None:
        if name in self._alive:
            self._alive.discard(name)
            self.failures[name] = reason
            print(f"worker {name} is out: {reason}", file=sys.stderr)
        if not self._alive:
            self._free.put_nowait(None)

    def _summary(self, headline: str) -> str:
        return headline + "".join(f"\n  {name}: {reason}" for name, reason in self.failures.items())


class RayWorker:
    """A worker as a Ray actor; the actor dies with the run."""

    def __init__(
        self, plan: WorkerPlan, index: int, address: str | None, *, num_gpus: float, concurrency: int
    ) -> None:
        import ray

        from dataset.curate.nodes import NodeWorker, carried_variables, placement

        # Actors import this project wherever they run: on other nodes it must lie at the same path.
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        options: dict[str, Any] = {
            "num_cpus": 0,
            "num_gpus": num_gpus,
            "max_concurrency": concurrency + 2,
            "runtime_env": {"env_vars": {"PYTHONPATH": path}},
            "scheduling_strategy": placement(index, num_gpus),
        }
        place = os.getcwd(), {**carried_variables(), "PYTHONPATH": path}
        self._actor = ray.remote(NodeWorker).options(**options).remote(plan, str(index), address, *place)

    async def start(self) -> str:
        """See `Worker.start`."""
        return await self._actor.start.remote()

    async def measure(self, job: Job) -> Record:
        """See `Worker.measure`; an actor that died is a worker that failed."""
        import ray

        try:
            return await self._actor.measure.remote(job)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, Exception):
                raise error.cause from error  # as it would be in this process
            raise
        except ray.exceptions.RayActorError as error:
            raise WorkerFailed(f"its process died: {error}") from error

    async def close(self) -> None:
        """Stop the actor's server, then the actor."""
        import ray

        try:
            await asyncio.wait_for(self._actor.close.remote(), 30)
        finally:
            ray.kill(self._actor)


def make_pool(
    plan: WorkerPlan,
    *,
    executor: str,
    num_workers: int,
    addresses: Sequence[str],
    concurrency: int,
    gpus_per_worker: float,
) -> WorkerPool:
    """A pool of `num_workers` workers with servers of their own, or of one worker per given address."""
    targets: list[str | None] = list(addresses) if addresses else [None] * num_workers
    workers: dict[str, RemoteWorker] = {}
    for i, address in enumerate(targets):
        if executor == "local":
            workers[str(i)] = Worker(plan, str(i), address)
        else:
            num_gpus = (
                gpus_per_worker if address is None and plan.server and plan.server.device == "cuda" else 0
            )
            workers[str(i)] = RayWorker(plan, i, address, num_gpus=num_gpus, concurrency=concurrency)
    return WorkerPool(workers, concurrency)


def check_gpus(num_wanted: float) -> None:
    """Raises ``NoWorkersLeft`` when Ray has fewer GPUs than the workers need: they would wait for ever."""
    import ray

    available = ray.cluster_resources().get("GPU", 0)
    if num_wanted > available:
        raise NoWorkersLeft(
            f"the workers need {num_wanted:g} GPUs and Ray has {available:g}: lower --num-workers or --gpus-per-worker"
        )


def _reason(error: BaseException) -> str:
    cause = getattr(error, "cause", None)
    return str(cause if isinstance(cause, BaseException) else error)
