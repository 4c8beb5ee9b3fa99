"""Numbers of a step's conversations with tools, under `agent/` of the metrics."""

from __future__ import annotations

from collections import Counter
from typing import Any

from reward.trajectory import facts


def agent_facts(trajectory: dict[str, Any]) -> dict[str, Any]:
    """One trajectory as small plain data: what `reward.trajectory.facts` finds, and faults by kind."""
    return {**facts(trajectory["turns"], trajectory["faults"]), "kinds": Counter(trajectory["faults"])}


def agent_metrics(rollouts: list[dict[str, Any]]) -> dict[str, Any]:
    """{"agent": numbers} over the rollouts that were conversations (`trains.metrics` puts their facts under `agent`);
    nothing where there are none.
    """
    found = [(rollout["agent"], rollout["parts"]) for rollout in rollouts if rollout.get("agent")]
    if not found:
        return {}
    count = len(found)

    def mean(name: str) -> float:
        return sum(facts[name] for facts, _ in found) / count

    calls = sum(facts["tool_calls"] for facts, _ in found)
    kinds = sum((facts["kinds"] for facts, _ in found), Counter())
    return {
        "agent": {
            "turns": mean("num_turns"),
            "calls": mean("tool_calls"),
            "images": mean("num_images"),
            "effective": sum(facts["effective_calls"] > 0 for facts, _ in found) / count,
            "useful": sum(parts.get("tool_bonus", 0.0) for _, parts in found) / count,
            "calls_without_effect": sum(facts["ineffective_calls"] for facts, _ in found) / max(calls, 1.0),
            "copied_replies": mean("copied"),
            "faults": {kind: kinds[kind] / count for kind in sorted(kinds)},
        }
    }
