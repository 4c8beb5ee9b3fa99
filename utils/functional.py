"""The policy loss: tensors in, tensors out, no configuration, no logging, no communication.

Three policies meet in a token of asynchronous training (names as in the decoupled PPO objective of
Hilton et al. 2021, arXiv:2110.00641, used by AReaL, Fu et al. 2025, arXiv:2505.24298, section 5.2):

- behavior: generated the token; its log-probability comes from the rollout engine,
- proximal: the weights at the start of this update; recomputed by the trainer without gradient,
- policy: the weights being trained; the only one that the gradient reaches.

Every function takes the padded layout `[batch, seq]` or the packed layout `[tokens]` with
`cu_seqlens` `[num_sequences + 1]`. What stands outside `loss_mask` never matters, not even NaN.
`docs/algorithm.md` has the formulas in one place.
"""

from typing import Literal

import torch
from torch import Tensor

from utils.behavior import BehaviorMode, Level, RejectionLevel, behavior_weight, rejected_tokens
from utils.loss_options import check_values
from utils.sequences import masked, sequence_mean, sequence_sum, sums_of_sequences
from utils.surrogates import SURROGATES, Terms

Surrogate = Literal["ppo", "cispo", "sapo", "gmpo"]
LossMode = Literal["token-mean", "sequence-mean", "constant"]


