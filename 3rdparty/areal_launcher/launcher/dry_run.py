"""`--dry-run`: what a launch would run, where, and what it would cost. Starts nothing and writes nothing."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import sys
from dataclasses import dataclass
from typing import Any

from areal.api.alloc_mode import _AllocationMode
from areal.api.cli_args import SGLangConfig, get_py_cmd
from areal.infra.platforms import current_platform
from omegaconf import OmegaConf

PORT, MASTER = "PORT", "ADDRESS:PORT"  # found free at the real launch


@dataclass(frozen=True)
class Process:
    """One process of a run: `devices` are GPU numbers on `node`, empty on a CPU."""

    name: str
    node: int
    devices: tuple[int, ...]
    command: str


def describe(config: Any, argv: list[str], launcher: str) -> tuple[str, int]:
    """(text, exit status): the resolved configuration, the processes, and the project's own estimate of memory where it
    has one, whose exit status it is then.
    """
    plain, words = OmegaConf.to_container(config, resolve=True), argv
    if importlib.util.find_spec("utils.masking") is not None:
        masking = importlib.import_module("utils.masking")
        plain, words = masking.masked(plain), masking.masked_arguments(argv)
    parts = ["# --- configuration, resolved", OmegaConf.to_yaml(plain).rstrip()]
    parts.append(f"# --- processes that {launcher} would start")
    for process in processes(OmegaConf.create(plain), words, launcher):
        devices = ",".join(map(str, process.devices)) or "none (CPU)"
        parts.append(f"{process.name}: node {process.node}, GPU {devices}\n    {process.command}")
    if importlib.util.find_spec("utils.doctor.report") is not None:
        doctor = importlib.import_module("utils.doctor.report")
        text, status = doctor.describe(argv)
        return "\n".join([*parts, "# --- memory and time", text]), status
    return "\n".join(parts), 0


def processes(config: Any, argv: list[str], launcher: str) -> list[Process]:
    """Servers, then trainer ranks. Servers come first on the GPUs; on one machine the count goes round, as AReaL's
    local launcher does, so that server and trainer meet on a GPU when there are fewer GPUs than the allocation names.
    """
    mode = _AllocationMode.from_str(config.allocation_mode)
    per_node, total = config.cluster.n_gpus_per_node, config.cluster.n_nodes * config.cluster.n_gpus_per_node
    on_cpu = current_platform.device_type == "cpu" and config.actor.get("dtype") == "float32"
    found = []
    for index in range(mode.gen.dp_size):
        size = mode.gen.tp_size * mode.gen.pp_size
        numbers = [(index * size + i) % total for i in range(size)]
        found.append(_server(config, mode, index, numbers, on_cpu=on_cpu))
    for rank in range(mode.train.world_size):
        number = (mode.gen.world_size + rank) % total
        local_ranks = mode.train.world_size if launcher == "local" else per_node
        found.append(
            Process(
                f"trainer rank {rank}",
                number // per_node,
                () if on_cpu else (number % per_node,),
                _trainer_command(argv, launcher, local_ranks, rank),
            )
        )
    return found


def _server(config: Any, mode: Any, index: int, numbers: list[int], *, on_cpu: bool) -> Process:
    options = SGLangConfig(**OmegaConf.to_container(config.sglang, resolve=True))
    options.random_seed += index
    per_node = config.cluster.n_gpus_per_node
    args = SGLangConfig.build_args(
        options,
        tp_size=mode.gen.tp_size,
        base_gpu_id=numbers[0] % per_node,
        host="127.0.0.1" if config.cluster.n_nodes == 1 else "NODE_ADDRESS",
        dist_init_addr=MASTER,
        pp_size=mode.gen.pp_size,
    )
    args["port"] = PORT
    if on_cpu:
        import sglang_cpu

        args |= {
            name.replace("-", "_"): value for name, value in sglang_cpu.flags().items() if name != "dtype"
        }
        command = get_py_cmd("sglang_cpu.launch_server", args)
    else:
        command = SGLangConfig.build_cmd_from_args(args)
    devices = () if on_cpu else tuple(number % per_node for number in numbers)
    return Process(f"server {index}", numbers[0] // per_node, devices, shlex.join(map(str, command)))


def _trainer_command(argv: list[str], launcher: str, local_ranks: int, rank: int) -> str:
    python = os.path.basename(sys.executable)
    if launcher == "ray":  # a task on its node starts it
        return f"RANK={rank} {python} {shlex.join(argv)}"
    return f"{python} -m torch.distributed.run --nproc-per-node {local_ranks} ... {shlex.join(argv)}"
