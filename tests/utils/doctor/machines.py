"""Machines that the doctor is asked about, and the shipped configurations."""

from dataclasses import replace
from pathlib import Path

from utils.doctor import machine

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml") if path.stem != "base")
GIB = 2**30


def node(num_gpus=8, gigabytes=80, name="NVIDIA H100 80GB HBM3"):
    """A machine with the GPU profile installed."""
    pins = machine.pinned_versions("gpu")
    return machine.Machine(
        gpus=tuple(machine.Gpu(name, gigabytes * GIB) for _ in range(num_gpus)),
        driver="570.86.10",
        host_memory_bytes=1024 * GIB,
        free_disk_bytes=2000 * GIB,
        versions={name: pins[name] for name in (*machine.PINNED, "flash-attn")},
    )


def without_gpu():
    pins = machine.pinned_versions("cpu")
    return machine.Machine(
        host_memory_bytes=24 * GIB, free_disk_bytes=50 * GIB, versions={n: pins[n] for n in machine.PINNED}
    )


def machine_for(stem):
    if "digits" in stem or "zoom" in stem:
        return without_gpu()
    if "24gb" in stem:
        return replace(node(1, 24, "NVIDIA GeForce RTX 4090"), host_memory_bytes=128 * GIB)
    return replace(node(1), host_memory_bytes=128 * GIB) if "80gb" in stem else node()
