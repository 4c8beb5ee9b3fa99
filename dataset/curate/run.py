"""One curation run from its settings to its report."""

import asyncio
import os
import sys
from dataclasses import replace
from typing import Any

from dataset.curate.engine import SamplingOptions, accepts_seeds
from dataset.curate.journal import Journal
from dataset.curate.nodes import node_ids, start_ray
from dataset.curate.pipeline import Progress, open_journal, run
from dataset.curate.pool import WorkerPool, check_gpus, make_pool
from dataset.curate.report import write_report
from dataset.curate.server import ServerOptions
from dataset.curate.settings import Settings
from dataset.curate.worker import WorkerPlan
from dataset.curate.writer import write_manifest, write_results

EXIT_INTERRUPTED = 130


def resolve_auto(settings: Settings) -> Settings:
    """The settings with device, executor and sampling decided.

    Raises ConnectionError when there is no Ray cluster at the address that was given.
    """
    is_cluster = bool(settings.ray_address or os.environ.get("RAY_ADDRESS")) and settings.executor != "local"
    if settings.executor == "ray" or is_cluster:
        start_ray(settings.ray_address)
    device = settings.device
    if device == "auto":
        device = "cuda" if _num_gpus() > 0 else "cpu"
    num_workers, sampling = settings.num_workers, settings.sampling
    num_machines = len(node_ids()) if settings.executor == "ray" or is_cluster else 1
    if device == "cpu" and not settings.server_addresses and num_workers > num_machines:
        print(
            f"on a CPU one server serves all cores of a node: --num-workers {num_workers} becomes {num_machines}",
            file=sys.stderr,
        )
        num_workers = num_machines
    if sampling == "auto":
        if settings.server_addresses:
            sampling = "seeded" if accepts_seeds(settings.server_addresses[0]) else "grouped"
        else:
            sampling = "seeded" if device == "cpu" else "grouped"
    executor = settings.executor
    if executor == "auto":
        single = len(settings.server_addresses) == 1 or (not settings.server_addresses and device == "cpu")
        executor = "local" if single and not is_cluster else "ray"
    if executor == "local" and device == "cuda" and num_workers > 1 and not settings.server_addresses:
        raise ValueError(
            f"--executor local starts one server, got --num-workers {num_workers}: use --executor ray"
        )
    return replace(settings, device=device, sampling=sampling, executor=executor, num_workers=num_workers)


def worker_plan(settings: Settings) -> WorkerPlan:
    """What every worker of a run is told."""
    seeded = settings.sampling == "seeded"
    server = None
    if not settings.server_addresses:
        server = ServerOptions(
            model_path=settings.model_name,
            device=settings.device,
            log_dir=str(settings.work_dir.resolve()),
            seeded=seeded,
            extra_arguments=settings.server_arguments,
        )
    return WorkerPlan(
        source=settings.source,
        model_path=settings.model_name,
        sampling=SamplingOptions(
            settings.num_attempts, settings.temperature, settings.max_tokens, settings.seed, seeded
        ),
        prompts=settings.prompts,
        prompt_type=settings.prompt_type,
        max_pixels=settings.max_pixels,
        max_prompt_tokens=settings.max_prompt_tokens,
        solved_threshold=settings.solved_threshold,
        image_root=settings.location.image_root,
        filters=settings.filters,
        exclusion=settings.exclusion,
        server=server,
        request_timeout_seconds=settings.request_timeout_seconds,
        rewards=settings.rewards,
        agent=settings.agent,
    )


async def measure_rows(settings: Settings, journal: Journal, progress: Progress) -> None:
    """Start the workers, measure, stop the workers; what was measured is in the journal whatever happens."""
    if settings.executor == "ray":
        start_ray(settings.ray_address)
        if settings.device == "cuda" and not settings.server_addresses:
            check_gpus(settings.num_workers * settings.gpus_per_worker)
    pool: WorkerPool = make_pool(
        worker_plan(settings),
        executor=settings.executor,
        num_workers=settings.num_workers,
        addresses=settings.server_addresses,
        concurrency=settings.concurrency,
        gpus_per_worker=settings.gpus_per_worker,
    )
    try:
        print(
            f"starting {len(settings.server_addresses) or settings.num_workers} worker(s) ...",
            file=sys.stderr,
        )
        for name, address in (await pool.start()).items():
            print(f"worker {name}: {address}", file=sys.stderr)
        await run(settings, pool, journal, progress)
    finally:
        await pool.close()


def curate(settings: Settings) -> int:
    """One run from settings to report; returns the exit status."""
    journal, progress = open_journal(settings)
    try:
        if progress.num_resumed:
            print(f"continuing: {progress.num_resumed} rows are in {journal.path}", file=sys.stderr)
        if settings.measure and not progress.selection.complete and not progress.exhausted:
            asyncio.run(measure_rows(settings, journal, progress))
        if progress.interrupted:
            print(
                f"stopped; {len(progress.offsets)} rows are safe: continue with --incremental",
                file=sys.stderr,
            )
            return EXIT_INTERRUPTED
        manifest, decided = write_results(settings, journal, progress)
        report = write_report(settings, manifest, decided, journal, progress)
        manifest_path = write_manifest(settings, manifest)
    finally:
        journal.close()
    print(summary_table(manifest))
    print(f"shards    {settings.output_dir}/{settings.source.name}-*.parquet ({len(manifest['shards'])})")
    print(f"manifest  {manifest_path}\nreport    {report}")
    if manifest["counts"]["kept"] == 0:
        print("nothing was kept: see the report for the reasons", file=sys.stderr)
    return 0


def summary_table(manifest: dict[str, Any]) -> str:
    """What became of the rows, and how the kept ones differ, as text."""
    count, raw, kept = manifest["counts"], manifest["raw"], manifest["kept"]
    lines = [("examined", count["examined"]), ("measured", count["measured"]), ("kept", count["kept"])]
    lines += [(f"  dropped: {reason}", n) for reason, n in count["dropped_by_reason"].items()]
    lines += [(f"  rejected: {reason}", n) for reason, n in count["rejected_by_reason"].items()]
    rows = [f"{name:<36}{number:>8}" for name, number in lines]
    rows.append(f"{'':<36}{'all':>8}{'kept':>8}")
    measures = [
        ("mean reward", raw["mean_reward"], kept["mean_reward"]),
        ("mean gap", raw["mean_gap"], kept["mean_gap"]),
    ]
    measures += [(f"Pass@{k}", raw["pass_at"][k], kept["pass_at"].get(k)) for k in raw["pass_at"]]
    for name, *values in measures:
        rows.append(f"{name:<36}" + "".join(f"{'-':>8}" if v is None else f"{v:>8.3f}" for v in values))
    return "\n".join(rows)


def _num_gpus() -> float:
    import ray

    if ray.is_initialized():
        return ray.cluster_resources().get("GPU", 0)
    import torch

    return torch.cuda.device_count()
