"""What is reported of the loss: statistics per token, and the objective as it is summed up."""

from __future__ import annotations

from typing import NamedTuple

import torch
from areal.utils import stats_tracker
from torch import Tensor

from utils.sequences import sums_of_sequences

# Statistics that are shares of tokens.
SHARES = (
    "clipped_low",
    "clipped_high",
    "dual_clipped",
    "behavior_capped",
    "behavior_floored",
    "behavior_rejected",
    "off_policy_masked",
)


class Objective(NamedTuple):
    """The loss of a micro-batch's tokens, everything included, and how it is summed up (utils/functional.py)."""

    per_token: Tensor  # [tokens]
    mask: Tensor  # [tokens], bool
    mode: str
    max_tokens: int
    cu_seqlens: Tensor


def record(stats: dict[str, Tensor], entropy: Tensor, objective: Objective) -> None:
    """Hand the statistics of a micro-batch to AReaL's tracker, which averages over micro-batches and ranks."""
    tracker = stats_tracker.get("update")
    weight = stats["behavior_weight"]
    tracker.denominator(tokens=objective.mask)
    tracker.stat(
        entropy=entropy.detach(),
        ratio=stats["ratio"],
        behavior_weight=weight,
        behavior_weight_squared=weight.square(),
        behavior_kl=-stats["behavior_log_ratio"],
        denominator="tokens",
    )
    shares = {name: stats[name].float() for name in SHARES if name in stats}
    tracker.stat(**shares, denominator="tokens")
    if "reference_kl" in stats:
        tracker.stat(reference_kl=stats["reference_kl"], denominator="tokens")
    _record_objective(tracker, objective)


def _record_objective(tracker: stats_tracker.DistributedStatsTracker, objective: Objective) -> None:
    loss, mask = objective.per_token.detach(), objective.mask
    if objective.mode == "token-mean":
        tracker.stat(loss=loss, denominator="tokens")
        return
    lengths = sums_of_sequences(mask.float(), objective.cu_seqlens)
    sums = sums_of_sequences(torch.where(mask, loss, 0.0), objective.cu_seqlens)
    divisor = lengths.clamp(min=1) if objective.mode == "sequence-mean" else objective.max_tokens
    tracker.denominator(responses=lengths > 0)
    tracker.stat(loss=sums / divisor, denominator="responses")
