"""Runs one process of a cluster run on its node, and knows how it ended: `python -P job.py [DESCRIPTION.json]`.

Ray's tasks and Slurm's steps start this file by its path, so it needs the standard library and psutil alone: a node
whose environment is broken still says so. Without an argument the description is read from standard input.

What the description holds (JSON):
    name            for messages, such as `trainer:0`
    argv, env       the command, and variables that are added to this process's own; lists of them, one for every task
                    of a Slurm step
    cwd             working directory of the command
    drop            prefixes of variables of this process that the command does not get
    log             file that its output is appended to; null: this process's own output
    witness         file that the launcher has made below `cluster.fileroot`: the node must see it
    state           file that holds, while it runs and when it has ended, what `State` describes
    host            address of this node for others; null: found out here
    with_parent     end when the process that started this one ends

The exit status is the command's own (128 + N after signal N, 1 when one of a server's processes died under it).
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

POLL_SECONDS = 0.2
INNER_SECONDS = 1.0  # between looks at a server's processes
GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL
SHARED_SECONDS = 20.0  # a network file system may show a new file late
MEETING_SECONDS = 120.0  # until every task of a Slurm step has named its address
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)
UNUSABLE = 125  # exit status of a node that could not run the command


class NodeUnusable(Exception):
    """This node lacks what the run needs; the message says what."""


def main(arguments: list[str]) -> int:
    text = Path(arguments[0]).read_text() if arguments else sys.stdin.read()
    description = json.loads(text)
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, _: stopped.append(signum))
    if description.get("with_parent"):
        _end_with_parent()
        # A Ray worker that ends kills its children with SIGKILL, which could not end theirs: be a grandchild.
        child = os.fork()
        if child:
            return _stand_in_between(child, stopped)
        _end_with_parent()
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans of the command are handed to this process
    try:
        argv, variables = prepare(description)
    except NodeUnusable as error:
        how = f"could not start on {host_name(description)}: {error}"
        report(description, ended(UNUSABLE, how))
        print(f"[launcher] {description['name']} {how}", flush=True)
        return UNUSABLE
    state = run(description, argv, variables, stopped)
    report(description, state)
    return state["status"]


def prepare(description: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """(command, environment) on this node. Raises NodeUnusable."""
    index = int(os.environ.get("SLURM_PROCID", "0"))
    argv, env = description["argv"], description["env"]
    if isinstance(argv[0], list):
        argv, env = argv[index], env[index]
    if not os.path.isdir(description["cwd"]):
        raise NodeUnusable(
            f"it has no folder {description['cwd']}; the project must lie on a file system that every node sees"
        )
    if not os.access(argv[0], os.X_OK):
        raise NodeUnusable(f"it has no {argv[0]}; the environment must lie where every node sees it")
    deadline = time.monotonic() + SHARED_SECONDS
    while not os.path.exists(description["witness"]):
        if time.monotonic() > deadline:
            raise NodeUnusable(
                f"it does not see {description['witness']}, which the launcher has written; cluster.fileroot must lie "
                "on a file system that every node sees"
            )
        time.sleep(POLL_SECONDS)
    dropped = tuple(description["drop"])
    kept = {name: value for name, value in os.environ.items() if not (dropped and name.startswith(dropped))}
    host = description.get("host") or address()
    variables = {**kept, **env, "AREAL_SERVER_HOST": host, "PYTHONUNBUFFERED": "1"}
    # Processes of AReaL call `python3` and `torchrun` by name: make that this environment's.
    variables["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), variables.get("PATH", os.defpath)])
    if "SLURM_JOB_ID" in os.environ:
        variables = meet(description, host, index, variables)
    return argv, variables


def meet(description: dict[str, Any], host: str, index: int, variables: dict[str, str]) -> dict[str, str]:
    """`variables` with the address and a free port of every task of this Slurm step, exchanged in the shared folder.

    AReaL's commands refer to them: `$head_node_ip`, `$trainer_port`, `${master_addrs[N]}`, `${master_ports[N]}`.
    Raises NodeUnusable when another task does not appear.
    """
    count, job = int(os.environ.get("SLURM_NTASKS", "1")), os.environ["SLURM_JOB_ID"]
    folder = Path(description["witness"]).parent
    own = folder / f"{job}.{index}.address"
    own.with_suffix(".new").write_text(f"{host} {free_port(host)}")
    os.replace(own.with_suffix(".new"), own)
    found: list[list[str]] = []
    deadline = time.monotonic() + MEETING_SECONDS
    for other in range(count):
        place = folder / f"{job}.{other}.address"
        while not place.exists():
            if time.monotonic() > deadline:
                raise NodeUnusable(f"task {other} of {count} did not appear within {MEETING_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)
        found.append(place.read_text().split())
    known = {"head_node_ip": found[0][0], "trainer_port": found[0][1]}

    def fill(match: re.Match) -> str:
        return found[int(match[2])][0 if match[1] == "addrs" else 1]

    filled = {
        name: re.sub(r"\$\{master_(addrs|ports)\[(\d+)\]\}", fill, value) for name, value in variables.items()
    }
    return {**filled, **known}


def run(
    description: dict[str, Any], argv: list[str], variables: dict[str, str], stopped: list[int]
) -> dict[str, Any]:
    """Run the command to its end, or until a signal arrives; afterwards nothing that it started is left."""
    log = description.get("log")
    with open(log, "ab") if log else open(os.devnull, "ab") as sink:
        if log:
            sink.write(f"\n=== {time.strftime('%F %T')} on {host_name(description)}\n".encode())
            sink.flush()
        output = sink if log else None
        child = subprocess.Popen(
            argv,
            cwd=description["cwd"],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if log else None,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 -- this process has one thread
        )
        report(description, {"state": "running", "pid": child.pid})
        try:
            return {**_watch(child, stopped), "pid": child.pid}
        finally:
            end_descendants()


def _watch(child: subprocess.Popen, stopped: list[int]) -> dict[str, Any]:
    inner: dict[psutil.Process, str] = {}
    looked = 0.0
    while True:
        status = child.poll()
        if status is not None:
            time.sleep(
                POLL_SECONDS
            )  # Slurm signals every process of a step: the command may be the first to end
            if stopped:
                return _stopped(stopped[0])
            if status < 0:
                return ended(128 - status, f"was killed by {signal.Signals(-status).name}")
            return ended(status, f"exited with status {status}")
        if stopped:
            return _stopped(stopped[0])
        if time.monotonic() - looked > INNER_SECONDS:
            looked = time.monotonic()
            _reap(child.pid)
            dead = next((p for p in inner if not _is_alive(p)), None)
            # A server's own end takes its processes along: wait for its status.
            if dead is not None and child.poll() is None:
                time.sleep(INNER_SECONDS)
                if child.poll() is None:
                    return ended(1, f"lost its process {dead.pid} ({inner[dead]})")
                continue
            inner |= _inner_processes(child.pid)
        time.sleep(POLL_SECONDS)


def _stopped(number: int) -> dict[str, Any]:
    return ended(128 + number, f"was stopped by {signal.Signals(number).name}", stopped=True)


def _reap(own_child: int) -> None:
    """Bury orphans that were handed to this process and have ended."""
    for process in psutil.Process().children():
        try:
            if process.pid != own_child and process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)
        except (psutil.NoSuchProcess, ChildProcessError):
            continue


def _inner_processes(pid: int) -> dict[psutil.Process, str]:
    """SGLang's scheduler and detokenizer, which it survives mute."""
    found = {}
    try:
        for process in psutil.Process(pid).children(recursive=True):
            try:
                title = " ".join(process.cmdline()).strip()
            except psutil.Error:
                continue
            if title.startswith("sglang::"):
                found[process] = title.split()[0]
    except psutil.NoSuchProcess:
        pass
    return found


