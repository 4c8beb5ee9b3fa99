"""How far apart two policies are, from the log-probabilities of tokens that one of them generated.

All take tensors `[batch, seq]` or `[tokens]` of one shape and look only at `loss_mask`.
"""

from typing import Literal

import torch
from torch import Tensor

from utils.sequences import masked

KLEstimator = Literal["k1", "k2", "k3"]


def kl_estimate(policy_logprobs: Tensor, reference_logprobs: Tensor, kind: KLEstimator = "k3") -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens that the policy drew (Schulman 2020).

    With d = policy_logprobs - reference_logprobs:

        k1 = d               unbiased, any sign; as a loss its gradient is zero on average: a metric only
        k2 = d^2 / 2         biased, never negative; its gradient is that of the KL, on average
        k3 = exp(-d) - 1 + d unbiased, never negative, low variance; the DeepSeekMath penalty (eq. 4)

    Differentiable through both arguments. Source: http://joschu.net/blog/kl-approx.html.
    """
    difference = policy_logprobs - reference_logprobs
    if kind == "k1":
        return difference
    if kind == "k2":
        return difference.square() / 2
    if kind == "k3":
        return torch.expm1(-difference) + difference
    raise ValueError(f"KL estimator is {kind!r}; use 'k1', 'k2' or 'k3'")


def effective_sample_size(weights: Tensor, loss_mask: Tensor) -> Tensor:
    """Kish's effective number of samples as a share, (sum w)^2 / (n sum w^2), a scalar in [0, 1].

    1 when all importance weights are equal, 1/n when a single one dominates, 0 when all are zero.
    """
    mask = loss_mask.bool()
    w = masked(weights, mask)
    return w.sum().square() / (mask.sum() * w.square().sum()).clamp(min=torch.finfo(w.dtype).tiny)


def update_metrics(stats: dict[str, Tensor], loss_mask: Tensor) -> dict[str, Tensor]:
    """Scalars of one micro-batch from the `stats` of `decoupled_ppo_loss`, means over its loss tokens.

    ratio_mean, ratio_max; clipped_low_share, clipped_high_share, dual_clipped_share;
    behavior_weight_mean, behavior_weight_max, behavior_capped_share, behavior_floored_share;
    effective_sample_size (of the applied weight); behavior_kl (k1 of behavior || proximal, nats per token).
    All 0 without loss tokens.
    """
    mask = loss_mask.bool()
    count = mask.sum().clamp(min=1)

    def mean(name: str) -> Tensor:
        return masked(stats[name], mask).sum() / count

    metrics = {
        "ratio_mean": mean("ratio"),
        "ratio_max": masked(stats["ratio"], mask).max(),
        "behavior_weight_mean": mean("behavior_weight"),
        "behavior_weight_max": masked(stats["behavior_weight"], mask).max(),
        "effective_sample_size": effective_sample_size(stats["behavior_weight"], mask),
        "behavior_kl": -mean("behavior_log_ratio"),
    }
    flags = ("clipped_low", "clipped_high", "dual_clipped", "behavior_capped", "behavior_floored")
    return metrics | {f"{name}_share": mean(name) for name in flags}
