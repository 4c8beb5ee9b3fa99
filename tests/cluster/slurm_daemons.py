"""Slurm on this machine for as long as a test needs it: munged, slurmctld and two slurmd with a made-up GPU each.

Everything lies below one folder and listens on ports of its own: a Slurm that is configured here is not touched. Needs
root; `install()` gets Debian's packages where they are missing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge")
NODES = ("alpha", "beta")
DAEMONS = ("munged", "slurmctld", "slurmd")
READY_SECONDS = 120
LOOPBACK = "127.0.0.1"

SLURM_CONF = """
ClusterName=llavatest
SlurmctldHost={host}({loopback})
SlurmctldPort={ctld_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=2,batch_sched_delay=0
GresTypes=gpu
KillWait=10
MinJobAge=300
InactiveLimit=0
{nodes}
PartitionName=all Nodes={names} Default=YES MaxTime=INFINITE OverTimeLimit=0 State=UP
"""


def install() -> str | None:
    """Install what is missing; what stands against it, None when Slurm can be started."""
    if os.geteuid() != 0:
        return "Slurm's daemons want root"
    if all(shutil.which(name) for name in DAEMONS):
        return None
    if shutil.which("apt-get") is None:
        return f"no {', '.join(DAEMONS)}, and no apt-get to install them"
    policy = Path("/usr/sbin/policy-rc.d")  # keeps apt from starting the daemons
    is_ours = not policy.exists()
    try:
        if is_ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES],
        ):
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if done.returncode:
                return f"{' '.join(command)}: {done.stderr.strip()[-500:]}"
    finally:
        if is_ours:
            policy.unlink(missing_ok=True)
    return None


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the variables with which Slurm's commands talk to daemons that end with the block.

    Raises RuntimeError with the end of their logs when the nodes do not come up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("munge", "state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir(exist_ok=True)
    configuration = _configure(folder)
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    started: list[subprocess.Popen] = []

    def start(*command: str) -> None:
        with (folder / f"{command[0]}.out").open("ab") as output:
            started.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    try:
        munge = folder / "munge"
        start(
            "munged", "--foreground", "--force", f"--key-file={munge}/key", f"--socket={munge}/socket",
            f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed",
        )  # fmt: skip
        _until((munge / "socket").exists, "munged made no socket", folder)
        start("slurmctld", "-D", "-f", str(configuration))
        for node in NODES:
            start("slurmd", "-D", "-f", str(configuration), "-N", node)

        def are_idle() -> bool:
            shown = subprocess.run(
                ["sinfo", "-h", "-N", "-o", "%T"],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            return shown.stdout.split() == ["idle"] * len(NODES)

        _until(are_idle, "the nodes are not idle", folder)
        yield {"SLURM_CONF": str(configuration)}
    finally:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["scancel", "-u", "root"], env=environment, timeout=20, check=False)
            _wait_for_no_jobs(environment)
        for process in reversed(started):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for device in folder.glob("gpu*"):
            device.unlink()


def _configure(folder: Path) -> Path:
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(64))
    key.chmod(0o400)
    folder.chmod(0o755)
    ports = free_ports(1 + len(NODES))
    lines, gres = [], []
    for index, node in enumerate(NODES):
        device = folder / f"gpu{index}"
        if not device.exists():
            os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))  # /dev/null under another name
        lines.append(
            f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr={LOOPBACK} Port={ports[1 + index]} "
            "CPUs=4 RealMemory=16000 Gres=gpu:1 State=UNKNOWN"
        )
        gres.append(f"NodeName={node} Name=gpu File={device}")
    (folder / "gres.conf").write_text("\n".join(gres) + "\n")
    configuration = folder / "slurm.conf"
    configuration.write_text(
        SLURM_CONF.format(
            folder=folder,
            host=socket.gethostname(),
            loopback=LOOPBACK,
            ctld_port=ports[0],
            nodes="\n".join(lines),
            names=",".join(NODES),
        )
    )
    return configuration


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback address that nobody listens on at the moment."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]


def _wait_for_no_jobs(environment: dict[str, str]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        shown = subprocess.run(
            ["squeue", "-h"], env=environment, capture_output=True, text=True, timeout=20, check=False
        )
        if shown.returncode or not shown.stdout.strip():
            return
        time.sleep(0.5)


def _until(condition, complaint: str, folder: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            logs = "".join(
                f"\n--- {path.name}\n{path.read_text(errors='replace')[-1500:]}"
                for path in [*folder.glob("*.log"), *folder.glob("*.out")]
            )
            raise RuntimeError(f"{complaint} after {READY_SECONDS} s{logs}")
        time.sleep(0.25)
