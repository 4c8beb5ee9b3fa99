"""A `LocalLauncher` that knows how its jobs ended.

AReaL's own local launcher cannot tell success from failure (`sh -c "... | tee"` hides the exit status), waits up to
1200 s for a server that is already dead, and leaves processes behind. This subclass starts jobs without a shell, keeps
their exit status, starts dead servers again (servers.py), names what hangs (watchdog.py), and ends everything it
started.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from areal.infra.launcher import local as areal_local
from areal.infra.utils.launcher import JobException, JobState
from areal.launcher import live
from areal.launcher.readable import ReadableLog, full_log
from areal.launcher.servers import ServerLostError, Servers, how_it_ended
from areal.launcher.watchdog import HangError, Watchdog
from areal.utils import name_resolve, names

POLL_SECONDS = 0.25
GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL
TAIL_LINES = 25
FINAL = b"[grpo] starting again would end the same way\n"  # said by a trainer (trains/report.py)
# torchrun's own words about a rank that failed: the rank's are above them
TORCHRUN = re.compile(
    rb"elastic/multiprocessing/api\.py.*(failed \(exitcode|Sending process)|^Fatal Python error: Aborted"
)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Job:
    """One started process: `log` gets everything it prints, `process` its exit status.

    A trainer's `readable` log is what people read of it (`readable.py`).
    """

    name: str
    process: subprocess.Popen
    log: Path
    environment: dict[str, str]
    echoed: int = 0  # bytes of `log` already shown on the console
    begin: int = 0  # where in `log` this process begins; earlier starts stand before
    readable: ReadableLog | None = None


class SupervisedLauncher(areal_local.LocalLauncher):
    """Same interface as AReaL's `LocalLauncher`; see the module docstring for what differs."""

    active: SupervisedLauncher | None = None
    max_server_restarts = 0  # `launcher.max_server_restarts`
    hang_floor_seconds: float | None = None  # `launcher.hang_floor_seconds`

    def __init__(self, experiment_name: str, trial_name: str, fileroot: str):
        # Orphans of a killed job are handed to this process, so that `stop_all` finds them.
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._not_ours = {process.pid for process in psutil.Process().children(recursive=True)}
        if SupervisedLauncher.active is not None:
            self._announce("everything is started again, to continue from the last checkpoint")
        self.failure: str | None = None
        self.status = 0
        self.live = live.make(Path(fileroot) / experiment_name / trial_name)
        self.servers: Servers | None = None
        self.watchdog: Watchdog | None = None
        super().__init__(experiment_name, trial_name, fileroot)
        SupervisedLauncher.active = self

    def __del__(self):
        """AReaL's waits for every job here; `stop_all` has already ended them."""

    def submit_array(self, job_name, cmd, count=1, gpu=0, env_vars=None):
        """Start `count` processes; `cmd` is a shell-quoted string as AReaL builds it. Logs are appended."""
        commands = cmd if isinstance(cmd, list) else [cmd] * count
        for command in commands:
            environment = {
                **os.environ,
                **{k: str(v) for k, v in (env_vars or {}).items()},
                "PYTHONUNBUFFERED": "1",
                "PYTHONFAULTHANDLER": "1",  # SIGABRT has a process write down where all its threads are
                live.VARIABLE: str(self.live),
            }
            if gpu > 0:
                devices = [
                    self._gpu_devices[(self._gpu_counter + i) % len(self._gpu_devices)] for i in range(gpu)
                ]
                self._gpu_counter += gpu
                environment[areal_local.current_platform.device_control_env_var] = ",".join(devices)
            # Processes of AReaL call `python3` and `torchrun` by name: make that this environment's.
            environment["PATH"] = os.pathsep.join(
                [os.path.dirname(sys.executable), environment.get("PATH", "")]
            )
            named = log = Path(self.log_path_of(job_name))
            if job_name.startswith("trainer"):
                log = full_log(named)
            argv = _rewrite(shlex.split(command))
            with log.open("ab") as sink:
                sink.write(f"\n=== {time.strftime('%F %T')} {shlex.join(argv)}\n".encode())
                sink.flush()
                process = subprocess.Popen(
                    argv,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C on the terminal reaches the launcher alone
                    preexec_fn=_die_with_parent,  # noqa: PLW1509 -- this process has one thread
                )
            index = self._job_counter[job_name]
            self._job_counter[job_name] += 1
            size = log.stat().st_size
            self._jobs[f"{job_name}/{index}"] = Job(
                f"{job_name}/{index}", process, log, environment, echoed=size, begin=size
            )
            if log != named:
                readable = self._jobs[f"{job_name}/{index}"].readable = ReadableLog(named)
                readable.append(["", f"=== {time.strftime('%F %T')} {shlex.join(argv)}"])
            print(f"[launcher] started {job_name}/{index} (pid {process.pid}), log: {named}", flush=True)

    def wait(self, timeout=None, check_status=(), remove_status=(), update=False):
        """Block until the trainer ends. Returns on success.

        Raises:
            JobException: a trainer failed or a server died; `self.failure` holds the message, `self.status` the
                exit status to report.
        """
        del timeout, check_status, remove_status, update  # AReaL's polling knobs have no use here
        while True:
            self.check_alive()
            self.reap_orphans()
            self.echo()
            trainers = [job for name, job in self._jobs.items() if name.startswith("trainer")]
            if trainers and all(job.process.poll() == 0 for job in trainers):
                self.echo(to_the_end=True)
                return
            time.sleep(POLL_SECONDS)

    def check_alive(self) -> None:
        """Raise `JobException` when a job has failed; a trainer that ended with status 0 is no failure, a server is
        started again.
        """
        for name, job in self._jobs.items():
            status, is_server = job.process.poll(), name.startswith("llm_server")
            if status is None:
                if is_server:
                    self._watch_servers(job)
            elif is_server and self.servers is not None:
                self._guarded(job, lambda: self.servers.lose_all("lost the process that started it"))
                self._watch_servers(job)
            elif status != 0 or not name.startswith("trainer"):
                self._fail(job, how_it_ended(status), 128 - status if status < 0 else status or 1)
        if self.watchdog is not None:
            self._watch_hangs()

    def _watch_servers(self, job: Job) -> None:
        if self.servers is not None:
            self._guarded(job, self.servers.watch)

    def adopt_servers(self) -> None:
        """All of them are ready: from now on a dead one is started again."""
        job = self._jobs["llm_server/0"]
        self.servers = Servers(self.live, job.log, job.environment, self.max_server_restarts, self._announce)
        self._guarded(job, self.servers.adopt)
        if self.hang_floor_seconds is not None:
            trainer_log = full_log(Path(self.log_path_of("trainer")))
            self.watchdog = Watchdog(
                self.live, trainer_log, self.servers, self.hang_floor_seconds, self._announce
            )

    def _guarded(self, job: Job, action) -> None:
        try:
            action()
        except ServerLostError as error:
            self._fail(job, f"is lost: {error}", 1)

    def _watch_hangs(self) -> None:
        """Name what hangs: a server is started again, anything else ends the run."""
        try:
            self.watchdog.look()
        except HangError as error:
            job = next(job for name, job in self._jobs.items() if name.startswith(error.job))
            self._fail(job, f"hangs: {error}", 1)
        except ServerLostError as error:
            self._fail(self._jobs["llm_server/0"], f"is lost: {error}", 1)

    def _announce(self, text: str) -> None:
        print(f"[launcher] {text}", flush=True)

    def reap_orphans(self) -> None:
        """Take the exit status of adopted processes: each would stay in the process table until the run ends."""
        known = {job.process.pid for job in self._jobs.values()} | self._not_ours
        known |= {server.popen.pid for server in self.servers or () if server.popen is not None}
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None or ended.si_pid in known:  # the status of a job is `Popen`'s to take
                return
            os.waitpid(ended.si_pid, 0)

    def _fail(self, job: Job, how: str, status: int) -> None:
        self.echo(to_the_end=True)
        said, log = job.log.read_bytes(), job.readable.path if job.readable else job.log
        # AReaL starts a trainer that has failed again, `recover.retries` times; one that was cancelled it does not.
        is_final = job.name.startswith("trainer") and FINAL in said[job.begin :]
        self.status = status
        self.failure = (
            f"{job.name} {how}; its log: {log}\n--- last lines of {log.name} ---\n"
            f"{last_words(log.read_bytes()[-200_000:])}\n---"
        )
        print(f"[launcher] {self.failure}", file=sys.stderr, flush=True)
        reason = JobState.CANCELLED if is_final else JobState.FAILED
        raise JobException(self.run_name, job.name.split("/")[0], "local", reason)

    def echo(self, to_the_end: bool = False) -> None:
        """Copy what the trainers printed: to the console the lines for people, which start with `[`name`] `, to the
        readable log all but noise. `to_the_end`: a last line that was not ended, too.
        """
        for name, job in self._jobs.items():
            if not name.startswith("trainer"):
                continue
            with job.log.open("rb") as log:
                log.seek(job.echoed)
                new = log.read()
            complete = new if to_the_end else new[: new.rfind(b"\n") + 1]
            job.echoed += len(complete)
            everything = os.environ.get("AREAL_LAUNCHER_ECHO") == "all"
            lines = complete.decode(errors="replace").removesuffix("\n").split("\n") if complete else []
            job.readable.append(lines)
            for line in lines:
                if everything or line.startswith(("[grpo] ", "[eval] ")):
                    print(line, flush=True)

    def stop_all(self, signal=None):
        """End every process that came to stand below this one: SIGTERM, `GRACE_SECONDS`, SIGKILL."""
        del signal
        me = psutil.Process()
        for sign in ("terminate", "kill"):
            processes = [p for p in me.children(recursive=True) if p.pid not in self._not_ours]
            for process in processes:
                try:
                    getattr(process, sign)()
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(processes, timeout=GRACE_SECONDS)
        self._jobs.clear()
        self._job_counter.clear()


