"""A `SlurmLauncher` that knows how its jobs ended.

AReaL's own writes commands and variables into a shell script and into `srun --export=`, where a space or a comma ends
them (two servers make a list with a comma), waits for a job that Slurm has refused, takes a job that ran into its time
limit for a success and a success for an end without status, stops at states that it has no name for, and signals jobs
where it should cancel them. This subclass has `job.py` run every command on its node from a description in the shared
folder, asks Slurm how each job ended, and cancels what it has submitted.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from areal.infra.launcher import slurm as areal_slurm
from areal.infra.utils.launcher import JobInfo, JobState
from areal.infra.utils.slurm import APPTAINER_CMD_TEMPLATE
from areal.launcher import cluster

ASK_SECONDS = 2.0  # between questions to slurmctld
STOP_SECONDS = 90.0  # Slurm's KillWait is 30 s by default
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "RESIZING"}
RUNNING = {"RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "STOPPED"}
# A launch from inside of an allocation must not hand its shape on.
OF_AN_ALLOCATION = re.compile(
    r"SLURM_(JOB|MEM|N?TASKS|NNODES|NPROCS|CPUS?|STEP|GPUS|TRES|NODE|PROCID|LOCALID|GTIDS|DISTRIBUTION|SRUN|TASK)"
)
ENDED = {
    "CANCELLED": "was cancelled (scancel)",
    "TIMEOUT": "ran into its time limit",
    "OUT_OF_MEMORY": "was ended by Slurm for want of memory",
    "NODE_FAIL": "was lost with its node",
    "PREEMPTED": "was preempted",
    "DEADLINE": "missed its deadline",
    "BOOT_FAIL": "got a node that did not start",
    "REVOKED": "was revoked",
}


@dataclass
class SlurmJob:
    """One submitted job: what Slurm last said of it, and where it writes."""

    name: str
    log: Path
    count: int
    state: str = "PENDING"
    reason: str = ""
    nodes: str = ""
    said: set[str] = field(default_factory=set)


class SupervisedSlurmLauncher(cluster.ClusterJobs, areal_slurm.SlurmLauncher):
    """Same interface as AReaL's `SlurmLauncher`; see the module docstring for what differs."""

    active: SupervisedSlurmLauncher | None = None

    def __init__(self, experiment_name: str, trial_name: str, fileroot: str, container_type: str):
        super().__init__(experiment_name, trial_name, fileroot, container_type)
        self.open_folders()
        self.submitted: dict[int, SlurmJob] = {}
        self._asked = 0.0
        SupervisedSlurmLauncher.active = self

    def submit_array(  # noqa: PLR0917 -- AReaL's signature
        self,
        job_name: str,
        cmd: list[str] | str,
        count: int,
        nodes: int,
        n_gpus_per_node: int,
        cpus_per_task: int,
        mem_per_task: int,
        container_image: str,
        srun_additional_args: str = "",
        container_mounts: str | None = None,
        env_vars: dict | list[dict] | None = None,
        nodelist: str | None = None,
        exclude: str | None = None,
    ):
        """Submit `count` commands on `nodes` nodes as one job. Memory in MiB. Raises CannotStart when Slurm refuses."""
        commands = [cmd] if isinstance(cmd, str) else cmd
        environments = env_vars if isinstance(env_vars, list) else [env_vars or {}] * count
        log, tasks_per_node = self.log_file(job_name), count // nodes
        description = self.describe(job_name, [command_of(text) for text in commands], {})
        description["env"] = [{key: str(value) for key, value in env.items()} for env in environments]
        description["drop"] = []
        description["state"] = str(self.job_folder / f"{job_name}.{{index}}.json")
        for old in self.job_folder.glob(f"{job_name}.*.json"):
            old.unlink()
        path = self.job_folder / f"{job_name}.description"
        path.touch(mode=0o600)
        path.write_text(json.dumps(description))

        program = [sys.executable, "-P", cluster.JOB_FILE, str(path)]
        words = shlex.join(program)
        if self.container_type == "apptainer":
            words = APPTAINER_CMD_TEMPLATE.format(
                container_mounts=container_mounts or "",
                container_env_strings="",
                container_image=container_image,
                cmd=shlex.join(["python3", *program[1:]]),
            )
        elif self.container_type != "none":
            raise cluster.CannotStart(f"container_type={self.container_type!r}: wanted none or apptainer")
        step = [
            f"--nodes={nodes}",
            f"--ntasks={count}",
            f"--ntasks-per-node={tasks_per_node}",
            f"--gres=gpu:{n_gpus_per_node}",
            f"--cpus-per-task={cpus_per_task}",
            "--kill-on-bad-exit=1",
        ]
        additional = re.sub(r"--chdir[ =]\$PWD", "", srun_additional_args)  # the job goes there itself
        script = self.job_folder / f"{job_name}.sh"
        script.write_text(f"#!/bin/bash\nexec srun {additional} {shlex.join(step)} --export=ALL {words}\n")
        options = [
            f"--job-name={self.slurm_name(job_name)}",
            f"--output={str(log).replace('%', '%%')}",
            "--open-mode=append",
            "--no-requeue",
            "--export=ALL",
            *step[:5],
            f"--mem={mem_per_task * tasks_per_node}M",
        ]
        options += [f"--nodelist={nodelist}"] if nodelist else []
        options += [f"--exclude={exclude}"] if exclude else []
        result = _ask(["sbatch", "--parsable", *options, str(script)])
        number = re.match(r"\d+", result.stdout.strip())
        if result.returncode or number is None:
            said = (result.stderr.strip() or result.stdout.strip()).splitlines()
            raise cluster.CannotStart(
                f"sbatch refused {job_name}: {' '.join(said)} (asked for {' '.join(options[5:])})"
            )
        job_id = int(number[0])
        self.submitted[job_id] = SlurmJob(job_name, log, count)
        self.jobs[job_id] = JobInfo(name=self.slurm_name(job_name), state=JobState.PENDING, slurm_id=job_id)
        print(f"[launcher] submitted {job_name} as Slurm job {job_id}, log: {log}", flush=True)

    def check_alive(self) -> None:
        """Raise `JobException` when a job has failed; a trainer that ended with status 0 is no failure."""
        is_due = time.monotonic() - self._asked >= ASK_SECONDS
        if is_due:
            self._asked = time.monotonic()
            self._look()
        for job in self.submitted.values():  # afterwards: of a short job its end is seen first
            for index in range(job.count):
                name = f"{job.name}:{index}"
                self.announce(name, self.job_folder / f"{job.name}.{index}.json", job.log)
        if not is_due:
            return
        for job_id, job in self.submitted.items():
            name = f"{job.name} (Slurm job {job_id}{', ' + job.nodes if job.nodes else ''})"
            if job.state in WAITING:
                if job.reason not in job.said | {"None", ""}:
                    job.said.add(job.reason)
                    print(f"[launcher] {name} waits: {job.reason}", flush=True)
            elif job.state in RUNNING or (job.state == "COMPLETED" and job.name.startswith("trainer")):
                continue
            else:
                reason = JobState.CANCELLED if job.state == "CANCELLED" else JobState.FAILED
                self.fail(name, *self._end_of(job_id, job), reason=reason)

    def _end_of(self, job_id: int, job: SlurmJob) -> tuple[str, Path, int]:
        """(how it ended, log, exit status)."""
        if job.state in ENDED:
            return ENDED[job.state], job.log, 1
        states = [self.state_of(self.job_folder / f"{job.name}.{index}.json") for index in range(job.count)]
        own = [state for state in states if state.get("status") and not state.get("stopped")]
        if own:
            first = min(own, key=lambda state: state.get("time", 0.0))
            return first["how"] + f" on {first['host']}", job.log, first["status"]
        if job.state == "UNKNOWN":
            return "is no longer known to Slurm", job.log, 1
        shown = _ask(["scontrol", "show", "job", str(job_id), "-o"]).stdout
        code = re.search(r"ExitCode=(\d+):(\d+)", shown)
        status, number = (int(code[1]), int(code[2])) if code else (1, 0)
        return (
            f"is {job.state}" + (f", ExitCode {status}:{number}" if code else ""),
            job.log,
            128 + number if number else status,
        )

    def _look(self) -> None:
        """Bring the states of all jobs up to date; a slurmctld that does not answer changes nothing."""
        ids = ",".join(map(str, self.submitted))
        result = _ask(["squeue", "-h", "-t", "all", "-o", "%i|%T|%N|%r", "-j", ids])
        if result.returncode and "Invalid job id" not in result.stderr:
            print(f"[launcher] squeue: {result.stderr.strip()}; asking again", file=sys.stderr, flush=True)
            return
        found = {}
        for line in result.stdout.splitlines():
            number, state, nodes, reason = line.split("|", 3)
            found[int(number)] = (state, nodes, reason)
        for job_id, job in self.submitted.items():
            job.state, job.nodes, job.reason = found.get(job_id) or self._remembered(job_id, job)

    def _remembered(self, job_id: int, job: SlurmJob) -> tuple[str, str, str]:
        """How a job ended that squeue shows no more: from accounting where there is any, else from its own files."""
        shown = _ask(["sacct", "-n", "-X", "-P", "-o", "State,NodeList", "-j", str(job_id)])
        if shown.returncode == 0 and "|" in shown.stdout:
            state, nodes = shown.stdout.strip().splitlines()[0].split("|")
            return state.split()[0], nodes, ""
        states = [self.state_of(self.job_folder / f"{job.name}.{index}.json") for index in range(job.count)]
        if all(state.get("state") == "ended" for state in states):
            return "COMPLETED" if not any(state["status"] for state in states) else "FAILED", job.nodes, ""
        return "UNKNOWN", job.nodes, ""

    def has_started(self) -> bool:
        """Whether no job waits in Slurm's queue."""
        return not any(job.state in WAITING for job in self.submitted.values())

    def wait(self, timeout=None, check_status=(), remove_status=(), update=False):
        """Block until the trainers' job has ended with status 0. Raises JobException when a job fails before that."""
        del timeout, check_status, remove_status, update
        while True:
            self.check_alive()
            self.echo()
            trainers = [job for job in self.submitted.values() if job.name.startswith("trainer")]
            if trainers and all(job.state == "COMPLETED" for job in trainers):
                self.echo()
                return
            time.sleep(cluster.POLL_SECONDS)

    def stop_all(self, force=False):
        """Cancel every job of this launch and wait until Slurm has ended it."""
        del force
        active = list(self.submitted)
        if active:
            _ask(["scancel", *map(str, active)])
        deadline = time.monotonic() + STOP_SECONDS
        while active:
            shown = _ask(["squeue", "-h", "-o", "%i", "-j", ",".join(map(str, active))])
            active = [int(word) for word in shown.stdout.split()]
            if active and time.monotonic() > deadline:
                print(
                    f"[launcher] still ending after {STOP_SECONDS:.0f} s: Slurm job(s) {', '.join(map(str, active))}",
                    file=sys.stderr,
                    flush=True,
                )
                break
            if active:
                time.sleep(cluster.POLL_SECONDS)
        self.echo()
        for path in self.job_folder.glob("*.description"):
            path.unlink()
        self.submitted.clear()
        self.jobs.clear()


def command_of(text: str) -> list[str]:
    """AReaL's command line as a list that starts a program of this environment.

    >>> command_of('bash -c "torchrun --master-port=$trainer_port train.py \\'a=[\\"b\\"]\\'"')[2].split()[-3:]
    ['--master-port=$trainer_port', 'train.py', '\\'a=["b"]\\'']
    """
    bash = 'bash -c "'
    if text.startswith(bash):
        inner = text.removeprefix(bash).removesuffix('"').replace('\\"', '"')
        launch = f"{shlex.quote(sys.executable)} -m torch.distributed.run "
        return [shutil.which("bash") or "/bin/bash", "-c", re.sub(r"^torchrun ", launch, inner, flags=re.M)]
    argv = shlex.split(text)
    argv[0] = sys.executable if argv[0] == "python3" else argv[0]
    return [
        "areal.launcher.sglang_server" if word == "areal.infra.launcher.sglang_server" else word
        for word in argv
    ]


def _ask(command: list[str]) -> subprocess.CompletedProcess:
    variables = {name: value for name, value in os.environ.items() if not OF_AN_ALLOCATION.match(name)}
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=variables)
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not there")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"{command[0]} did not answer within 60 s")
