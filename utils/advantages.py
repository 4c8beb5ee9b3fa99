"""Advantages without a critic: the baseline comes from the other rollouts of the same prompt.

All functions work on one value per rollout, `[num_rollouts]`; the trainer spreads an advantage over the
rollout's tokens afterwards (`advantage[:, None] * loss_mask`). Computation is in float64 and is returned
in float32 (float64 rewards stay float64).

A group without signal, all rewards equal up to rounding, teaches nothing: every estimator gives it exactly
zero, and `batch_whiten` neither counts it in its statistics nor moves it away from zero.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

# Rewards lie in [0, 1] or [-5, 5]: float32 rounding is below this, a real difference of rewards above it.
SIGNAL_TOLERANCE = 1e-6


def shape_rewards(rewards: Tensor, *, bias: float = -0.5, scaling: float = 10.0) -> Tensor:
    """`(rewards + bias) * scaling`, the recipe's (r - 0.5) * 10. GRPO advantages do not change under it."""
    return (rewards + bias) * scaling


def shuffled(rewards: Tensor, seed: int) -> Tensor:
    """The same rewards `[num_rollouts]` dealt out at random: what a control learns from.

    Their distribution stays; what they say of an answer, of its prompt and of its task is gone.
    """
    order = torch.randperm(len(rewards), generator=torch.Generator().manual_seed(seed))
    return rewards[order.to(rewards.device)]


