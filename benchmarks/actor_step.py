"""Real optimizer steps of the actor on random weights: tokens per second and memory, measured beside the estimate.

    python benchmarks/actor_step.py --size tiny                    # CPU, seconds
    python benchmarks/actor_step.py --size 4b --attn flash_attention_2 --tokens 6144 --steps 3     # one GPU

The actor is the one of training (`trains.actor.VisionActor` on AReaL's FSDP engine, one rank), the batch is synthetic:
groups of prompts with one image each. One step is what an iteration does on a trainer rank: advantages and the update,
which computes the prompt of a group once and has the proximal log-probabilities out of its own forward pass. Memory is
what torch's allocators handed out: `max_memory_allocated` on a GPU; on a CPU the allocation events of torch's profiler,
summed in order of time. Both leave out what is not tensors (CUDA context, NCCL, Python). Share of peak: model FLOPs of
the step (utils/doctor/memory_model.py) over the rate of a large bf16 matrix product measured in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script from anywhere
import benchmarks.stand_ins  # noqa: F401 - before AReaL: a bare CUDA machine lacks what a rank alone never calls
from utils.doctor import memory_model
from utils.doctor.model_sizes import Architecture

# Language-model sizes; the vision tower is the published one (RiceConfig's defaults).
SHAPES = {
    "4b-half": {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "rope_theta": 5e6,
        "layers": 18,
    },  # fits 80 GB
    "4b": {"hidden_size": 2560, "intermediate_size": 9728, "rope_theta": 5e6},
    "8b": {"hidden_size": 4096, "intermediate_size": 12288, "rope_theta": 1e6},
}


@dataclass(frozen=True)
class Workload:
    """The synthetic batch of one rank."""

    num_prompts: int = 2
    group_size: int = 4
    image_tokens: int = 64  # of each prompt's single square image
    answer_tokens: int = 128
    max_tokens_per_mb: int = 2048

    @property
    def sequence_tokens(self) -> int:
        return self.image_tokens + 8 + self.answer_tokens

    @property
    def num_tokens(self) -> int:
        """Tokens of one step, prompts counted once per rollout."""
        return self.num_prompts * self.group_size * self.sequence_tokens


def build_checkpoint(folder: Path, size: str) -> Path:
    """A random checkpoint of the given size in bfloat16 (tiny: float32). 4b and 8b take a minute and 9 to 17 GB."""
    from llavaonevision1_5 import tiny

    if size == "tiny":
        return tiny.build_tiny_checkpoint(folder)
    from llavaonevision1_5.configuration import LLaVAOneVision1_5_Config
    from llavaonevision1_5.modeling import LLaVAOneVision1_5_ForConditionalGeneration

    shape = SHAPES[size]
    base = tiny.build_config().to_dict()
    base["text_config"] |= {
        "hidden_size": shape["hidden_size"],
        "intermediate_size": shape["intermediate_size"],
        "vocab_size": 151936,
        "num_hidden_layers": shape.get("layers", 36),
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "layer_types": None,
        "max_window_layers": shape.get("layers", 36),
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape["rope_theta"]},
    }
    base["vision_config"] = {"text_hidden_size": shape["hidden_size"]}
    base.pop("auto_map", None)
    config = LLaVAOneVision1_5_Config(**base)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = LLaVAOneVision1_5_ForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(default)
    model.save_pretrained(folder)
    del model
    tiny.build_processor().save_pretrained(folder)
    return folder


def build_actor(
    checkpoint: Path,
    workload: Workload,
    *,
    attn: str,
    dtype: str,
    checkpointing: bool,
    learning_rate: float = 1e-6,
    **options: Any,
):
    """The training actor on one rank. `options` go to `ActorConfig`. Sets torchrun's variables where they are unset."""
    from areal.api import FinetuneSpec
    from areal.api.cli_args import MicroBatchSpec, OptimizerConfig

    from dataset.media_tokens import media_token_ids
    from trains.actor import VisionActor
    from trains.config import ActorConfig, LossConfig

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name, value in {
        "RANK": 0,
        "WORLD_SIZE": 1,
        "LOCAL_RANK": 0,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }.items():
        os.environ.setdefault(name, str(value))
    config = ActorConfig(
        experiment_name="benchmark",
        trial_name="actor-step",
        path=str(checkpoint),
        backend="fsdp:d1",
        attn_impl=attn,
        dtype=dtype,
        gradient_checkpointing=checkpointing,
        mb_spec=MicroBatchSpec(max_tokens_per_mb=workload.max_tokens_per_mb),
        optimizer=OptimizerConfig(lr=learning_rate),
        **options,
    )
    actor = VisionActor(config, LossConfig(), media_token_ids(str(checkpoint)), workload.answer_tokens)
    actor.create_process_group()
    actor.initialize(
        None, FinetuneSpec(total_train_epochs=1, dataset_size=1024, train_batch_size=workload.num_prompts)
    )
    return actor


