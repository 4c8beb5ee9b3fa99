"""A `RayLauncher` that knows how its jobs ended.

AReaL's own runs servers and trainers inside of Ray's workers: their output is Ray's, a dead server is not noticed while
the trainer is awaited, Ray silently repeats what ran on a lost node, success ends as a failure, and placement groups
stay. This subclass has every job run by `job.py` on its node, waits for the nodes that a run needs, and gives back
everything that it took.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from areal.infra.launcher import ray as areal_ray
from areal.infra.platforms import is_npu_available
from areal.infra.utils.launcher import JobException, JobState
from areal.launcher import cluster
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

STOP_SECONDS = 20.0  # until a job that was told to stop is forced to
FIRST_WAIT_SECONDS, LATER_WAIT_SECONDS = 60.0, 600.0  # for nodes: at the start, and after one was lost
HEAD_SECONDS, HEAD_SILENCES = 3.0, 3  # between questions to the head, and how many may stay without an answer
REPEAT = "start Ray again and repeat the command (recover.mode=on continues)"
MIB = 2**20


@dataclass
class RayJob:
    """One process of the run: its task, and where it writes."""

    future: Any
    log: Path
    state: Path
    is_done: bool = False


def run_on_node(command: list[str], description: dict[str, Any]) -> dict[str, Any]:
    """In a Ray worker: have `job.py` run the command; what it reports when it has ended."""
    import json
    import signal
    import subprocess

    import ray

    # Ray cancels by SIGINT, which stays ignored when `ray start` ran in a shell's background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    description = {**description, "host": ray.util.get_node_ip_address()}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        process.stdin.write(json.dumps(description))
        process.stdin.close()
        while True:
            try:
                status = process.wait(0.2)
                break
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    return {"status": status, "said": process.stdout.read()[-4000:]}


class SupervisedRayLauncher(cluster.ClusterJobs, areal_ray.RayLauncher):
    """Same interface as AReaL's `RayLauncher`; see the module docstring for what differs."""

    def __init__(self, experiment_name: str, trial_name: str, fileroot: str):
        super().__init__(experiment_name, trial_name, fileroot)
        self._wait_seconds = float(os.environ.get("AREAL_LAUNCHER_WAIT_SECONDS", FIRST_WAIT_SECONDS))
        self.open_folders()

    def submit(  # noqa: PLR0917 -- AReaL's signature
        self,
        job_name: str,
        file_path: str,
        func_name: str,
        args: list[Any],
        gpus: int,
        cpus: int,
        mem: int,
        env_vars: dict | None = None,
        placement_group: Any = None,
        bundle_index: int = -1,
        kwargs: dict | None = None,
    ):
        """Start one process as `job.py`'s child in a Ray task; AReaL names it `trainer:3`. Memory in MiB."""
        del func_name, kwargs  # the file runs as a program
        program = (
            ["-m", "areal.launcher.sglang_server"] if file_path.endswith("sglang_server.py") else [file_path]
        )
        kind, _, index = job_name.partition(":")
        log, state = self.log_file(kind, int(index or 0)), self.job_folder / f"{job_name}.json"
        state.unlink(missing_ok=True)
        self.announced.discard(state)
        description = self.describe(
            job_name,
            [sys.executable, *program, *map(str, args[0])],
            {**cluster.carried_environment(), **(env_vars or {})},
            log=str(log),
            state=str(state),
            with_parent=True,
        )
        options = {"resources": {"NPU": gpus}} if is_npu_available else {"num_gpus": gpus}
        strategy = (
            PlacementGroupSchedulingStrategy(placement_group, bundle_index, True)
            if placement_group is not None
            else "DEFAULT"
        )
        task = ray.remote(
            num_cpus=cpus,
            memory=mem * MIB,
            max_retries=0,  # Ray would start it again behind our back
            scheduling_strategy=strategy,
            **options,
        )(run_on_node)
        future = task.remote([sys.executable, "-P", cluster.JOB_FILE], description)
        self.jobs[job_name] = RayJob(future, log, state)
        return future

    def submit_array(self, job_name: str, *, count: int, nodes: int, **more: Any):
        """As AReaL's, once the nodes are there. Raises CannotStart when they are not in time."""
        if job_name not in self.placement_groups:
            tasks = count // nodes
            bundle = {
                "CPU": more["cpus_per_task"] * tasks,
                "NPU" if is_npu_available else "GPU": more["gpus_per_task"] * tasks,
                "memory": more["mem_per_task"] * tasks * MIB,
            }
            self.placement_groups[job_name] = self._reserve(job_name, [bundle] * nodes)
        return super().submit_array(job_name, count=count, nodes=nodes, **more)

    def _reserve(self, job_name: str, bundles: list[dict[str, float]]) -> Any:
        group = ray.util.placement_group(bundles=bundles, strategy="PACK")
        start, is_said = time.monotonic(), False
        while not group.wait(2):
            self.check_alive()
            wanted = f"{len(bundles)} node(s) with {_amounts(bundles[0])} free for {job_name}; Ray has {free_nodes()}"
            if time.monotonic() - start > self._wait_seconds:
                ray.util.remove_placement_group(group)
                raise cluster.CannotStart(
                    f"wanted {wanted}; waited {self._wait_seconds:.0f} s (AREAL_LAUNCHER_WAIT_SECONDS), "
                    "see `ray status`"
                )
            if not is_said and time.monotonic() - start > 5:
                print(f"[launcher] waiting for {wanted}", flush=True)
                is_said = True
        return group

    def check_alive(self) -> None:
        """Raise `JobException` when a job has failed; a trainer that ended with status 0 is no failure."""
        running = {job.future: name for name, job in self.jobs.items() if not job.is_done}
        done, _ = ray.wait(list(running), num_returns=len(running), timeout=0) if running else ([], [])
        for name, job in self.jobs.items():  # afterwards: of a short job its end is seen first
            self.announce(name, job.state, job.log)
        for future in done:
            name = running[future]
            job = self.jobs[name]
            try:
                result = ray.get(future)
            except ray.exceptions.RayError as error:
                self._wait_seconds = max(self._wait_seconds, LATER_WAIT_SECONDS)
                host = self.state_of(job.state).get("host", "its node")
                how = f"was lost with {host}: {_first_line(error)}"
                if not own_node_lives():
                    how += f"; {REPEAT}"
                    self.fail(
                        name, how, job.log, 1, JobState.CANCELLED
                    )  # this process can start nothing any more
                self.fail(name, how, job.log, 1)
            state = self.state_of(job.state)
            how = state.get("how") or result["said"].strip() or f"ended with status {result['status']}"
            if result["status"] == 0 and name.startswith("trainer"):
                job.is_done = True
                continue
            self.fail(name, how, job.log, result["status"])

    def wait(self, check_status=(), remove_status=()):
        """Block until every trainer has ended with status 0. Raises JobException when a job fails before that."""
        del check_status, remove_status  # AReaL takes a finished trainer for a reason to start again
        while True:
            self.check_alive()
            self.echo()
            trainers = [job for name, job in self.jobs.items() if name.startswith("trainer")]
            if trainers and all(job.is_done for job in trainers):
                return
            time.sleep(cluster.POLL_SECONDS)

    def stop_all(self, force: bool = False, pattern: str | None = None):
        """End every job, wait until it has ended, and give its place back; AReaL's `pattern` parts have one end."""
        del force, pattern
        futures = [job.future for job in self.jobs.values()]
        for force_it in (False, True):
            for future in futures:
                try:
                    ray.cancel(future, force=force_it)
                except (ray.exceptions.RayError, ValueError):
                    continue  # it ended meanwhile, or its node did
            if futures:
                _, futures = ray.wait(futures, num_returns=len(futures), timeout=STOP_SECONDS)
        self.jobs.clear()
        for group in self.placement_groups.values():
            ray.util.remove_placement_group(group)
        self.placement_groups.clear()
        self.echo()


