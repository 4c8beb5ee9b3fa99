"""The optimal token baseline: an advantage of its own for each token, from the group and without a critic.

Li et al. 2026, "The Optimal Token Baseline: Variance Reduction for Long-Horizon LLM-RL", arXiv:2602.07078.
"""

import torch
from torch import Tensor

from utils.advantages import signal_mask

# Estimators that give each token an advantage, this one and that of utils/value.py; those of utils/advantages.py give
# one to each response.
TOKEN_ESTIMATORS = ("otb", "gae")


def energy(logprobs: Tensor, squares: Tensor) -> Tensor:
    """Squared norm of the gradient of log pi(y) with respect to the logits, |onehot(y) - pi|^2, of each token.

        1 - 2 pi(y) + sum_v pi_v^2          in [0, 2]

    The paper's logit-gradient proxy for the norm of the whole gradient. `squares` is sum_v pi_v^2.
    """
    return 1 - 2 * logprobs.exp() + squares


def token_baseline_advantages(rewards: Tensor, energies: Tensor, loss_mask: Tensor) -> Tensor:
    """Advantages `[G, seq]` of the tokens of one group: r_i - B_t, zero outside of the mask.

        W_it = sum_{j <= t} energy_ij            over the tokens of answer i
        B_t  = sum_i W_it r_i / sum_i W_it       over the answers that have a t-th token

    rewards: `[G]`, of the whole answer (the return at each of its tokens). energies, loss_mask: `[G, seq]`, answers
    beginning in the same column. Where one answer alone is as long, its baseline is its reward: the tail of the longest
    one teaches nothing, and neither does a group without signal. Computed in float64, returned in float32 unless the
    rewards are float64.
    """
    mask = loss_mask.bool()
    cumulative = torch.where(mask, energies.double(), 0.0).cumsum(-1)
    weights = torch.where(mask, cumulative, 0.0)
    r = rewards.double()[:, None]
    total = weights.sum(0)
    # all energies are zero: every token was certain, and moves nothing
    baseline = torch.where(total > 0, (weights * r).sum(0) / total.clamp(min=1e-30), r.mean())
    advantages = torch.where(mask, r - baseline, 0.0)
    # and not the rounding of r - r
    alone = (mask.sum(0) == 1) | ~signal_mask(rewards, len(rewards))[:, None]
    advantages = advantages.masked_fill(alone, 0.0)
    return advantages if rewards.dtype == torch.float64 else advantages.float()