def wait_for_servers(experiment_name, trial_name, n_rollout_servers=1, timeout=1200):
    """Stands for AReaL's `wait_llm_server_addrs` in the launcher: stops at once when a server dies."""
    launcher = SupervisedLauncher.active
    start = time.monotonic()
    while time.monotonic() - start < timeout:
        addresses = name_resolve.get_subtree(names.gen_servers(experiment_name, trial_name))
        if len(addresses) >= n_rollout_servers:
            if launcher is not None:
                launcher.adopt_servers()
            return addresses
        if launcher is not None:
            launcher.check_alive()
        time.sleep(POLL_SECONDS)
    raise TimeoutError(
        f"{n_rollout_servers} rollout servers expected, {len(addresses)} ready after {timeout} s"
    )


def _rewrite(argv: list[str]) -> list[str]:
    """Replace program names that AReaL expects on PATH, and its server wrapper by ours."""
    programs = {"python3": [sys.executable], "torchrun": [sys.executable, "-m", "torch.distributed.run"]}
    argv = programs.get(argv[0], [argv[0]]) + argv[1:]
    return ["areal.launcher.sglang_server" if a == "areal.infra.launcher.sglang_server" else a for a in argv]


def last_words(log: bytes) -> str:
    """The last lines of a log before torchrun's own about a rank that has failed."""
    lines = log.splitlines()
    start = max((i for i, line in enumerate(lines) if line.startswith(b"=== ")), default=0)  # of this start
    lines = lines[start:]
    end = next((i for i, line in enumerate(lines) if TORCHRUN.search(line)), len(lines))
    while end > 0 and not lines[end - 1].strip():
        end -= 1
    return b"\n".join(lines[max(0, end - TAIL_LINES) : end]).decode(errors="replace")


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
