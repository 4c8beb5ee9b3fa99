"""Pass@1 and Pass@k of a checkpoint on curated parquet, per source, through the rollout engine and the same rewards.

    python -m utils.evaluate.offline --model CHECKPOINT --data data/stage1/heldout.parquet --attempts 8 --output DIR
        [--server-addresses HOST:PORT ...]      use servers that run already; else one is started here

Sampling, prompts, image sizes and rewards are those of curation and training (one code path: `dataset.curate.worker`);
prompts are those that the run was trained with, where `--model` is one or lies in its folder.
Writes `DIR/attempts.jsonl` (every answer) and `DIR/summary.json`, and prints the table.

Pass@k is the unbiased estimator of utils/passk.py, averaged over samples. The interval is a percentile bootstrap over
samples (2000 resamples, 95 %): attempts at one sample are not independent, samples are.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from reward.settings import DEFAULT_SETTINGS, read_settings
from utils import run_manifest
from utils.columns import parse_columns
from utils.command_line import Parser, check_model, check_output
from utils.passk import num_solved, pass_at_k
from utils.sample import Sample

NUM_RESAMPLES = 2000
MAX_OPEN = 32  # samples in flight per server


def summarise(records: Sequence[dict[str, Any]], ks: Sequence[int], seed: int = 0) -> dict[str, Any]:
    """{"overall": {...}, "source": {name: {...}}}: for each k `[mean, low, high]` of Pass@k, and the mean reward.

    A record has `source`, `rewards` and `accuracies` of its attempts, and `solved_threshold`.
    """
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record["source"]].append(record)
    return {
        "overall": _summary(records, ks, seed),
        "source": {name: _summary(groups[name], ks, seed) for name in sorted(groups)},
    }


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval of independent values; the interval of one value is the value."""
    array = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, len(array), (NUM_RESAMPLES, len(array)))
    low, high = np.percentile(array[draws].mean(axis=1), [2.5, 97.5])
    return float(array.mean()), float(low), float(high)


def _summary(records: Sequence[dict[str, Any]], ks: Sequence[int], seed: int) -> dict[str, Any]:
    passes: dict[str, list[float]] = {}
    for k in ks:
        values = [
            pass_at_k(len(r["accuracies"]), num_solved(r["accuracies"], r["solved_threshold"]), k)
            for r in records
        ]
        passes[f"pass@{k}"] = list(interval(values, seed))
    rewards = [reward for record in records for reward in record["rewards"]]
    return {"num_samples": len(records), **passes, "reward": float(np.mean(rewards))}


def table(summary: dict[str, Any], num_rejected: int) -> str:
    """The summary as text: one line per source, Pass@k in percent with its interval."""
    names = [key for key in summary["overall"] if key.startswith("pass@")]
    lines = [f"{'source':<24}{'samples':>8}" + "".join(f"{name:>24}" for name in names) + f"{'reward':>9}"]
    for source, values in [*summary["source"].items(), ("all", summary["overall"])]:
        cells = "".join(
            f"{100 * mean:>10.1f} [{100 * low:5.1f},{100 * high:5.1f}]"
            for mean, low, high in (values[n] for n in names)
        )
        lines.append(f"{source:<24}{values['num_samples']:>8}{cells}{values['reward']:>9.3f}")
    if num_rejected:
        lines.append(f"{num_rejected} samples could not be measured; attempts.jsonl says why")
    return "\n".join(lines)


