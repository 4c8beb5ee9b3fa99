"""Held-out evaluation through the rollout servers, while training rollouts go on.

It has its own client and its own sampling (greedy by default), so that training's count of rollouts in flight, and
with it their staleness, is untouched. The weights do not change meanwhile: the trainer is the one who waits here.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import torch.distributed as dist

from reward.types import UNJUDGED
from trains.setup import Run

POLL_SECONDS = 1.0
MAX_OPEN_PROMPTS = 256  # bounds the memory that encoded images take


def evaluate(run: Run) -> dict[str, Any]:
    """Accuracy of the current weights on the held-out data, the same on every rank.

    Returns {"overall": {"accuracy", "solved", "num_samples", "length"}, "answer_type": {...}, "source": {...}};
    `solved` is the share of samples with accuracy 1; conversations with tools have `useful` as well, the share that is
    right after a call that told something. Answers that a judge was asked about in vain do not count.
    """
    records = _roll_out(run) if run.actor.is_data_parallel_head() else []
    gathered: list[list[dict]] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, records, group=run.actor.cpu_group)
    records = [record for part in gathered for record in part if record["judged"]]
    result: dict[str, Any] = {"overall": _summary(records)}
    for key in ("answer_type", "source"):
        by_value = defaultdict(list)
        for record in records:
            by_value[record[key]].append(record)
        result[key] = {value: _summary(members) for value, members in sorted(by_value.items())}
    return result


def _roll_out(run: Run) -> list[dict[str, Any]]:
    """One answer to each held-out prompt of this rank; rows whose data turns out to be wrong are left out.

    Raises RuntimeError for a prompt that cannot be rolled out for another reason.
    """
    executor = run.eval_rollout.executor
    limit = run.config.valid_dataset.max_samples
    rows = (row for batch in run.eval_dataloader for row in batch)
    if limit is not None:
        share = -(-limit // run.actor.data_parallel_world_size)
        rows = (row for _, row in zip(range(share), rows, strict=False))
    records, opened, exhausted = [], {}, False
    keys = itertools.count()
    while opened or not exhausted:
        while not exhausted and len(opened) < MAX_OPEN_PROMPTS:
            row = next(rows, None)
            exhausted = row is None
            if row is not None:
                key = next(keys)
                opened[key] = row["place"], row["id"]
                executor.submit({"key": key, "prompt": row}, run.eval_workflow, is_eval=True)
        for group in executor.finished(POLL_SECONDS) if opened else []:
            failure = group.get("failure")
            if failure is None:
                info = group["info"][0]
                del opened[info.key]
                records.append(_record(info))
            elif failure.is_data_error:
                run.eval_dataloader.leave_out(*opened.pop(failure.key), failure.message)
            else:
                raise RuntimeError(f"evaluation, sample {opened[failure.key][1]}: {failure.message}")
    return records


def _record(info) -> dict[str, Any]:
    return {
        "source": info.source,
        "answer_type": info.answer_type,
        "judged": info.scores[0].status not in UNJUDGED,
        "accuracy": info.scores[0].parts["accuracy"],
        "useful": info.scores[0].parts.get("tool_bonus"),
        "length": info.lengths[0],
        "sample_id": info.sample_id,
    }


def _summary(records: list[dict[str, Any]]) -> dict[str, float]:
    count = max(len(records), 1)
    useful = [r["useful"] for r in records if r.get("useful") is not None]
    return {
        **({"useful": sum(useful) / len(useful)} if useful else {}),
        "accuracy": sum(r["accuracy"] for r in records) / count,
        "solved": sum(r["accuracy"] >= 1.0 for r in records) / count,
        "length": sum(r["length"] for r in records) / count,
        "num_samples": len(records),
    }
