"""What this machine has: GPUs, memory, disk, free ports, installed versions. Asked once, cheaply, without torch."""

from __future__ import annotations

import random
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20
SERVER_PORTS = range(10_000, 32_768)  # from which AReaL takes ports for servers and torchrun
NUM_PORT_PROBES = 32
PINNED = ("areal", "sglang", "transformers", "torch", "torchvision", "math-verify", "datasets")


@dataclass(frozen=True)
class Gpu:
    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Machine:
    """Facts that the doctor's checks look at; tests build their own."""

    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    host_memory_bytes: int = 0
    free_disk_bytes: int = 0  # where runs are written
    num_free_ports: int = NUM_PORT_PROBES  # of NUM_PORT_PROBES tried
    versions: dict[str, str] = field(default_factory=dict)  # of PINNED, and flash-attn where it is installed


def look(folder: str | Path) -> Machine:
    """The machine this runs on; `folder` is where runs will be written (its nearest existing parent counts)."""
    gpus, driver = _gpus()
    place = Path(folder).resolve()
    while not place.exists():
        place = place.parent
    return Machine(
        gpus=gpus,
        driver=driver,
        host_memory_bytes=_host_memory(),
        free_disk_bytes=shutil.disk_usage(place).free,
        num_free_ports=_free_ports(),
        versions=_versions(),
    )


def pinned_versions(profile: str) -> dict[str, str]:
    """Versions that `install.sh` installs for a profile (`cpu` or `gpu`), by lower-case name with dashes."""
    pins = {}
    for name in (f"constraints-{profile}.txt", *(["requirements-gpu-build.txt"] if profile == "gpu" else [])):
        for line in (ROOT / "3rdparty" / name).read_text().splitlines():
            match = re.match(r"([A-Za-z0-9_.-]+)==([^\s;]+)", line)
            if match:
                pins[match[1].lower().replace("_", "-")] = match[2]
    return pins


def _gpus() -> tuple[tuple[Gpu, ...], str]:
    if shutil.which("nvidia-smi") is None:
        return (), ""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    result = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    if result.returncode != 0:
        return (), ""
    rows = [[cell.strip() for cell in line.split(",")] for line in result.stdout.splitlines() if line.strip()]
    return tuple(Gpu(name, int(megabytes) * MIB) for name, megabytes, _ in rows), rows[0][2] if rows else ""


def _host_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _free_ports() -> int:
    free = 0
    for port in random.sample(SERVER_PORTS, NUM_PORT_PROBES):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            free += 1
    return free


def _versions() -> dict[str, str]:
    found = {}
    for name in (*PINNED, "flash-attn"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
