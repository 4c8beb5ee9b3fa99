"""The actor's step with the rollouts of a prompt in one row against one by one: time, memory, and the same numbers.

    python -m benchmarks.shared_prompts                         # three shapes, CPU, about ten minutes
    python -m benchmarks.shared_prompts --shape demo --repeats 5 --output shared_prompts.json

A step is the proximal pass and the update, as an iteration of training makes them, on one rank of the actor (AReaL's
FSDP engine, gloo, float32) with a language model of hidden size 512 and 8 layers and a vision tower of 3 blocks. The
forms run in turns in one process, on one batch; answers are between half and one and a half times the named length.
`fused` is the shared form without a proximal pass of its own (`loss.proximal_pass: auto`). The learning rate is 0, so
that every step starts from the same weights and leaves its gradients to be compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from benchmarks.actor_step import Workload, build_actor, peak_cpu_bytes
from llavaonevision1_5 import tiny
from trains.types import Group

HIDDEN, LAYERS = 512, 8
FORMS = {"one by one": (False, "separate"), "shared": (True, "separate"), "fused": (True, "auto")}


@dataclass(frozen=True)
class Shape:
    """Tokens of a prompt, those of its image among them, mean tokens of an answer, G, prompts of the batch."""

    prompt: int
    image: int
    answer: int
    group: int
    prompts: int


SHAPES = {
    "stage 1": Shape(prompt=400, image=324, answer=25, group=16, prompts=2),
    "stage 2": Shape(prompt=400, image=324, answer=600, group=16, prompts=1),
    "demo": Shape(prompt=60, image=4, answer=14, group=8, prompts=16),
}


def build_checkpoint(folder: Path, hidden: int = HIDDEN, layers: int = LAYERS) -> Path:
    """A random checkpoint whose layers are wide enough to be what a step spends its time on."""
    base = tiny.build_config().to_dict()
    base.pop("auto_map", None)
    base["text_config"] |= {
        "hidden_size": hidden, "intermediate_size": 3 * hidden, "num_hidden_layers": layers, "head_dim": 64,
        "num_attention_heads": 8, "num_key_value_heads": 2, "layer_types": None, "max_window_layers": layers,
    }  # fmt: skip
    base["vision_config"] |= {"text_hidden_size": hidden}
    return tiny.build_tiny_checkpoint(folder, config=type(tiny.build_config())(**base))


def make_batch(checkpoint: Path, shape: Shape, seed: int = 0) -> list[Group]:
    """Random groups of this shape, each with one image."""
    config = json.loads((checkpoint / "config.json").read_text())
    random, merge = torch.Generator().manual_seed(seed), config["vision_config"]["spatial_merge_size"]
    side = int(shape.image**0.5)
    image = [config["image_token_id"]] * shape.image
    head = [config["vision_start_token_id"], *image, config["vision_end_token_id"]]
    groups: list[Group] = []
    for _ in range(shape.prompts):
        lengths = (shape.answer * (0.5 + torch.rand(shape.group, generator=random))).round().int().tolist()
        seq = shape.prompt + max(lengths)
        ids = torch.randint(32, 127, (shape.group, seq), generator=random)
        ids[:, : len(head)] = torch.tensor(head)
        ids[:, : shape.prompt] = ids[0, : shape.prompt].clone()
        places = torch.arange(seq).expand(shape.group, -1)
        inside = places < shape.prompt + torch.tensor(lengths)[:, None]
        generated = inside & (places >= shape.prompt)
        patches = shape.image * merge**2
        groups.append(
            {
                "input_ids": ids * inside,
                "attention_mask": inside,
                "loss_mask": generated.int(),
                "logprobs": -torch.rand(ids.shape, generator=random) * generated,
                "versions": torch.where(generated, 0, -1).int(),
                "rewards": torch.linspace(0, 1, shape.group),
                "images": [
                    {
                        "pixel_values": torch.randn(patches, 588, generator=random),
                        "image_grid_thw": torch.tensor([[1, side * merge, side * merge]]),
                    }
                ],
            }
        )
    return groups


def step(actor: Any, batch: list[Group], form: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Log-probabilities of all answers `[tokens]` and gradients by name, of one step."""
    actor.config.share_prompts, actor.loss.proximal_pass = FORMS[form]
    for group in batch:
        group.pop("proximal_logprobs", None)
    if actor.needs_proximal_pass:
        for group, logprobs in zip(batch, actor.compute_logp(batch), strict=True):
            group["proximal_logprobs"] = logprobs
    actor.compute_advantages(batch)
    actor.ppo_update(batch)
    values = [group["proximal_logprobs"][group["policy_mask"].bool()] for group in batch]
    gradients = {
        name: (p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad).clone()
        for name, p in actor.model.named_parameters()
        if p.grad is not None
    }
    return torch.cat(values), gradients


def measure(actor: Any, checkpoint: Path, shape: Shape, repeats: int) -> dict[str, Any]:
    """Seconds and peak memory of each form, and how far the shared forms are from one by one."""
    batch = make_batch(checkpoint, shape)
    seconds: dict[str, list[float]] = {form: [] for form in FORMS}
    found = {}
    for repeat in range(repeats + 1):  # the first round warms up
        for form in FORMS:
            start = time.perf_counter()
            found[form] = step(actor, batch, form)
            if repeat:
                seconds[form].append(time.perf_counter() - start)
    result: dict[str, Any] = {"shape": vars(shape), "seconds": seconds}
    result["peak_mib"] = {form: peak_cpu_bytes(step, actor, batch, form)[0] / 2**20 for form in FORMS}
    values, gradients = found["one by one"]
    for form in ("shared", "fused"):
        result[form] = {
            "speedup": statistics.median(seconds["one by one"]) / statistics.median(seconds[form]),
            "logprobs": float((found[form][0] - values).abs().max()),
            "gradients": max(
                float((found[form][1][name] - g).norm() / g.norm())
                for name, g in gradients.items()
                if g.any()
            ),
        }
    return result


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown table of the results by shape."""
    lines = [
        "| shape | one by one, s | shared, s | fused, s | shared | fused | peak MiB: one by one, shared | "
        "log-probabilities differ by | gradients, relative |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, r in results.items():
        s, shape = {form: statistics.median(values) for form, values in r["seconds"].items()}, r["shape"]
        peak = r["peak_mib"]
        lines.append(
            f"| {name}: {shape['prompt']} + {shape['answer']}, G {shape['group']} | {s['one by one']:.2f} "
            f"| {s['shared']:.2f} | {s['fused']:.2f} | {r['shared']['speedup']:.1f}x | {r['fused']['speedup']:.1f}x "
            f"| {peak['one by one']:.0f}, {peak['shared']:.0f} | {r['shared']['logprobs']:.0e} "
            f"| {r['shared']['gradients']:.0e} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, action="append", help="default: all")
    parser.add_argument(
        "--repeats", type=int, default=3, help="measured steps of each form; medians are compared"
    )
    parser.add_argument("--output", type=Path, help="also write the results as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = build_checkpoint(Path(folder) / "checkpoint")
        workload = Workload(max_tokens_per_mb=6144)
        actor = build_actor(
            checkpoint, workload, attn="sdpa", dtype="float32", checkpointing=False, learning_rate=0.0
        )
        results = {n: measure(actor, checkpoint, SHAPES[n], args.repeats) for n in args.shape or SHAPES}
    print(table(results))
    if args.output:
        args.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