def make_batch(checkpoint: Path, workload: Workload, seed: int = 0) -> list[dict[str, Any]]:
    """Groups as `trains/types.py` documents them, with random answers and rewards."""
    config = json.loads((checkpoint / "config.json").read_text())
    merge = Architecture.from_config(config).merge
    side = int(workload.image_tokens**0.5)
    if side * side != workload.image_tokens:
        raise ValueError(f"image_tokens is {workload.image_tokens}; wanted a square number")
    generator = torch.Generator().manual_seed(seed)
    head = [
        config["vision_start_token_id"],
        *[config["image_token_id"]] * workload.image_tokens,
        config["vision_end_token_id"],
    ]
    groups = []
    for _ in range(workload.num_prompts):
        rows = workload.group_size
        prompt = torch.tensor([*head, 65, 66, 67, 68, 69, 70]).expand(rows, -1)
        answer = torch.randint(32, 127, (rows, workload.answer_tokens), generator=generator)
        input_ids = torch.cat([prompt, answer], 1)
        mask = torch.cat([torch.zeros_like(prompt), torch.ones_like(answer)], 1).int()
        patches = workload.image_tokens * merge**2
        groups.append(
            {
                "input_ids": input_ids,
                "attention_mask": torch.ones_like(input_ids).bool(),
                "loss_mask": mask,
                "logprobs": -torch.rand(input_ids.shape, generator=generator) * mask,
                "versions": torch.where(mask.bool(), 0, -1).int(),
                "rewards": torch.linspace(0, 1, rows),
                "images": [
                    {
                        "pixel_values": torch.randn(patches, 588, generator=generator),
                        "image_grid_thw": torch.tensor([[1, side * merge, side * merge]]),
                    }
                ],
            }
        )
    return groups


def one_step(actor: Any, batch: list[dict[str, Any]]) -> dict[str, float]:
    """What a trainer rank computes in one iteration: advantages, update, and before it the proximal log-probabilities
    where the update's own forward pass does not give them.
    """
    if actor.needs_proximal_pass:
        for group, logprobs in zip(batch, actor.compute_logp(batch), strict=True):
            group["proximal_logprobs"] = logprobs
    actor.compute_advantages(batch)
    return actor.ppo_update(batch)


def peak_cpu_bytes(function: Any, *arguments: Any) -> tuple[int, int]:
    """(bytes at the highest point above the start, bytes left above the start) of torch's CPU allocator.

    From the profiler's allocation events, so tensors are counted whoever made them: autograd, an optimizer, a kernel's
    scratch.
    """
    with torch.profiler.profile(
        profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]
    ) as profile:
        function(*arguments)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return peak, level


