"""What is maximised of a token, given its ratio r to the proximal policy and its advantage A: `loss.surrogate`.

Each function returns `(loss, clipped_low, clipped_high)` like its inputs: the loss of each token before any weight, and
where the bounds of r decide it. Inputs are masked already: zero, value and gradient, outside of the loss tokens.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from utils.sequences import MAX_LOG_RATIO, sequence_mean


class Terms(NamedTuple):
    """What a surrogate is made of; tensors are `[batch, seq]` or `[tokens]`."""

    log_ratio: Tensor  # policy - proximal, per token or its mean over the sequence (GSPO); with gradient
    advantages: Tensor  # A
    policy: Tensor  # log-probabilities, with gradient
    mask: Tensor  # bool
    low: float  # 1 - eps_clip
    high: float  # 1 + eps_clip_higher
    tau_positive: float
    tau_negative: float
    cu_seqlens: Tensor | None

    @property
    def ratio(self) -> Tensor:
        return self.log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


Losses = tuple[Tensor, Tensor, Tensor]


def ppo(t: Terms) -> Losses:
    """max(-A r, -A clip(r)). Schulman et al. 2017, arXiv:1707.06347, eq. 7; also GSPO with one r per sequence."""
    ratio = t.ratio
    loss = torch.maximum(-t.advantages * ratio, -t.advantages * ratio.clamp(t.low, t.high))
    return loss, (ratio < t.low) & (t.advantages < 0), (ratio > t.high) & (t.advantages > 0)


def cispo(t: Terms) -> Losses:
    """-sg(clip(r)) A log pi: a clipped token keeps a bounded gradient. MiniMax-M1, arXiv:2506.13585, section 3.1."""
    ratio = t.ratio
    loss = -ratio.clamp(t.low, t.high).detach() * t.advantages * t.policy
    return loss, ratio < t.low, ratio > t.high


def sapo(t: Terms) -> Losses:
    """-A f(r), f(r) = 4 / tau * sigmoid(tau (r - 1)), tau by the sign of A. Gao et al. 2025, arXiv:2511.20347.

    f'(1) = 1, so on-policy tokens have the plain policy gradient; it falls off smoothly on both sides, faster for bad
    tokens where tau_negative is larger. Nothing is clipped.
    """
    tau = torch.where(
        t.advantages > 0, t.advantages.new_tensor(t.tau_positive), t.advantages.new_tensor(t.tau_negative)
    )
    gate = torch.sigmoid(tau * (t.ratio - 1)) * 4 / tau
    nothing = torch.zeros_like(t.mask)
    return -t.advantages * gate, nothing, nothing


def gmpo(t: Terms) -> Losses:
    """-A (prod_t |min(r_t A, clip(r_t) A)| / |A|)^(1/|o|) on each token. Zhao et al. 2025, arXiv:2507.20673.

    The clip is of each token, as in ppo; the geometric mean is over the response, so one outlier of r moves it little.
    """
    log_ratio = t.log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    bounds = torch.tensor([t.low, t.high], dtype=torch.float64).log().tolist()
    clipped = log_ratio.clamp(*bounds)
    chosen = torch.where(
        t.advantages > 0, torch.minimum(log_ratio, clipped), torch.maximum(log_ratio, clipped)
    )
    mean = sequence_mean(chosen, t.mask, t.cu_seqlens)
    is_low, is_high = log_ratio < bounds[0], log_ratio > bounds[1]
    return -t.advantages * mean.exp(), is_low & (t.advantages < 0), is_high & (t.advantages > 0)


SURROGATES: dict[str, Callable[[Terms], Losses]] = {"ppo": ppo, "cispo": cispo, "sapo": sapo, "gmpo": gmpo}
