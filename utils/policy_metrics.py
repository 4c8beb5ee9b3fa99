"""How far apart two policies are, from the log-probabilities of tokens that one of them generated.

Tensors are `[batch, seq]` or `[tokens]`, all of one shape.
"""

from typing import Literal

import torch
from torch import Tensor

from utils.sequences import MAX_LOG_RATIO

KLEstimator = Literal["k1", "k2", "k3"]


def kl_estimate(policy_logprobs: Tensor, reference_logprobs: Tensor, kind: KLEstimator = "k3") -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens that the policy drew (Schulman 2020).

    With d = policy_logprobs - reference_logprobs:

        k1 = d               unbiased, any sign; as a loss its gradient is zero on average: a metric only
        k2 = d^2 / 2         biased, never negative; its gradient is that of the KL, on average
        k3 = exp(-d) - 1 + d unbiased, never negative, low variance; the DeepSeekMath penalty (eq. 4)

    Differentiable through both arguments; d is limited to +-`MAX_LOG_RATIO` in k2 and k3, so that value and
    gradient stay finite on any token, masked ones included. Source: http://joschu.net/blog/kl-approx.html.
    """
    difference = policy_logprobs - reference_logprobs
    limited = difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    if kind == "k1":
        return difference
    if kind == "k2":
        return limited.square() / 2
    if kind == "k3":
        return torch.expm1(-limited) + limited
    raise ValueError(f"KL estimator is {kind!r}; use 'k1', 'k2' or 'k3'")


def kl_penalty(
    policy_logprobs: Tensor,
    reference_logprobs: Tensor,
    kind: KLEstimator = "k3",
    *,
    bound: float | None = 10.0,
    behavior_logprobs: Tensor | None = None,
) -> Tensor:
    """What the loss adds per token, times `kl_coefficient`; differentiable through the policy.

        min(kl, bound)                             k3 alone: its gradient 1 - exp(-d) reaches -2,980 at d = -8
        exp(policy - behavior) * kl                with `behavior_logprobs`: of tokens that another policy drew

    Where k3 stands above `bound` nats, d below -2.6 or above 11, the penalty is constant and does not pull at all. The
    second form is the unbiased estimate of DeepSeek-V3.2 (arXiv:2512.02556, section 3.1): with k3 its gradient is
    exp(policy - behavior) d, that of KL(policy || reference), whoever drew the token; nothing of it is bounded but the
    log ratio, at +-`MAX_LOG_RATIO`.
    """
    kl = kl_estimate(policy_logprobs, reference_logprobs, kind)
    if behavior_logprobs is not None:
        ratio = (policy_logprobs - behavior_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        return ratio * kl
    return kl.clamp(max=bound) if kind == "k3" and bound is not None else kl