def answers(address: str) -> bool:
    """Whether somebody listens at `HOST:PORT`. Ray would try an address where nobody does for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def watched_head(launcher: SupervisedRayLauncher, head: str) -> Iterator[None]:
    """Within, this process ends with a message and status 1 when the cluster's head at `HOST:PORT` has died.

    Whatever asks a dead head waits for a minute, and then Ray ends the process without a word; so a thread of its own
    watches. Nobody is there to be told to stop: jobs end with their raylets.
    """
    is_over = threading.Event()

    def watch() -> None:
        silent = 0
        while silent < HEAD_SILENCES:
            if is_over.wait(HEAD_SECONDS):
                return
            silent = 0 if answers(head) else silent + 1
        name, job = next(iter(launcher.jobs.items()), ("launcher", None))
        how = f"was lost with the cluster: its head {head} does not answer; {REPEAT}"
        with suppress(JobException):
            launcher.fail(name, how, job.log if job else launcher.folder / "launcher.log", 1)
        sys.stdout.flush()
        os._exit(1)

    threading.Thread(target=watch, name="watch of Ray's head", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def own_node_lives() -> bool:
    """Whether the raylet that this process is connected to still is one of the cluster's."""
    own = ray.get_runtime_context().get_node_id()
    return any(node["Alive"] for node in ray.nodes() if node["NodeID"] == own)


def master_address(placement_group: Any, placement_group_bundle_index: int = 0) -> tuple[str, int]:
    """Stands for AReaL's function of a longer name: (address, free port) of a bundle's node, as Ray knows it."""

    def look() -> tuple[str, int]:
        import socket

        host = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((host, 0))
            return host, probe.getsockname()[1]

    strategy = PlacementGroupSchedulingStrategy(placement_group, placement_group_bundle_index)
    task = ray.remote(num_cpus=1, num_gpus=0, max_retries=0, scheduling_strategy=strategy)(look)
    return ray.get(task.remote(), timeout=LATER_WAIT_SECONDS)


def free_nodes() -> str:
    """What every living node of the cluster has left, in words."""
    by_node = ray._private.state.available_resources_per_node()
    rows = [
        f"{node['NodeManagerAddress']} ({_amounts(by_node.get(node['NodeID'], {}))} free)"
        for node in ray.nodes()
        if node["Alive"]
    ]
    return ", ".join(sorted(rows)) or "no node"


def _amounts(resources: dict[str, float]) -> str:
    memory = resources.get("memory", 0) / 2**30
    device = "NPU" if is_npu_available else "GPU"
    return f"{resources.get(device, 0):g} {device}, {resources.get('CPU', 0):g} CPU, {memory:.1f} GiB"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


# Workers get the code of the functions above, so that they need not import AReaL.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
