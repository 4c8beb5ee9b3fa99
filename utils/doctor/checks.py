"""The checks behind `python -m utils.doctor`, in the order in which they are made.

The trainer's own refusals (trains/gate.py) come before; these `CHECKS` need a `Plan`. A check yields (is_problem,
message); a message names the key, the value got and the value wanted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from utils import capsule_option
from utils.doctor import memory_model
from utils.doctor.machine import NUM_PORT_PROBES, pinned_versions
from utils.doctor.plan import PIXELS_PER_TOKEN, Plan

GIB = memory_model.GIB
Finding = tuple[bool, str]


def check_capacity(plan: Plan) -> Iterator[Finding]:
    """What fits where, beyond the checks that `trains.config` makes before every launch."""
    data = plan.config.train_dataset
    if data.max_pixels and data.max_length and data.max_pixels // PIXELS_PER_TOKEN > data.max_length:
        yield (
            False,
            f"train_dataset.max_pixels={data.max_pixels} is up to {data.max_pixels // PIXELS_PER_TOKEN} tokens, more "
            f"than train_dataset.max_length={data.max_length}: prompts with large images are left out and counted; "
            f"max_pixels={max(data.max_length - 256, 4) * PIXELS_PER_TOKEN} would keep them, shrunk",
        )


def check_staleness(plan: Plan) -> Iterator[Finding]:
    """Concurrency against the number of prompts that eta allows."""
    rollout, batch = plan.config.rollout, plan.config.train_dataset.batch_size
    allowed = (rollout.max_head_offpolicyness + 1) * batch
    if rollout.max_concurrent_rollouts > allowed:
        yield (
            False,
            f"rollout.max_concurrent_rollouts={rollout.max_concurrent_rollouts} is never reached: staleness allows "
            f"(max_head_offpolicyness + 1) x batch_size = {allowed} prompts",
        )
    slots = (plan.config.sglang.max_running_requests or 256) * plan.config.allocation.gen.dp_size
    wanted = min(rollout.max_concurrent_rollouts, allowed) * plan.config.gconfig.n_samples
    if wanted < slots:
        yield (
            False,
            f"the servers have {slots} slots and get at most {wanted} requests at once; "
            f"raise rollout.max_concurrent_rollouts or eta",
        )


def check_devices(plan: Plan) -> Iterator[Finding]:
    """The allocation against the cluster, and the cluster against this machine."""
    config, needed = plan.config, plan.server_gpus + plan.train_gpus
    allocation = f"allocation_mode={config.allocation_mode!r}"
    per_node, nodes = config.cluster.n_gpus_per_node, config.cluster.n_nodes
    if nodes > 1:
        if needed != plan.num_gpus:
            yield (
                True,
                f"{allocation} uses {needed} GPUs, cluster has {nodes} x {per_node}: on several nodes they must agree",
            )
        elif plan.server_gpus % per_node:
            yield (
                True,
                f"{allocation}: {plan.server_gpus} server GPUs on nodes of {per_node}: the launchers give whole nodes "
                f"to servers and to trainers; wanted a multiple of {per_node}",
            )
    elif needed > plan.num_gpus and not plan.is_shared and not plan.is_cpu:
        yield (
            True,
            f"{allocation} uses {needed} GPUs, cluster.n_gpus_per_node={per_node}: wanted {needed}, or half of it to "
            f"have every GPU serve and train",
        )
    elif needed < plan.num_gpus and not plan.is_cpu:
        yield False, f"{allocation} uses {needed} of {plan.num_gpus} GPUs"
    if plan.is_shared and config.actor.weight_update_mode != "disk":
        yield (
            True,
            f"actor.weight_update_mode={config.actor.weight_update_mode!r}: server and trainer share a GPU, and NCCL "
            "takes one process per GPU; write disk",
        )
    if nodes == 1 and plan.here.gpus and len(plan.here.gpus) < per_node:
        yield True, f"cluster.n_gpus_per_node={per_node}, but this machine has {len(plan.here.gpus)}"
    if not plan.here.gpus and not plan.is_cpu:
        yield (
            False,
            "no GPU found (nvidia-smi): this is a plan for another machine. A run on a CPU wants actor.dtype=float32 "
            "and actor.attn_impl=sdpa",
        )


def check_memory(plan: Plan) -> Iterator[Finding]:
    """Every role against its GPU, the KV cache against a request, offloaded state against the host."""
    if plan.is_cpu:
        return
    limit, config = plan.gpu_memory_bytes, plan.config
    trainer, server = (memory_model.peak(plan.roles[role]) for role in ("trainer", "server"))
    if plan.is_shared and trainer + server > limit:
        yield (
            True,
            f"server ({server / GIB:.1f} GiB) and trainer ({trainer / GIB:.1f} GiB) share a GPU of {limit / GIB:.0f} "
            "GiB; lower sglang.mem_fraction_static or actor.mb_spec.max_tokens_per_mb, or write "
            "actor.fsdp.offload_params: true",
        )
    elif trainer > limit:
        yield (
            True,
            f"the trainer needs about {trainer / GIB:.1f} GiB of {limit / GIB:.0f} per GPU; use more fsdp ranks, a "
            f"smaller actor.mb_spec.max_tokens_per_mb (now {config.actor.mb_spec.max_tokens_per_mb}), or "
            "actor.fsdp.offload_params: true",
        )
    elif trainer > 0.9 * limit:
        yield (
            False,
            f"the trainer needs about {trainer / GIB:.1f} GiB of {limit / GIB:.0f}: fragmentation may decide",
        )
    occupied = server if plan.is_shared else 0.0
    if plan.load_bytes + occupied > limit >= trainer + occupied:
        yield (
            True,
            f"each trainer rank reads the whole model onto its GPU first, {plan.load_bytes / GIB:.1f} GiB beside "
            f"{occupied / GIB:.1f} of {limit / GIB:.0f}; write actor.fsdp.memory_efficient_load: true",
        )
    if plan.kv_capacity < plan.longest:
        yield (
            True,
            f"sglang.mem_fraction_static={config.sglang.mem_fraction_static} leaves a KV cache of {plan.kv_capacity} "
            f"tokens, less than one request of {plan.longest}; raise it or the tensor parallelism (sglang:dNtM)",
        )
    in_host = memory_model.peak(plan.roles["trainer"], "cpu") * config.cluster.n_gpus_per_node
    if in_host > plan.here.host_memory_bytes > 0:
        yield (
            bool(plan.here.gpus),  # without a GPU the plan is for another machine
            f"actor.fsdp.offload_params keeps {in_host / GIB:.0f} GiB in host memory; this machine has "
            f"{plan.here.host_memory_bytes / GIB:.0f}",
        )


def check_checkpoint(plan: Plan) -> Iterator[Finding]:
    """Prepared for this code, an end token that it writes, and a finished stage before it."""
    config, folder = plan.config, Path(plan.config.actor.path)
    if (
        not plan.assumed_model
        and plan.model.model_type == "llavaonevision1_5"
        and "auto_map" not in plan.model_config
    ):
        yield (
            True,
            f"actor.path={config.actor.path!r} has not been prepared; run: python -m utils.checkpoint prepare "
            f"{config.actor.path} {config.actor.path}-prepared",
        )
    generation = folder / "generation_config.json"
    if generation.is_file():
        ends = json.loads(generation.read_text()).get("eos_token_id")
        ends = set(ends if isinstance(ends, list) else [ends]) - {None}
        if ends and not ends & set(config.gconfig.stop_token_ids):
            yield (
                True,
                f"gconfig.stop_token_ids={list(config.gconfig.stop_token_ids)} holds none of the checkpoint's end "
                f"tokens {sorted(ends)}: answers would run to max_new_tokens",
            )
    manifest = folder.parent / "run.json"
    if folder.name == "final" and manifest.is_file() and not json.loads(manifest.read_text())["finished"]:
        yield True, f"actor.path={config.actor.path!r}: {manifest} says that run has not finished"
    if config.sglang.dtype != config.actor.dtype:
        yield (
            True,
            f"sglang.dtype={config.sglang.dtype} differs from actor.dtype={config.actor.dtype}: trainer and server "
            "would compute different log-probabilities; write ${actor.dtype}",
        )


def check_disk(plan: Plan) -> Iterator[Finding]:
    """Room for what a run writes at one time, a name that is free."""
    config = plan.config
    weights = plan.model.parameters * 2
    state = plan.model.parameters * 12  # of an engine: weights and optimizer in float32
    wanted = 2 * weights  # the final checkpoint, and one from the saver
    wanted += weights if config.actor.weight_update_mode == "disk" else 0
    if config.recover.mode not in ("off", "disabled"):
        # the new one is whole before the old one goes; a critic's parameters are about the policy's
        wanted += 2 * state * (2 if config.loss.estimator == "gae" else 1)
    capsules = capsule_option.interval(config.actor.capsule)
    wanted += (capsule_option.KEPT + 1) * state if capsules else 0  # a new one before the oldest goes
    later = config.records.max_gigabytes * 1e9 if config.records.rollouts else 0
    later += capsule_option.KEPT * state if capsules is not None else 0
    if plan.here.free_disk_bytes < wanted:
        yield (
            True,
            f"cluster.fileroot={config.cluster.fileroot!r} has {plan.here.free_disk_bytes / GIB:.0f} GiB free; two "
            f"checkpoints, recovery, weight exchange{' and capsules' if capsules else ''} need {wanted / GIB:.0f}",
        )
    elif plan.here.free_disk_bytes < wanted + later:
        yield (
            False,
            f"cluster.fileroot={config.cluster.fileroot!r} has {plan.here.free_disk_bytes / GIB:.0f} GiB free: "
            f"{wanted / GIB:.0f} are needed, and {later / GIB:.0f} more if rollouts (records.max_gigabytes="
            f"{config.records.max_gigabytes:g}) and capsules of failures (actor.capsule) are ever kept in full",
        )
    run = Path(config.cluster.fileroot) / config.experiment_name / config.trial_name / "run.json"
    if run.is_file() and config.recover.mode in ("off", "disabled"):
        fate = (
            "deleted (trial.overwrite=true)" if config.trial.overwrite else f"moved to {run.parent}/earlier"
        )
        yield False, f"{run.parent} holds a run already, which will be {fate}"


def check_ports(plan: Plan) -> Iterator[Finding]:
    """Ports to listen on."""
    if plan.here.num_free_ports < NUM_PORT_PROBES // 2:
        yield (
            True,
            f"only {plan.here.num_free_ports} of {NUM_PORT_PROBES} ports tried between 10000 and 32767 are free; "
            "servers take theirs from there",
        )


def check_versions(plan: Plan) -> Iterator[Finding]:
    """The installed stack against the pinned one; flash-attn where it is asked for; a driver new enough."""
    profile = "cpu" if plan.is_cpu or not plan.here.gpus else "gpu"
    pins = pinned_versions(profile)
    for name, version in plan.here.versions.items():
        if name in pins and version.split("+")[0] != pins[name]:
            is_core = name in ("areal", "sglang", "transformers")
            yield (
                is_core,
                f"{name} {version} is installed, this project is tested with {pins[name]}: bash install.sh",
            )
    if plan.here.gpus and "flash" in plan.config.actor.attn_impl and "flash-attn" not in plan.here.versions:
        yield (
            True,
            f"actor.attn_impl={plan.config.actor.attn_impl!r} needs flash-attn, which is not installed; "
            "bash install.sh --gpu",
        )
    if plan.here.driver and int(plan.here.driver.split(".")[0]) < 570:
        yield True, f"the NVIDIA driver is {plan.here.driver}; the CUDA 12.8 libraries want 570 or newer"
    if plan.config.reward.num_workers and shutil.which("bwrap") is None:
        yield False, "bubblewrap is not installed: rewards of answer type general-code may be refused"


CHECKS = (
    check_capacity,
    check_staleness,
    check_devices,
    check_memory,
    check_checkpoint,
    check_disk,
    check_ports,
    check_versions,
)
# What a login node cannot tell of the nodes that a job gets, whose environment may come out of a container.
NODE_CHECKS = (check_memory, check_ports, check_versions)