def read_samples(
    paths: Sequence[str], max_samples: int | None, columns: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of all paths in order, at most `max_samples`. Raises FileNotFoundError or ValueError naming the path."""
    from dataset.shards import open_rows

    readers = [open_rows(path, columns=columns) for path in paths]
    return itertools.islice((row for reader in readers for row in reader.iter_rows()), max_samples)


async def measure(
    args: argparse.Namespace, rows: Iterator[dict[str, Any]], sink: Any
) -> tuple[list[dict], int]:
    """Records of all rows that could be measured, and the number of those that could not; `sink` gets every one."""
    from dataset.curate.pool import make_pool
    from dataset.curate.worker import Job

    plan = make_plan(args)
    pool = make_pool(
        plan,
        executor="local",
        num_workers=1,
        addresses=args.server_addresses,
        concurrency=MAX_OPEN,
        gpus_per_worker=1,
    )
    records, num_rejected = [], 0

    async def one(position: int, row: dict[str, Any]) -> None:
        nonlocal num_rejected
        record = (await pool.measure(Job(position, position, row["id"], row))).header
        sink.write(json.dumps(record) + "\n")
        if record["kind"] != "measured":
            num_rejected += 1
            return
        records.append(
            {
                "source": record["sample"]["source"],
                "rewards": [attempt["reward"] for attempt in record["attempts"]],
                "accuracies": [attempt["parts"]["accuracy"] for attempt in record["attempts"]],
                "solved_threshold": record["solved_threshold"],
            }
        )

    try:
        await pool.start()
        running: set[asyncio.Task] = set()
        for position, row in enumerate(rows):
            if len(running) >= pool.num_slots:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            running.add(asyncio.create_task(one(position, row)))
        await asyncio.gather(*running)
    finally:
        await pool.close()
    return records, num_rejected


def make_plan(args: argparse.Namespace) -> Any:
    """A curation worker's plan that takes rows as they are: no filter, no exclusion, every sample measured."""
    from dataset.curate.engine import SamplingOptions
    from dataset.curate.filters import Filters
    from dataset.curate.guards import Exclusion
    from dataset.curate.server import ServerOptions
    from dataset.curate.worker import WorkerPlan
    from dataset.sources.base import Source

    server = ServerOptions(
        model_path=args.model,
        device=args.device,
        log_dir=str(args.output / "logs"),
        context_length=args.context_length,
        extra_arguments=tuple(args.server_argument),
    )
    return WorkerPlan(
        source=Source(
            name="curated",
            path="",
            split="",
            licence="",
            columns=("id", "problem", "answer"),
            to_sample=_as_sample,
            problem_type="any",
            answer_type="any",
        ),
        model_path=args.model,
        sampling=SamplingOptions(args.attempts, args.temperature, args.max_tokens, args.seed, seeded=False),
        prompts=args.prompts,
        prompt_type=args.prompt_type,
        max_pixels=args.max_pixels,
        max_prompt_tokens=args.max_prompt_tokens,
        solved_threshold=None,
        image_root=None,
        filters=Filters(),
        exclusion=Exclusion(),
        server=None if args.server_addresses else server,
        num_reward_workers=args.reward_workers,
        rewards=args.rewards,
    )


def _as_sample(row: dict[str, Any], context: Any) -> Sample:
    del context  # ids and images are in the row already
    return Sample.from_row(row)


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k < args.attempts]
    ks.append(args.attempts)
    from dataset.curate.pool import NoWorkersLeft

    try:
        args.prompts = trained_prompts(args.model, args.layout)
        args.model = run_manifest.checkpoint_of(args.model)
    except ValueError as error:
        print(f"evaluate.offline: --model {args.model}: {error}", file=sys.stderr)
        return 1
    try:
        check_model(args.model)
        check_output(args.output)
        rows = read_samples(args.data, args.max_samples, parse_columns(args.columns))
        args.output.mkdir(parents=True, exist_ok=True)
        with (args.output / "attempts.jsonl").open("w") as sink:
            records, num_rejected = asyncio.run(measure(args, rows, sink))
    except (FileNotFoundError, ValueError, NoWorkersLeft) as error:
        print(f"evaluate.offline: {error}", file=sys.stderr)
        return 1
    if not records:
        print(f"evaluate.offline: none of {num_rejected} samples could be measured", file=sys.stderr)
        return 1
    summary = {
        "model": args.model,
        "data": args.data,
        "attempts": args.attempts,
        "prompts": asdict(args.prompts),
        **summarise(records, ks),
    }
    (args.output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"prompt layout: {args.prompts.layout}")
    print(table(summary, num_rejected))
    return 0


def trained_prompts(model: str, layout: str | None) -> Any:
    """The prompt settings of the run that `model` belongs to, else the defaults; `layout` comes over both."""
    from dataset.prompts import PromptConfig

    settings = run_manifest.prompts_of(model) or {}
    return PromptConfig(**settings | ({"layout": layout} if layout else {}))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    from dataset.prompts import LAYOUTS

    parser = Parser(
        prog="python -m utils.evaluate.offline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", required=True, help="checkpoint folder, or the folder of a run")
    add("--data", required=True, nargs="+", help="files, folders or Hub names")
    add(
        "--columns", nargs="*", default=[], metavar="FIELD=COLUMN", help="names and constants of foreign data"
    )
    add("--output", required=True, type=Path)
    add("--attempts", type=int, default=8, help="answers per sample; Pass@k is given up to this k")
    add("--temperature", type=float, default=1.0)
    add("--max-tokens", type=int, default=4096)
    add("--seed", type=int, default=219)
    add("--prompt-type", choices=["answer", "think"], help="default: as the sample says")
    add(
        "--layout",
        choices=LAYOUTS,
        help="of prompts (default: the run's that --model belongs to, else recipe)",
    )
    add("--max-pixels", type=int, default=3_240_000)
    add("--max-prompt-tokens", type=int, default=8192)
    add("--context-length", type=int, help="of a server started here")
    add("--max-samples", type=int)
    add("--device", choices=["cpu", "cuda"], default="cuda")
    add("--server-addresses", nargs="*", default=[], metavar="HOST:PORT")
    add(
        "--server-argument", action="append", default=[], help="passed on to SGLang as it is; may be repeated"
    )
    add("--reward-workers", type=int, default=2)
    add("--reward-config", metavar="YAML", help="a training configuration, for its section `reward`")
    args = parser.parse_args(argv)
    try:
        args.rewards = read_settings(args.reward_config) if args.reward_config else DEFAULT_SETTINGS
    except (ValueError, OSError) as error:
        parser.error(f"--reward-config: {error}")
    return args


if __name__ == "__main__":
    sys.exit(main())
