"""Conditions under which going on would waste GPU time: each stops the run with its likely causes."""

from __future__ import annotations

from typing import Any

# Largest mean absolute difference per token, in nats, that rounding of a dtype explains.
PARITY_THRESHOLDS = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 2e-2}


class FinalError(RuntimeError):
    """Starting the trainer again would end in the same error."""


class ParityError(FinalError):
    """Trainer and rollout engine do not compute the same policy."""


class DivergedError(RuntimeError):
    """Too many steps in a row had a loss or gradient that is not finite."""


def check_parity(record: dict[str, Any], dtype: str, threshold: float | None = None) -> None:
    """Compare both log-probabilities of the same tokens under the same weights, at the first step of a run.

    Raises `ParityError` when the mean absolute difference exceeds the threshold of `dtype`.
    """
    limit = PARITY_THRESHOLDS[dtype] if threshold is None else threshold
    if record["parity_tokens"] == 0 or record["parity_mean"] <= limit:
        return
    raise ParityError(
        f"trainer and rollout engine disagree by {record['parity_mean']:.2g} nats per token on average (largest "
        f"{record['parity_max']:.2g}) over {record['parity_tokens']} tokens of the same weights; {dtype} explains "
        f"{limit:.2g}. Likely causes: different temperature or top_p on the two sides; another checkpoint in "
        "sglang.model_path than in actor.path; images resized differently; an attention implementation that lets "
        "packed sequences see each other. "
        "A larger difference can be allowed with actor.parity_threshold."
    )


class SkipCounter:
    """Counts steps in a row whose gradient was not finite; AReaL's engine leaves the weights alone in such a step."""

    def __init__(self, limit: int):
        self.limit = limit
        self.in_a_row = 0

    def update(self, num_skipped: int) -> None:
        """Raises `DivergedError` beyond the limit."""
        self.in_a_row = self.in_a_row + 1 if num_skipped else 0
        if self.in_a_row > self.limit:
            raise DivergedError(
                f"{self.in_a_row} steps in a row had a gradient that is not finite (actor.max_skipped_steps="
                f"{self.limit}): lower actor.optimizer.lr, or look at behavior_weight and ratio in metrics.jsonl"
            )
