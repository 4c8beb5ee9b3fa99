"""What the Ray and Slurm launchers share: messages, logs, the environment that jobs get, and how a launch ends."""

from __future__ import annotations

import getpass
import json
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from areal.api.alloc_mode import _AllocationMode
from areal.infra.utils import launcher as areal_launcher_utils
from areal.infra.utils.launcher import JobException, JobState
from areal.launcher import job as node_job
from areal.launcher import preflight
from areal.launcher.readable import ReadableLog
from areal.utils import fs, name_resolve, names

POLL_SECONDS = 0.5
TAIL_LINES, TAIL_BYTES = 25, 20_000
JOB_FILE = node_job.__file__
# Variables that belong to a node, not to a run; every other one of the launcher's environment reaches the jobs.
OF_THE_NODE = re.compile(
    r"CUDA_VISIBLE_DEVICES|ASCEND_RT_VISIBLE_DEVICES|HOSTNAME|TMPDIR|TEMP|TMP|DISPLAY|PWD|OLDPWD|SHLVL|TERM|_"
    r"|(RAY|SLURM|SBATCH|SRUN|PMI|SSH|XDG|DBUS)_.*"
)


class CannotStart(Exception):
    """The cluster lacks what the run needs; shown as one message, exit status 2."""


class _Terminated(Exception):
    pass


def carried_environment() -> dict[str, str]:
    """The variables of this process that jobs get on whatever node they run."""
    return {name: value for name, value in os.environ.items() if not OF_THE_NODE.fullmatch(name)}


