"""What the age of a token does to its loss: importance weights, rejection, and masks of whole responses.

All of it compares a policy of the trainer with the behavior policy that drew the token, without gradient. Layouts as
in utils/sequences.py: `[batch, seq]`, or `[tokens]` with `cu_seqlens`.
"""

from typing import Literal

import torch
from torch import Tensor

from utils.loss_options import check_values
from utils.sequences import MAX_LOG_RATIO, masked, sequence_extreme, sequence_mean, sequence_sum

Level = Literal["token", "sequence", "product"]
RejectionLevel = Literal["none", "token", "sequence", "product", "maximum"]
BehaviorMode = Literal["truncate", "mask"]


def behavior_weight(
    proximal_logprobs: Tensor,
    behavior_logprobs: Tensor,
    loss_mask: Tensor,
    *,
    cap: float = 5.0,
    floor: float = 0.0,
    mode: BehaviorMode = "truncate",
    level: Level = "token",
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Importance weight of the proximal over the behavior policy, without gradient.

        w = exp(proximal - behavior), per token; exp of its mean (level sequence, the geometric mean) or of its sum
            (level product, the ratio of the whole response) over the sequence
        truncate: min(max(w, floor), cap)        mask: w if floor <= w <= cap else 0

    Returns `(weight, capped, floored)` in the layout of the inputs: the bounded weight (zero outside the
    mask), and where the unbounded one stood above `cap` or below `floor`.
    """
    check_values(
        {"behavior_cap": cap, "behavior_floor": floor, "behavior_mode": mode, "behavior_level": level}
    )
    mask = loss_mask.bool()
    with torch.no_grad():
        raw = _ratio(_log_weight(proximal_logprobs, behavior_logprobs, mask), mask, level, cu_seqlens)
        capped, floored = (raw > cap) & mask, (raw < floor) & mask
        weight = raw.clamp(floor, cap) if mode == "truncate" else raw.masked_fill(capped | floored, 0.0)
        return torch.where(mask, weight, 0.0), capped, floored


def rejected_tokens(
    proximal_logprobs: Tensor,
    behavior_logprobs: Tensor,
    loss_mask: Tensor,
    *,
    level: RejectionLevel = "none",
    cap: float = 5.0,
    floor: float = 0.0,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """True on the loss tokens that are rejected, whatever they would weigh.

    With w_t = exp(proximal - behavior) of token t, rejected is

        token     the token, where w_t leaves [floor, cap]
        sequence  the response, where the geometric mean of its w_t does
        product   the response, where the product of its w_t does
        maximum   the response, where any of its w_t does

    Rejected tokens have no loss and stay in its denominator, as `behavior_mode: mask` has it.
    """
    check_values({"rejection_level": level, "rejection_cap": cap, "rejection_floor": floor})
    mask = loss_mask.bool()
    if level == "none":
        return torch.zeros_like(mask)
    with torch.no_grad():
        log_weight = _log_weight(proximal_logprobs, behavior_logprobs, mask)
        if level != "maximum":
            ratio = _ratio(log_weight, mask, level, cu_seqlens)
            return ((ratio > cap) | (ratio < floor)) & mask
        highest, lowest = (
            _ratio(sequence_extreme(log_weight, mask, kind, cu_seqlens), mask) for kind in ("amax", "amin")
        )
        return ((highest > cap) | (lowest < floor)) & mask


def off_policy_responses(
    policy_logprobs: Tensor,
    behavior_logprobs: Tensor,
    advantages: Tensor,
    loss_mask: Tensor,
    *,
    delta: float,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """True on the loss tokens of responses that are bad and far from the policy by now.

        A < 0  and  1/|o| sum_t (behavior_t - policy_t) > delta

    Off-policy sequence masking of DeepSeek-V3.2 (arXiv:2512.02556, section 3.1; its pi_old is the policy that sampled,
    by the engine's own numbers). They multiply the objective by 0 there and leave its denominators alone.
    """
    mask = loss_mask.bool()
    with torch.no_grad():
        distance = sequence_mean(_log_weight(behavior_logprobs, policy_logprobs, mask), mask, cu_seqlens)
        return (distance > delta) & (masked(advantages, mask) < 0) & mask


def _log_weight(numerator: Tensor, denominator: Tensor, mask: Tensor) -> Tensor:
    return masked(numerator, mask) - masked(denominator, mask)


def _ratio(
    log_weight: Tensor, mask: Tensor, level: str = "token", cu_seqlens: Tensor | None = None
) -> Tensor:
    if level == "sequence":
        log_weight = sequence_mean(log_weight, mask, cu_seqlens)
    elif level == "product":
        log_weight = sequence_sum(log_weight, cu_seqlens)
    return log_weight.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