def estimate(
    checkpoint: Path, workload: Workload, *, attn: str, dtype: str, checkpointing: bool
) -> list[memory_model.Line]:
    """The memory model's lines for this benchmark's one rank; micro-batches are filled with whole groups."""
    model = Architecture.from_config(json.loads((checkpoint / "config.json").read_text()))
    unit = (
        workload.sequence_tokens - workload.answer_tokens - 1 + workload.group_size * workload.answer_tokens
    )
    in_batch = min(workload.max_tokens_per_mb // unit, workload.num_prompts)
    run = memory_model.Training(
        ranks=1,
        tokens=in_batch * unit,
        image_tokens=in_batch * workload.image_tokens,
        prompt_image_tokens=workload.num_prompts * workload.image_tokens,
        dtype=dtype,
        checkpointing=checkpointing,
        flash="flash" in attn,
    )
    return memory_model.trainer_lines(model, run)


def matmul_rate(size: int = 8192, repeats: int = 20) -> float:
    """FLOP/s of a large bf16 matrix product on the current GPU: what can be reached, not what the data sheet says."""
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        a @ b
    torch.cuda.synchronize()
    return 2 * size**3 * repeats / (time.perf_counter() - start)


def measure(
    checkpoint: Path,
    workload: Workload,
    *,
    attn: str,
    dtype: str,
    checkpointing: bool,
    steps: int,
    **options: Any,
) -> dict[str, Any]:
    """Run steps on this process's device; returns memory measured and estimated, seconds, tokens per second.

    One actor per process: AReaL's process groups cannot be made twice.
    """
    actor = build_actor(checkpoint, workload, attn=attn, dtype=dtype, checkpointing=checkpointing, **options)
    batch = make_batch(checkpoint, workload)
    on_gpu = actor.device.type != "cpu"
    if on_gpu:
        batch = [{k: _to(v, actor.device) for k, v in group.items()} for group in batch]
    one_step(actor, batch)  # warm-up; it also makes the optimizer's state
    seconds = []
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        for _ in range(steps):
            torch.cuda.synchronize()
            start = time.perf_counter()
            one_step(actor, batch)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        measured = torch.cuda.max_memory_allocated()
    else:
        for _ in range(steps):
            start = time.perf_counter()
            one_step(actor, batch)
            seconds.append(time.perf_counter() - start)
        actor.optimizer_zero_grad()  # so that the profiled step makes its own gradients
        held = sum(p.numel() * p.element_size() for p in actor.model.parameters())
        states = actor.optimizer.state.values()
        held += sum(t.numel() * t.element_size() for s in states for t in s.values() if torch.is_tensor(t))
        held += sum(i[k].numel() * i[k].element_size() for g in batch for i in g["images"] for k in i)
        measured = held + peak_cpu_bytes(one_step, actor, batch)[0]
    lines = estimate(checkpoint, workload, attn=attn, dtype=dtype, checkpointing=checkpointing)
    model = Architecture.from_config(json.loads((checkpoint / "config.json").read_text()))
    step = memory_model.Step(
        prompts=workload.num_prompts,
        group=workload.group_size,
        prompt_tokens=workload.sequence_tokens - workload.answer_tokens,
        image_tokens=workload.image_tokens,
        answer_tokens=workload.answer_tokens,
        tokens_per_mb=workload.max_tokens_per_mb,
        checkpointing=checkpointing,
        separate_proximal=actor.needs_proximal_pass,
    )
    flops = memory_model.step_flops(model, step)
    best = min(seconds)
    result = {
        "workload": asdict(workload),
        "attn": attn,
        "dtype": dtype,
        "checkpointing": checkpointing,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "measured_bytes": measured,
        "estimated_bytes": memory_model.peak(lines),
        "seconds": seconds,
        "tokens_per_second": workload.num_tokens / best,
        "flops_per_second": flops / best,
        "lines": [asdict(line) for line in lines],
    }
    if on_gpu:
        del actor
        result["matmul_flops_per_second"] = matmul_rate()
        result["share_of_matmul"] = result["flops_per_second"] / result["matmul_flops_per_second"]
    return result


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [{k: v.to(device) for k, v in item.items()} for item in value]
    return value.to(device)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=["tiny", *SHAPES], default="tiny")
    parser.add_argument("--attn", default="sdpa", choices=["sdpa", "flash_attention_2"])
    parser.add_argument("--dtype", default=None, help="default: bfloat16, tiny float32")
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of a micro-batch")
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--image-tokens", type=int, default=64, help="a square number")
    parser.add_argument("--answer-tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, default=1, help="timed steps after the warm-up")
    parser.add_argument("--checkpoint", type=Path, help="folder of an earlier run with the same --size")
    parser.add_argument("--json", type=Path, help="also write the result there")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    workload = Workload(args.prompts, args.group, args.image_tokens, args.answer_tokens, args.tokens)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.checkpoint or Path(scratch) / "checkpoint"
        if not (folder / "config.json").exists():
            build_checkpoint(folder, args.size)
        dtype = args.dtype or ("float32" if args.size == "tiny" else "bfloat16")
        options = {"attn": args.attn, "dtype": dtype, "checkpointing": not args.no_checkpointing}
        result = measure(folder, workload, steps=args.steps, **options)
    for line in result["lines"]:
        print(f"{line['what']:20} {line['num_bytes'] / 2**20:12.1f} MiB   {line['formula']}")
    measured, estimated = result["measured_bytes"] / 2**20, result["estimated_bytes"] / 2**20
    print(f"estimated {estimated:.1f} MiB, measured {measured:.1f} MiB ({estimated / measured:.2f})")
    print(
        f"{min(result['seconds']):.2f} s a step, {result['tokens_per_second']:.0f} tokens/s on {result['device']}"
    )
    if "share_of_matmul" in result:
        print(
            f"{result['flops_per_second'] / 1e12:.0f} TFLOP/s, {result['share_of_matmul']:.0%} of a matrix product"
        )
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
