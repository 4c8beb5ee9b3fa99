"""python -m trains.replay CAPSULE [--top N]

Computes the update of a capsule (trains/capsule.py) again, on this machine's CPU, whatever it ran on: loss, gradient
norms by block and the terms of every token, beside what the step recorded. Writes the terms to CAPSULE/terms.parquet.
Exit status 0 where recorded and replayed numbers agree, or both are not finite; 1 where they differ.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from utils.capsule_option import CONFIG, FACTS, STATE
from utils.command_line import Parser

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-6  # of numbers in float32, relative above 1 and absolute below
ROUNDED = 5e-2  # of others: a CPU rounds bfloat16 elsewhere than a GPU
TERMS = ("policy_logprobs", "loss", "entropy", "ratio", "behavior_weight")


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m trains.replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "capsule", type=Path, help="folder, e.g. runs/digits-stage1/demo/capsules/step-000012"
    )
    parser.add_argument("--top", type=int, default=8, help="tokens to show")
    arguments = parser.parse_args(argv)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before AReaL looks for a device
    try:
        facts, config, batches = read(arguments.capsule)
    except (OSError, ValueError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2
    replayed, rows = compute(arguments.capsule, facts, config, batches)
    write_terms(rows, arguments.capsule / "terms.parquet")
    print(
        f"step {facts['step']}, kept because: {facts['why']}; weights from {facts['started_from']} and state/"
    )
    differs = show_numbers(
        facts["recorded"], replayed, TOLERANCE if config.actor.dtype == "float32" else ROUNDED
    )
    show_tokens(rows, arguments.top)
    for line in what_is_not_finite(batches, rows):
        print(line)
    print(f"terms of every token: {arguments.capsule / 'terms.parquet'}")
    return int(differs)


def read(folder: Path) -> tuple[dict[str, Any], Any, list[list[dict[str, Any]]]]:
    """Facts, configuration and the groups of each rank. Raises ValueError where the capsule is not whole."""
    if not (folder / FACTS).is_file():
        raise ValueError(f"{folder} is no capsule: there is no {FACTS} in it, which is written last")
    import torch
    from areal.api.cli_args import to_structured_cfg
    from omegaconf import OmegaConf

    from trains.config import Config

    facts = json.loads((folder / FACTS).read_text())
    raw = OmegaConf.create(yaml.safe_load((folder / CONFIG).read_text()))
    config = OmegaConf.to_object(to_structured_cfg(raw, Config))
    if not (Path(config.actor.path) / "config.json").is_file():
        raise ValueError(
            f"the checkpoint that the run started from is gone: {config.actor.path}; put it back"
        )
    batches = []
    for rank in range(facts["num_ranks"]):
        file = torch.load(folder / f"batch-rank{rank}.pt", weights_only=True)
        batches.append(file["groups"])
        if rank == 0:
            torch.set_rng_state(file["rng"]["torch"])
            version, internal, gauss = file["rng"]["python"]
            random.setstate((version, tuple(internal), gauss))
    has_pass = "proximal_logprobs" in batches[0][0]  # they took a pass of their own, before the update
    config.loss = replace(config.loss, proximal_pass="separate" if has_pass else "fused")
    return facts, config, batches


def compute(
    folder: Path, facts: dict[str, Any], config: Any, batches: list[list[dict[str, Any]]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(numbers as a step records them, a row per token that was trained on)."""
    from trains.metrics import update_metrics

    actor = _actor(folder, config)
    actor.entropy_coefficient.state = tuple(facts["entropy_coefficient"])
    count = config.actor.num_minibatches
    actor.config.num_minibatches = 1
    wanted = range(count) if facts["minibatch"] is None else [facts["minibatch"]]
    rows: list[dict[str, Any]] = []
    numbers: dict[str, Any] = {"num_skipped": 0}
    for number in wanted:
        groups = [group for batch in batches for group in batch[number::count]]
        seen: list[dict[str, torch.Tensor]] = []
        actor.observe = lambda policy, loss, entropy, stats, seen=seen: seen.append(
            {"policy_logprobs": policy.detach(), "loss": loss.detach(), "entropy": entropy.detach(), **stats}
        )
        update = actor.ppo_update(groups)
        numbers |= {**update, "num_skipped": numbers["num_skipped"] + update["num_skipped"]}
        rows += _rows(actor, groups, seen)
    numbers |= update_metrics(actor.export_stats())
    actor.destroy()
    return numbers, rows