class ClusterJobs:
    """Mixed into AReaL's launchers: where logs lie, what is shown of them, and the first failure.

    `failure` is the message of the last failed job, `status` the exit status that it gives the launcher.
    """

    def open_folders(self) -> None:
        """Prepare the folder of logs and job files; the launcher's own leftovers of an earlier launch go."""
        self.failure: str | None = None
        self.status = 0
        self.folder = Path(self.log_folder()).resolve()
        self.job_folder = self.folder / "jobs"
        self.job_folder.mkdir(parents=True, exist_ok=True)
        for old in self.job_folder.iterdir():
            old.unlink(missing_ok=True)
        self.witness = self.job_folder / "witness"
        self.witness.write_text("every node must see this file\n")
        self._echoed: dict[Path, int] = {}
        self.announced: set[Path] = set()

    def log_folder(self) -> str:
        """As AReaL's launchers lay it out."""
        return f"{self.fileroot}/logs/{getpass.getuser()}/{self.experiment_name}/{self.trial_name}"

    def log_file(self, job_name: str, index: int = 0) -> Path:
        """Log of a job's process; made if it is not there, and shown from here on."""
        path = self.folder / (f"{job_name}.log" if index == 0 else f"{job_name}.{index}.log")
        path.touch()
        self._echoed.setdefault(path, path.stat().st_size)
        return path

    def has_started(self) -> bool:
        """Whether every job that was submitted has its nodes."""
        return True

    def describe(self, name: str, argv: list, env: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A description for `job.py`."""
        return {
            "name": name,
            "argv": argv,
            "cwd": os.getcwd(),
            "env": {key: str(value) for key, value in env.items()},
            "drop": ["RAY_"],
            "witness": str(self.witness),
            **more,
        }

    def state_of(self, path: Path) -> dict[str, Any]:
        """What a node has written about its process; empty before it has."""
        try:
            return json.loads(path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def announce(self, name: str, state_file: Path, log: Path) -> None:
        """Say once where a process runs."""
        state = self.state_of(state_file)
        if state and state_file not in self.announced:
            self.announced.add(state_file)
            if "pid" in state:
                print(
                    f"[launcher] started {name} on {state['host']} (pid {state['pid']}), log: {log}",
                    flush=True,
                )

    def echo(self) -> None:
        """Copy to the console what the trainers printed for people: lines that start with `[grpo] ` or `[eval] `."""
        everything = os.environ.get("AREAL_LAUNCHER_ECHO") == "all"
        for path, shown in self._echoed.items():
            if not path.name.startswith("trainer"):
                continue
            with path.open("rb") as log:
                log.seek(shown)
                new = log.read()
            complete = new[: new.rfind(b"\n") + 1]
            self._echoed[path] = shown + len(complete)
            for line in complete.decode(errors="replace").splitlines():
                if everything or line.startswith(("[grpo] ", "[eval] ")):
                    print(line, flush=True)

    def fail(self, name: str, how: str, log: Path, status: int, reason: JobState = JobState.FAILED) -> None:
        """Name a failed job with its log, at once, and raise what AReaL's launcher acts upon."""
        self.echo()
        data = log.read_bytes()[-TAIL_BYTES:] if log.exists() else b""
        tail = "\n".join(
            [*ReadableLog(log).readable(data.decode(errors="replace").splitlines())][-TAIL_LINES:]
        )
        self.status = status or 1
        self.failure = f"{name} {how}; its log: {log}\n--- last lines of {log.name} ---\n{tail}\n---"
        print(f"[launcher] {self.failure}", file=sys.stderr, flush=True)
        raise JobException(self.run_name, name.partition(":")[0], "cluster", reason)


def wait_for_servers(launcher_of: Callable[[], Any]) -> Callable[..., list[str]]:
    """Stands for AReaL's `wait_llm_server_addrs`: stops at once when a server dies. Time in a queue does not count."""

    def wait(experiment_name: str, trial_name: str, n_rollout_servers: int = 1, timeout: float = 1200.0):
        start = time.monotonic()
        while True:
            addresses = name_resolve.get_subtree(names.gen_servers(experiment_name, trial_name))
            if len(addresses) >= n_rollout_servers:
                return addresses
            launcher_of().check_alive()
            if not launcher_of().has_started():
                start = time.monotonic()
            if time.monotonic() - start > timeout:
                raise TimeoutError(
                    f"{n_rollout_servers} rollout servers expected, {len(addresses)} ready after {timeout} s"
                )
            time.sleep(POLL_SECONDS)

    return wait


def quieten(*modules: Any) -> None:
    """The console is for the trainer's progress and for what went wrong."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    for module in (areal_launcher_utils, name_resolve, fs, *modules):
        module.logger.setLevel("ERROR")


def parse(argv: list[str], name: str) -> tuple[Any, list[str]] | int:
    """(configuration, arguments for every process), or the exit status where nothing is to be launched."""
    try:
        if "--rehearse" in argv:
            return preflight.rehearsal(argv)  # on this machine's CPU, whatever the launcher
        config, argv = preflight.load(argv, name)
        _check_whole_nodes(config, name)
        return config, argv
    except preflight.ConfigurationError as error:
        print(f"[launcher] {error}", file=sys.stderr)
        return 2


def _check_whole_nodes(config: Any, name: str) -> None:
    mode, cluster = _AllocationMode.from_str(config.allocation_mode), config.cluster
    needed, per_node = mode.gen.world_size + mode.train.world_size, cluster.n_gpus_per_node
    if needed != cluster.n_nodes * per_node or mode.gen.world_size % per_node:
        raise preflight.ConfigurationError(
            f"allocation_mode={config.allocation_mode!r} has {mode.gen.world_size} GPUs for servers and "
            f"{mode.train.world_size} for trainers, cluster.n_nodes={cluster.n_nodes} nodes have "
            f"cluster.n_gpus_per_node={per_node} each: the {name} launcher gives whole nodes to servers and to "
            "trainers, and wants both to use up the nodes"
        )


def supervise(areal_main: Callable[[], None], launcher_of: Callable[[], Any]) -> int:
    """Run AReaL's launcher to its end; the exit status. Every job that `launcher_of()` started is gone afterwards."""
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    status = 0
    try:
        areal_main()
        print("[launcher] the trainer finished", flush=True)
    except JobException:
        status = launcher_of().status  # it has been said what failed
    except (CannotStart, TimeoutError) as error:
        print(f"[launcher] {error}", file=sys.stderr, flush=True)
        status = 2 if isinstance(error, CannotStart) else 1
    except (KeyboardInterrupt, _Terminated) as error:
        status = 130 if isinstance(error, KeyboardInterrupt) else 143
        print(
            f"[launcher] {'interrupted' if status == 130 else 'terminated'}: stopping every job",
            file=sys.stderr,
            flush=True,
        )
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not leave jobs behind
            signal.signal(number, signal.SIG_IGN)
        if launcher_of() is not None:
            launcher_of().stop_all()
    return status


def _terminated(signum, frame) -> None:
    raise _Terminated
