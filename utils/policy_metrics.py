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