def _actor(folder: Path, config: Any) -> Any:
    """The policy of the capsule in this process: one rank, on the CPU."""
    from areal.api import FinetuneSpec, SaveLoadMeta

    from dataset.media_tokens import media_token_ids
    from trains.actor import VisionActor
    from trains.host import allocation

    os.environ.update({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"})
    os.environ["MASTER_PORT"] = str(_free_port())
    config.actor.attn_impl = "sdpa"
    config.actor.capsule = "off"
    forbidden = media_token_ids(config.actor.path)
    actor = VisionActor(config.actor, config.loss, forbidden, config.gconfig.max_new_tokens)
    actor.create_process_group(parallel_strategy=allocation.parse("sglang:d1+fsdp:d1").train)
    size = config.train_dataset.batch_size
    actor.initialize(addr=None, ft_spec=FinetuneSpec(1, size, size))
    meta = {"tokenizer": None, "processor": None, "base_model_path": None}
    actor.load(SaveLoadMeta(path=str(folder / STATE), weight_format="dcp", with_optim=True, **meta))
    return actor


def _rows(
    actor: Any, groups: list[dict[str, Any]], seen: list[dict[str, torch.Tensor]]
) -> list[dict[str, Any]]:
    """The terms of each trained token of `groups`, from what the micro-batches' losses were made of."""
    lengths = [int(length) for group in groups for length in group["attention_mask"].sum(-1)]
    terms = {name: actor.unpacked([part[name].float() for part in seen], lengths) for name in TERMS}
    rows, first = [], 0
    for group in groups:
        for i in range(len(group["input_ids"])):
            for place in group["policy_mask"][i].nonzero()[:, 0].tolist():
                rows.append(
                    {
                        "sample_id": group["facts"]["sample_id"],
                        "rollout": i,
                        "position": place + 1,  # of the token; the place before predicts it
                        "token_id": int(group["input_ids"][i, place + 1]),
                        "advantage": float(group["advantages"][i, place]),
                        "behavior_logprob": float(group["behavior_logprobs"][i, place]),
                        **{name: float(terms[name][first + i, place]) for name in TERMS},
                    }
                )
        first += len(group["input_ids"])
    return rows


def write_terms(rows: list[dict[str, Any]], path: Path) -> None:
    """A table with a row per token."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from utils.files import replacing

    with replacing(path) as file:
        pq.write_table(pa.Table.from_pylist(rows), file)


def show_numbers(recorded: dict[str, Any] | None, replayed: dict[str, Any], tolerance: float) -> bool:
    """Print both side by side; True if any differs by more than the tolerance."""
    found, differs = _flat(replayed), False
    known = _flat(recorded or {})
    print(f"{'':<28} {'recorded':>14} {'replayed':>14} {'difference':>12}")
    for name in ("loss", "grad_norm", *sorted(name for name in found if name.startswith("gradient_norms/"))):
        value, wanted = found[name], known.get(name)
        told = "-" if wanted is None else f"{wanted:.8g}"
        difference = None if wanted is None else abs(value - wanted)
        both_bad = wanted is not None and not math.isfinite(value) and not math.isfinite(wanted)
        is_bad = (
            difference is not None and not both_bad and not difference <= tolerance * max(1.0, abs(wanted))
        )
        differs |= is_bad
        mark = "  DIFFERS" if is_bad else ""
        print(
            f"{name:<28} {told:>14} {value:>14.8g} {'-' if difference is None else f'{difference:.1e}':>12}{mark}"
        )
    if recorded is None:
        print("nothing was recorded: the run ended within the step")
    return differs


def show_tokens(rows: list[dict[str, Any]], top: int) -> None:
    """Print the tokens with the largest loss, those that are not finite first."""
    order = sorted(
        rows, key=lambda row: abs(row["loss"]) if math.isfinite(row["loss"]) else math.inf, reverse=True
    )
    print(f"{len(rows)} tokens; the largest terms:")
    for row in order[:top]:
        print(
            f"  {row['sample_id']} rollout {row['rollout']} position {row['position']} token {row['token_id']}: "
            f"loss {row['loss']:.5g} = weight {row['behavior_weight']:.4g}, ratio {row['ratio']:.4g}, advantage "
            f"{row['advantage']:.4g}; log-probability {row['policy_logprobs']:.4g}, of the server "
            f"{row['behavior_logprob']:.4g}"
        )


def what_is_not_finite(batches: list[list[dict[str, Any]]], rows: list[dict[str, Any]]) -> list[str]:
    """A line for each input, and for the tokens, that are not finite."""
    import torch

    lines = []
    for rank, batch in enumerate(batches):
        for group in batch:
            inputs = {name: value for name, value in group.items() if isinstance(value, torch.Tensor)}
            inputs |= {f"images/{name}": value for image in group["images"] for name, value in image.items()}
            for name, value in inputs.items():
                bad = int((~torch.isfinite(value)).sum()) if value.is_floating_point() else 0
                if bad:
                    lines.append(
                        f"not finite: {bad} values of {name} of sample {group['facts']['sample_id']} (rank {rank})"
                    )
    bad = [row for row in rows if not math.isfinite(row["loss"])]
    if bad:
        first = bad[0]
        lines.append(
            f"not finite: the loss of {len(bad)} tokens, the first of sample {first['sample_id']}, rollout "
            f"{first['rollout']}, position {first['position']}"
        )
    return lines


def _flat(numbers: dict[str, Any], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in numbers.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            found[prefix + name] = value
    return found


def _free_port() -> int:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