def decoupled_ppo_loss(
    policy_logprobs: Tensor,
    proximal_logprobs: Tensor,
    behavior_logprobs: Tensor,
    advantages: Tensor,
    loss_mask: Tensor,
    *,
    eps_clip: float = 0.2,
    eps_clip_higher: float = 0.28,
    dual_clip: float | None = None,
    behavior_cap: float = 5.0,
    behavior_floor: float = 0.0,
    behavior_mode: BehaviorMode = "truncate",
    behavior_level: Level = "token",
    rejection_level: RejectionLevel = "none",
    rejection_cap: float = 5.0,
    rejection_floor: float = 0.0,
    ratio_level: Literal["token", "sequence"] = "token",
    surrogate: Surrogate = "ppo",
    sapo_tau_positive: float = 1.0,
    sapo_tau_negative: float = 1.05,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Per-token policy loss of the recipe and its variants, before aggregation.

    The recipe (project page; A = advantage, sg = stop-gradient):

        r = exp(policy_logprobs - proximal_logprobs)
        w = sg(min(exp(proximal_logprobs - behavior_logprobs), behavior_cap))
        L = w * max(-A r, -A clip(r, 1 - eps_clip, 1 + eps_clip_higher))

    Variants, one switch each:

    - `behavior_mode="mask"`: w = 0 where the weight leaves [behavior_floor, behavior_cap], instead of
      the nearest bound. The token stays in the denominator.
    - `behavior_level="sequence"` or `"product"`: one weight per sequence, the geometric mean of its token weights or
      their product.
    - `rejection_level`: L = 0 for tokens or whole responses whose unbounded weight leaves [rejection_floor,
      rejection_cap], judged by itself or by the responses' geometric mean, product or extremes (utils/behavior.py).
    - `ratio_level="sequence"`: one r per sequence, the geometric mean of its token ratios, and the mean
      of its advantages (GSPO, Zheng et al. 2025, arXiv:2507.18071, eq. 5 to 7).
    - `surrogate`: cispo, sapo (with its two `sapo_tau`) or gmpo in place of the clipped ratio (utils/surrogates.py).
    - `dual_clip=c`, c > 1: where A < 0, L <= w * c * |A| (Ye et al. 2020, arXiv:1912.09729).
    - the coupled loss (no behavior weight): pass the same tensor as proximal and behavior, then w = 1.

    All tensors are `[batch, seq]`, or `[tokens]` with `cu_seqlens`; `loss_mask` is 1 or True on the tokens
    trained on. Half precision is raised to float32. Log ratios are limited to +-`MAX_LOG_RATIO`.

    Returns `(loss, stats)`: `loss` like the inputs, zero outside the mask; `stats` holds detached tensors
    of the same shape, zero or False outside the mask:
    `ratio` (r), `log_ratio`, `behavior_weight` (w as applied), `behavior_log_ratio` (proximal - behavior,
    per token, unbounded), `clipped_low`, `clipped_high` (the clip decides the loss there), `dual_clipped`,
    `behavior_capped` (above the cap before bounding), `behavior_floored` (below the floor), `behavior_rejected`.

    Raises ValueError for shapes that differ, a missing `cu_seqlens`, or an option out of range.
    """
    _check_loss_inputs(policy_logprobs, proximal_logprobs, behavior_logprobs, advantages, loss_mask)
    check_values(
        {
            "eps_clip": eps_clip,
            "eps_clip_higher": eps_clip_higher,
            "dual_clip": dual_clip,
            "ratio_level": ratio_level,
            "surrogate": surrogate,
            "sapo_tau_positive": sapo_tau_positive,
            "sapo_tau_negative": sapo_tau_negative,
        }
    )
    if surrogate != "ppo" and (dual_clip is not None or ratio_level == "sequence"):
        raise ValueError(f"surrogate {surrogate!r} goes with ratio_level 'token' and dual_clip None")
    mask = loss_mask.bool()
    policy = masked(policy_logprobs, mask)
    proximal = masked(proximal_logprobs, mask).detach()
    behavior = masked(behavior_logprobs, mask).detach()
    advantages = masked(advantages, mask).detach()

    log_ratio = policy - proximal
    if ratio_level == "sequence":
        log_ratio = sequence_mean(log_ratio, mask, cu_seqlens)
        advantages = sequence_mean(advantages, mask, cu_seqlens)
    terms = Terms(
        log_ratio,
        advantages,
        policy,
        mask,
        low=1 - eps_clip,
        high=1 + eps_clip_higher,
        tau_positive=sapo_tau_positive,
        tau_negative=sapo_tau_negative,
        cu_seqlens=cu_seqlens,
    )
    loss, clipped_low, clipped_high = SURROGATES[surrogate](terms)

    dual_clipped = torch.zeros_like(mask)
    if dual_clip is not None:
        bound = -advantages * dual_clip
        dual_clipped = (advantages < 0) & (loss > bound)
        loss = torch.where(dual_clipped, bound, loss)

    weight, capped, floored = behavior_weight(
        proximal,
        behavior,
        mask,
        cap=behavior_cap,
        floor=behavior_floor,
        mode=behavior_mode,
        level=behavior_level,
        cu_seqlens=cu_seqlens,
    )
    rejected = rejected_tokens(
        proximal,
        behavior,
        mask,
        level=rejection_level,
        cap=rejection_cap,
        floor=rejection_floor,
        cu_seqlens=cu_seqlens,
    )
    weight = weight.masked_fill(rejected, 0.0)
    loss = torch.where(mask, weight * loss, 0.0)
    stats = {
        "ratio": torch.where(mask, terms.ratio, 0.0),
        "log_ratio": torch.where(mask, log_ratio, 0.0),
        "behavior_weight": weight,
        "behavior_log_ratio": proximal - behavior,
        "clipped_low": clipped_low & mask,
        "clipped_high": clipped_high & mask,
        "dual_clipped": dual_clipped & mask,
        "behavior_capped": capped,
        "behavior_floored": floored,
        "behavior_rejected": rejected,
    }
    return loss, {name: value.detach() for name, value in stats.items()}


def aggregate_loss(
    per_token_loss: Tensor,
    loss_mask: Tensor,
    mode: LossMode = "token-mean",
    *,
    denominator: float | Tensor,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """Reduce per-token losses to a scalar, divided by a denominator that the caller supplies.

        token-mean      sum_t L_t / denominator                   (DAPO, Yu et al. 2025, eq. 8)
        sequence-mean   sum_i (1/|o_i| sum_t L_it) / denominator  (GRPO, Shao et al. 2024, eq. 3)
        constant        sum_t L_t / denominator                   (Dr. GRPO, Liu et al. 2025, section 3.2)

    The denominator is the sum of `loss_denominator(...)` over every micro-batch and data-parallel rank of
    the gradient step; the micro-batch losses then add up to the loss of the whole batch, however it is cut.

    Returns a scalar with gradient. Raises ValueError unless the denominator is positive.
    """
    if not denominator > 0:
        raise ValueError(
            f"the loss denominator is {float(denominator)}; a step needs at least one loss token"
        )
    mask = loss_mask.bool()
    values = masked(per_token_loss, mask)
    if mode == "sequence-mean":
        values = values / sequence_sum(mask.to(values.dtype), cu_seqlens).clamp(min=1)
    elif mode not in ("token-mean", "constant"):
        raise ValueError(f"loss mode is {mode!r}; use 'token-mean', 'sequence-mean' or 'constant'")
    return values.sum() / denominator


def loss_denominator(
    loss_mask: Tensor,
    mode: LossMode = "token-mean",
    *,
    max_tokens: int | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """One micro-batch's share of the global denominator, a scalar float32 tensor, 0 without loss tokens.

    token-mean: its loss tokens. sequence-mean: its sequences with at least one loss token. constant: those
    sequences times `max_tokens`, the generation limit (required). Additive over micro-batches and ranks.
    """
    mask = loss_mask.bool()
    if mode == "token-mean":
        return mask.sum().float()
    if mode not in ("sequence-mean", "constant"):
        raise ValueError(f"loss mode is {mode!r}; use 'token-mean', 'sequence-mean' or 'constant'")
    num_sequences = sums_of_sequences(mask.float(), cu_seqlens).count_nonzero().float()
    if mode == "sequence-mean":
        return num_sequences
    if max_tokens is None or max_tokens <= 0:
        raise ValueError(
            f"loss mode 'constant' needs max_tokens > 0 (the generation limit), got {max_tokens}"
        )
    return num_sequences * max_tokens


def _check_loss_inputs(policy: Tensor, *others: Tensor) -> None:
    names = ("proximal_logprobs", "behavior_logprobs", "advantages", "loss_mask")
    for name, tensor in zip(names, others, strict=True):
        if tensor.shape != policy.shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, policy_logprobs {tuple(policy.shape)}; "
                "all are [batch, seq] or [tokens]"
            )
