"""What a critic is for and learns from: advantages by GAE, the clipped value loss, how much of the returns it explains.

Positions are those of log-probabilities: position t holds what belongs to token t + 1, and so V_t is the value of what
stands before that token. Tensors are `[G, seq]`, or `[tokens]` where said.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Estimate(NamedTuple):
    """Float32 `[G, seq]`, zero outside of the loss tokens."""

    advantages: Tensor
    returns: Tensor  # A + V: what the critic is trained towards
    monte_carlo: Tensor  # discount^(tokens to come) * r: what it is measured by


def generalized_advantages(
    rewards: Tensor, values: Tensor, loss_mask: Tensor, *, discount: float = 1.0, trace: float = 1.0
) -> Estimate:
    """Generalized advantage estimation (Schulman et al. 2016, arXiv:1506.02438, eq. 11 and 16).

        delta_t = r_t + discount V_{t+1} - V_t,    A_t = delta_t + discount trace A_{t+1}

    rewards: `[G]`, given at the last loss token of each rollout; 0 at the others, and nothing comes behind it, also
    where the answer was cut off at its limit. values, loss_mask: `[G, seq]`. What stands between the loss tokens
    (replies of tools) is passed over: t + 1 is the next loss token. `trace` is the paper's lambda: 1 gives A_t =
    discounted r - V_t, 0 the one-step difference. A rollout without loss tokens has no advantage.
    """
    mask = loss_mask.bool()
    v = torch.where(mask, values.double(), 0.0)
    advantages, monte_carlo = torch.zeros_like(v), torch.zeros_like(v)
    later = v.new_zeros(3, len(v))  # V, A and the return of the next loss token
    is_last = mask.any(-1)  # until one has been seen
    for t in reversed(range(v.shape[1])):
        here = mask[:, t]
        reward = torch.where(here & is_last, rewards.double(), 0.0)
        delta = reward + discount * later[0] - v[:, t]
        now = torch.stack([v[:, t], delta + discount * trace * later[1], reward + discount * later[2]])
        later, is_last = torch.where(here, now, later), is_last & ~here
        advantages[:, t], monte_carlo[:, t] = now[1] * here, now[2] * here
    return Estimate(*(x.float() for x in (advantages, advantages + v, monte_carlo)))


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, loss_mask: Tensor, *, clip: float | None
) -> tuple[Tensor, Tensor]:
    """Loss of each value `[tokens]`, and where the clip decides it.

        L = max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2) / 2

    V_old is the value before the update: c bounds how far one update may move it, in units of the reward. Dhariwal
    et al. 2017 (OpenAI baselines, ppo2); the PPO paper itself has the plain square, `clip=None`. Zero outside of the
    mask.
    """
    mask = loss_mask.bool()
    v, old, target = (torch.where(mask, x.float(), 0.0) for x in (values, old_values, returns))
    loss = (v - target).square()
    clipped = torch.zeros_like(mask)
    if clip is not None:
        bounded = (old + (v - old).clamp(-clip, clip) - target).square()
        clipped = bounded > loss
        loss = torch.maximum(loss, bounded)
    return torch.where(mask, loss / 2, 0.0), clipped & mask


def explained_moments(values: Tensor, monte_carlo: Tensor, loss_mask: Tensor) -> Tensor:
    """`[6]` float64 sums over the loss tokens: 1, R, R^2, V, R - V, (R - V)^2. Additive over groups and ranks."""
    mask = loss_mask.bool()
    r, v = monte_carlo[mask].double(), values[mask].double()
    error = r - v
    return torch.stack(
        [mask.sum().double(), r.sum(), r.square().sum(), v.sum(), error.sum(), error.square().sum()]
    )


def explained_variance(moments: Tensor) -> float:
    """1 - Var(R - V) / Var(R): 1 for values that know the return, 0 for a constant, below 0 for worse than that.

    0 where all returns are equal.
    """
    count, r, r_squared, _, error, error_squared = moments.tolist()
    if count == 0:
        return 0.0
    variance = r_squared / count - (r / count) ** 2
    unexplained = error_squared / count - (error / count) ** 2
    return 1 - unexplained / variance if variance > 1e-12 else 0.0
