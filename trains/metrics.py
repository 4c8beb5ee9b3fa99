"""Plain numbers about one step, from the groups that were consumed. The names are explained in docs/metrics.md."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist

from reward import STATUSES
from reward.counters import RewardCounters
from trains.actor import VisionActor
from trains.agent_metrics import agent_facts, agent_metrics
from trains.buffer import has_signal
from trains.parity import difference
from trains.types import Group, GroupInfo


def batch_metrics(actor: VisionActor, batch: list[Group], version: int) -> dict[str, Any]:
    """Metrics of a consumed batch over all data-parallel ranks; the same dict on every rank."""
    gathered: list[list[dict]] = [None] * actor.data_parallel_world_size
    dist.all_gather_object(
        gathered, [_facts(group, version) for group in batch], group=actor.data_parallel_group
    )
    groups = [facts for part in gathered for facts in part]
    rollouts = [rollout for facts in groups for rollout in facts["rollouts"]]
    gaps = sum((facts["gaps"] for facts in groups), Counter())
    num_tokens = sum(gaps.values())
    metrics = {
        "sample_ids": [facts["sample_id"] for facts in groups],
        **_means(rollouts),
        "groups_without_signal": _share(not facts["has_signal"] for facts in groups),
        "num_groups": len(groups),
        "num_rollouts": len(rollouts),
        "num_tokens": num_tokens,
        "num_sequence_tokens": sum(facts["num_sequence_tokens"] for facts in groups),
        "length_histogram": _histogram(rollout["length"] for rollout in rollouts),
        "num_interruptions": sum(facts["num_interruptions"] for facts in groups),
        "gap_mean": sum(gap * count for gap, count in gaps.items()) / max(num_tokens, 1),
        "gap_max": max(gaps, default=0),
        "gap_histogram": {str(gap): gaps[gap] for gap in sorted(gaps)},
        **_parity(groups),
        **agent_metrics(rollouts),
        "hacking": _signs_of_hacking(facts["counters"] for facts in groups),
    }
    for key in ("source", "answer_type"):
        members = defaultdict(list)
        for rollout in rollouts:
            members[rollout[key]].append(rollout)
        metrics[f"by_{key}"] = {value: _means(part) for value, part in sorted(members.items())}
    return metrics


def _histogram(lengths: Iterable[int]) -> dict[str, int]:
    """Counts by length, rounded to the nearest quarter of a power of two.

    >>> _histogram([0, 1, 5, 60, 64])
    {'0': 1, '1': 1, '5': 1, '64': 2}
    """
    counts = Counter(round(2 ** (round(4 * math.log2(length)) / 4)) if length else 0 for length in lengths)
    return {str(length): counts[length] for length in sorted(counts)}


def _facts(group: Group, version: int) -> dict[str, Any]:
    """One group as small plain data, cheap to gather."""
    info = group["info"][0]
    mask = group["policy_mask"].bool()
    gaps = version - group["policy_versions"][mask]
    gap_to_server = difference(group, version)
    return {
        "sample_id": info.sample_id,
        "rollouts": [
            {
                "source": info.source,
                "answer_type": info.answer_type,
                "reward": score.total,
                "parts": score.parts,
                "status": score.status,
                "truncated": info.truncated[i],
                "length": info.lengths[i],
                "agent": agent_facts(info.trajectories[i]) if info.trajectories else None,
            }
            for i, score in enumerate(info.scores)
            if "given" not in group or not info.given[i]  # what was drawn, not what was given
        ],
        "counters": _counters(info),
        "has_signal": has_signal(group),
        "gaps": Counter(gaps.tolist()),
        "num_sequence_tokens": int(group["attention_mask"].sum()),
        "num_interruptions": info.num_interruptions,
        "parity_max": float(gap_to_server.max()) if len(gap_to_server) else 0.0,
        "parity_sum": float(gap_to_server.sum()),
        "parity_tokens": len(gap_to_server),
    }


def _counters(info: GroupInfo) -> RewardCounters:
    counters = RewardCounters()
    for score, completion in zip(info.scores, info.completions, strict=True):
        counters.add(score, completion, info.answer, info.answer_type)
    return counters


def _signs_of_hacking(parts: Iterable[RewardCounters]) -> dict[str, float]:
    """What a policy that games its verifiers shows first (reward/counters.py), over all ranks."""
    total = RewardCounters()
    for part in parts:
        total.merge(part)
    return total.numbers()


def _parity(groups: list[dict[str, Any]]) -> dict[str, float]:
    """Trainer against rollout engine under the same weights (trains/parity.py)."""
    num_tokens = sum(facts["parity_tokens"] for facts in groups)
    return {
        "parity_max": max((facts["parity_max"] for facts in groups), default=0.0),
        "parity_mean": sum(facts["parity_sum"] for facts in groups) / max(num_tokens, 1),
        "parity_tokens": num_tokens,
    }


def _means(rollouts: list[dict[str, Any]]) -> dict[str, Any]:
    """The metrics of some rollouts: all of a batch, or those of one source or answer type."""
    return {name: function(rollouts) for name, function in ROLLOUT_METRICS.items()}


def _parts(rollouts: list[dict[str, Any]]) -> dict[str, float]:
    values = defaultdict(list)
    for rollout in rollouts:
        for name, value in rollout["parts"].items():
            values[name].append(value)
    return {name: _mean(values[name]) for name in sorted(values)}


def _statuses(rollouts: list[dict[str, Any]]) -> dict[str, float]:
    counts = Counter(rollout["status"] for rollout in rollouts)
    return {status: counts[status] / max(len(rollouts), 1) for status in STATUSES if counts[status]}


def update_metrics(tracker_stats: dict[str, float]) -> dict[str, float]:
    """The policy update's statistics from AReaL's tracker, under the recipe's names."""
    wanted = {"avg": "_mean", "max": "_max"}
    kept = {
        "loss": "avg", "entropy": "avg", "ratio": "avg max", "clipped_low": "avg", "clipped_high": "avg",
        "dual_clipped": "avg", "behavior_weight": "avg max", "behavior_capped": "avg", "behavior_floored": "avg",
        "behavior_rejected": "avg", "off_policy_masked": "avg", "behavior_kl": "avg", "reference_kl": "avg",
    }  # fmt: skip
    metrics = {}
    for name, kinds in kept.items():
        for kind in kinds.split():
            value = tracker_stats.get(f"update/{name}/{kind}")
            if value is not None:
                metrics[name + (wanted[kind] if len(kinds.split()) > 1 else "")] = value
    of_critic = {kind: tracker_stats.get(f"critic/{kind}/avg") for kind in ("loss", "clipped")}
    if of_critic["loss"] is not None:
        metrics["critic"] = of_critic
    square = tracker_stats.get("update/behavior_weight_squared/avg")
    if square:
        # Kish: (sum w)^2 / (n sum w^2) = mean(w)^2 / mean(w^2)
        metrics["effective_sample_size"] = metrics["behavior_weight_mean"] ** 2 / square
    return metrics


def flat(metrics: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested metrics as `a/b/c: number`, for wandb and tensorboard."""
    numbers = {}
    for key, value in metrics.items():
        if isinstance(value, dict):
            numbers.update(flat(value, f"{prefix}{key}/"))
        elif isinstance(value, int | float):
            numbers[prefix + key] = value
    return numbers


def _mean(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).mean()) if values else 0.0


def _share(flags) -> float:
    flags = list(flags)
    return sum(flags) / max(len(flags), 1)


# name -> number, or numbers by name, from rollouts as `_facts` puts them; utils/metric_names.py explains each
ROLLOUT_METRICS: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "reward": lambda rollouts: _mean([rollout["reward"] for rollout in rollouts]),
    "solved": lambda rollouts: _share(rollout["parts"]["accuracy"] >= 1.0 for rollout in rollouts),
    "truncated": lambda rollouts: _share(rollout["truncated"] for rollout in rollouts),
    "length_mean": lambda rollouts: _mean([rollout["length"] for rollout in rollouts]),
    "length_max": lambda rollouts: max((rollout["length"] for rollout in rollouts), default=0),
    "parts": _parts,
    "statuses": _statuses,
}