def group_advantages(
    rewards: Tensor,
    groups: Tensor | int,
    estimator: str = "grpo",
    *,
    lengths: Tensor | None = None,
    std: Literal["population", "sample"] = "population",
    eps: float = 1e-6,
    moments: Tensor | None = None,
) -> Tensor:
    """Advantage of each rollout `[num_rollouts]` against its group, by one of `ESTIMATORS`.

    `groups` is an int (consecutive groups of that size) or an integer tensor `[num_rollouts]` of any ids.
    `lengths` `[num_rollouts]` are response lengths in tokens (opo only). `std="sample"` divides by G - 1.
    `moments` are the batch statistics over all data-parallel ranks, for the two reinforce++ forms
    (see `batch_moments`); without them the statistics are those of the rollouts given.

    Example: rewards 1, 1, 1, 0.5, 0 have mean 0.7 and population std 0.4: grpo gives 0.75, 0.75, 0.75,
    -0.5, -1.75.

    Raises ValueError for a non-finite reward, sizes that do not fit, an unknown estimator, opo without
    lengths.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator is {estimator!r}; use one of {', '.join(ESTIMATORS)}")
    if std not in ("population", "sample"):
        raise ValueError(f"std is {std!r}; use 'population' or 'sample'")
    _check_rewards(rewards)
    r, index = rewards.double(), _group_index(groups, rewards)
    signal = signal_mask(rewards, groups)
    size = _group_sum(torch.ones_like(r), index)
    centered = r - _group_sum(r, index) / size

    rollouts = Rollouts(r, centered, size, index, signal, lengths, std == "sample", eps, moments)
    advantages = ESTIMATORS[estimator](rollouts)
    return torch.where(signal, advantages, 0.0).to(_output_dtype(rewards))


def signal_mask(rewards: Tensor, groups: Tensor | int, *, tolerance: float = SIGNAL_TOLERANCE) -> Tensor:
    """True on the rollouts `[num_rollouts]` whose group's rewards differ by more than rounding.

    A group has signal when max - min > tolerance * max(1, max |r|). A group of one never has.
    """
    _check_rewards(rewards)
    r, index = rewards.double(), _group_index(groups, rewards)
    highest = _group_reduce(r, index, "amax")
    lowest = _group_reduce(r, index, "amin")
    scale = torch.maximum(highest.abs(), lowest.abs()).clamp(min=1)
    return highest - lowest > tolerance * scale


def batch_whiten(
    advantages: Tensor,
    weights: Tensor | None,
    signal: Tensor,
    *,
    moments: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """Advantages with weighted mean 0 and standard deviation 1 over the batch's groups with signal.

    `advantages` is `[num_rollouts]` with `weights` the response lengths (so that every token counts once),
    or `[batch, seq]` with `weights` the loss mask; `weights=None` counts each entry once. `signal` is
    `[num_rollouts]` from `signal_mask`. `moments` are `batch_moments` summed over the data-parallel ranks;
    without them the batch is what is given here.

    The standard deviation is the population one. Entries without signal or weight come back exactly zero,
    and a batch without any signal is all zeros.
    """
    a, w = _weighted(advantages, weights, signal)
    total, first, second = _moments(a, w) if moments is None else moments.double()
    if total == 0:
        return torch.zeros_like(advantages, dtype=_output_dtype(advantages))
    mean = first / total
    deviation = (second / total - mean.square()).clamp(min=0).sqrt()
    return torch.where(w > 0, (a - mean) / (deviation + eps), 0.0).to(_output_dtype(advantages))


def batch_moments(advantages: Tensor, weights: Tensor | None, signal: Tensor) -> Tensor:
    """`[3]` float64: sum of weights, of w * a, of w * a^2 over the entries with signal.

    Additive: all-reduce it with SUM over the data-parallel ranks and pass it to `batch_whiten`.
    """
    return _moments(*_weighted(advantages, weights, signal))


def _weighted(advantages: Tensor, weights: Tensor | None, signal: Tensor) -> tuple[Tensor, Tensor]:
    if signal.shape != advantages.shape[:1]:
        raise ValueError(
            f"signal has shape {tuple(signal.shape)}, wanted {tuple(advantages.shape[:1])}: one per rollout"
        )
    a = advantages.double()
    w = torch.ones_like(a) if weights is None else weights.to(a)
    if w.shape != a.shape:
        raise ValueError(f"weights have shape {tuple(w.shape)}, advantages {tuple(a.shape)}")
    signal = signal.reshape(-1, *[1] * (a.ndim - 1))
    w = torch.where(signal, w, 0.0)
    return torch.where(w > 0, a, 0.0), w


def _moments(a: Tensor, w: Tensor) -> Tensor:
    return torch.stack([w.sum(), (w * a).sum(), (w * a.square()).sum()])


def _group_index(groups: Tensor | int, rewards: Tensor) -> Tensor:
    """`[num_rollouts]` group numbers 0, 1, 2, ..."""
    n = rewards.shape[0]
    if isinstance(groups, int):
        if groups < 1 or n % groups:
            raise ValueError(f"{n} rollouts cannot be cut into groups of {groups}")
        return torch.arange(n, device=rewards.device) // groups
    if groups.shape != rewards.shape:
        raise ValueError(f"group ids have shape {tuple(groups.shape)}, rewards {tuple(rewards.shape)}")
    return groups.to(rewards.device).unique(return_inverse=True)[1]


def _group_sum(values: Tensor, index: Tensor) -> Tensor:
    """Sum over each group, repeated on each member."""
    num_groups = int(index.max()) + 1 if index.numel() else 0
    return values.new_zeros(num_groups).index_add(0, index, values)[index]


def _group_reduce(values: Tensor, index: Tensor, reduce: str) -> Tensor:
    num_groups = int(index.max()) + 1 if index.numel() else 0
    out = values.new_zeros(num_groups).scatter_reduce(0, index, values, reduce, include_self=False)
    return out[index]


def _check_rewards(rewards: Tensor) -> None:
    if rewards.ndim != 1:
        raise ValueError(f"rewards have shape {tuple(rewards.shape)}; wanted [num_rollouts]")
    if not torch.isfinite(rewards).all():
        bad = torch.nonzero(~torch.isfinite(rewards)).flatten().tolist()
        raise ValueError(f"rewards {bad} of {len(rewards)} are not finite; a verifier must return a number")


def _output_dtype(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32


class Rollouts(NamedTuple):
    """What an estimator may look at; tensors are `[num_rollouts]`, in float64 where they are numbers."""

    rewards: Tensor  # r
    centered: Tensor  # r - mean of the group
    size: Tensor  # G, of the rollout's own group
    index: Tensor  # the group's number, from 0
    signal: Tensor  # True where the group has signal
    lengths: Tensor | None  # response lengths in tokens
    is_sample_std: bool
    eps: float
    moments: Tensor | None  # `[3]`, of the batch over all ranks


def _grpo(rollouts: Rollouts) -> Tensor:
    """(r - mean) / (std + eps). Shao et al. 2024, arXiv:2402.03300, section 4.1.2."""
    squares = _group_sum(rollouts.centered.square(), rollouts.index)
    variance = squares / (rollouts.size - int(rollouts.is_sample_std)).clamp(min=1)
    return rollouts.centered / (variance.sqrt() + rollouts.eps)


def _dr_grpo(rollouts: Rollouts) -> Tensor:
    """r - mean. Liu et al. 2025, arXiv:2503.20783."""
    return rollouts.centered


def _rloo(rollouts: Rollouts) -> Tensor:
    """r - mean of the other G - 1. Ahmadian et al. 2024, arXiv:2402.14740."""
    return rollouts.centered * rollouts.size / (rollouts.size - 1).clamp(min=1)


def _opo(rollouts: Rollouts) -> Tensor:
    """r - sum(l r) / sum(l), where l is the response's length. Hao et al. 2025, arXiv:2505.23585."""
    if rollouts.lengths is None:
        raise ValueError("estimator 'opo' needs lengths, the response lengths in tokens")
    weight = rollouts.lengths.to(rollouts.rewards)
    # A group whose responses are all empty has no length-weighted mean, and no token to train on.
    total = _group_sum(weight, rollouts.index).clamp(min=1)
    return rollouts.rewards - _group_sum(weight * rollouts.rewards, rollouts.index) / total


def _reinforce(rollouts: Rollouts) -> Tensor:
    """(r - batch mean) / batch std. Hu et al. 2025, arXiv:2501.03262."""
    return batch_whiten(rollouts.rewards, None, rollouts.signal, moments=rollouts.moments, eps=rollouts.eps)


def _reinforce_baseline(rollouts: Rollouts) -> Tensor:
    """(r - mean) / batch std: the same paper, for several rollouts a prompt."""
    return _reinforce(rollouts._replace(rewards=rollouts.centered))


ESTIMATORS: dict[str, Callable[[Rollouts], Tensor]] = {
    "grpo": _grpo,
    "dr_grpo": _dr_grpo,
    "rloo": _rloo,
    "opo": _opo,
    "reinforce++": _reinforce,
    "reinforce++-baseline": _reinforce_baseline,
}