def end_descendants() -> None:
    """End every process below this one: SIGTERM, `GRACE_SECONDS`, SIGKILL."""
    me = psutil.Process()
    for sign in ("terminate", "kill"):
        processes = me.children(recursive=True)
        for process in processes:
            try:
                getattr(process, sign)()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(processes, timeout=GRACE_SECONDS)


def ended(status: int, how: str, *, stopped: bool = False) -> dict[str, Any]:
    """What the launcher reads of a command that has ended."""
    return {
        "state": "ended",
        "status": status,
        "how": how,
        "stopped": stopped,
        "time": time.time(),
    }


def host_name(description: dict[str, Any]) -> str:
    """What the cluster calls this node."""
    return description.get("host") or os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def report(description: dict[str, Any], state: dict[str, Any]) -> None:
    """Leave `state` where the launcher looks for it; a node that does not see the folder only prints."""
    if not description.get("state"):
        return
    state = {**state, "host": host_name(description)}
    path = Path(description["state"].replace("{index}", os.environ.get("SLURM_PROCID", "0")))
    try:
        path.with_suffix(".new").write_text(json.dumps(state))
        os.replace(path.with_suffix(".new"), path)
    except OSError as error:
        print(f"[launcher] {path}: {error}", flush=True)


def address() -> str:
    """The address of this node for the others: the one that Slurm knows it by, else that of its default route."""
    node = os.environ.get("SLURMD_NODENAME")
    if node:
        try:
            shown = subprocess.run(
                ["scontrol", "show", "node", node, "-o"],
                capture_output=True,
                text=True,
                check=False,
                timeout=30,
            )
            named = re.search(r"NodeAddr=(\S+)", shown.stdout)
            found = socket.gethostbyname(named[1]) if named else "127."
            if named and (found == named[1] or not found.startswith("127.")):
                return found
        except (OSError, subprocess.TimeoutExpired):
            pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


def free_port(host: str = "") -> int:
    """A TCP port of this node that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _end_with_parent() -> None:
    """Get SIGTERM when the process that started this one ends; at once if it has ended already."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() == 1:
        os.kill(os.getpid(), signal.SIGTERM)


def _stand_in_between(child: int, stopped: list[int]) -> int:
    """Hand signals on until the child ends; its exit status."""
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if stopped:
            os.kill(child, signal.SIGTERM)
            stopped.clear()
        time.sleep(POLL_SECONDS)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
