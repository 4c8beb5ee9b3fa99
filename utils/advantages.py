"""Advantages without a critic: the baseline comes from the other rollouts of the same prompt.

All functions work on one value per rollout, `[num_rollouts]`; the trainer spreads an advantage over the
rollout's tokens afterwards (`advantage[:, None] * loss_mask`). Computation is in float64 and is returned
in float32 (float64 rewards stay float64).

A group without signal, all rewards equal up to rounding, teaches nothing: every estimator that compares rollouts with
their group gives it exactly zero, and `batch_whiten` neither counts it in its statistics nor moves it away from zero.
The two reinforce++ forms compare with the batch, and count every rollout.
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
    parts: Tensor | None = None,
    passk_k: int = 4,
) -> Tensor:
    """Advantage of each rollout `[num_rollouts]` against its group, by one of `ESTIMATORS`.

    `groups` is an int (consecutive groups of that size) or an integer tensor `[num_rollouts]` of any ids.
    `lengths` `[num_rollouts]` are response lengths in tokens (opo and both reinforce++ forms). `std="sample"` divides
    by G - 1. `moments` are the batch statistics over all data-parallel ranks, for the two reinforce++ forms
    (see `batch_moments`, weighted by `lengths`); without them the statistics are those of the rollouts given.
    `parts` `[num_rollouts, num_parts]` are the parts of the rewards (gdpo only; `rewards` is not read then). For passk
    `rewards` are 1 for a right answer and 0 for a wrong one.

    Example: rewards 1, 1, 1, 0.5, 0 have mean 0.7 and population std 0.4: grpo gives 0.75, 0.75, 0.75,
    -0.5, -1.75.

    Raises ValueError for a non-finite reward, sizes that do not fit, an unknown estimator, lengths or parts that are
    missing, rewards of passk that are neither 0 nor 1.
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

    rollouts = Rollouts(
        r, centered, size, index, signal, lengths, std == "sample", eps, moments, parts, passk_k
    )
    advantages = ESTIMATORS[estimator](rollouts)
    if estimator == "gdpo":
        signal = parts_signal(parts, groups)
    if estimator not in OVER_THE_BATCH:
        advantages = torch.where(signal, advantages, 0.0)
    return advantages.to(_output_dtype(rewards))


def parts_signal(parts: Tensor, groups: Tensor | int) -> Tensor:
    """True on the rollouts `[num_rollouts]` in whose group any of the `parts` `[num_rollouts, num_parts]` differs."""
    return torch.stack([signal_mask(part, groups) for part in parts.T]).any(0)


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
    parts: Tensor | None  # `[num_rollouts, num_parts]`
    passk_k: int


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
    """(r - mean) / std over all tokens of the batch. Hu et al. 2025, arXiv:2501.03262, section 3."""
    if rollouts.lengths is None:
        raise ValueError("the reinforce++ estimators need lengths, the response lengths in tokens")
    everybody = torch.ones_like(rollouts.signal)
    return batch_whiten(
        rollouts.rewards, rollouts.lengths, everybody, moments=rollouts.moments, eps=rollouts.eps
    )


def _reinforce_baseline(rollouts: Rollouts) -> Tensor:
    """The same of r - mean of the group: the paper's form for several rollouts a prompt."""
    return _reinforce(rollouts._replace(rewards=rollouts.centered))


def _gdpo(rollouts: Rollouts) -> Tensor:
    """sum_k (r_k - mean_k) / std_k over the parts of the reward. Liu et al. 2026, arXiv:2601.05242, section 3."""
    if rollouts.parts is None:
        raise ValueError("estimator 'gdpo' needs parts, the parts of each reward")
    total = torch.zeros_like(rollouts.rewards)
    for part in rollouts.parts.double().T:
        centered = part - _group_sum(part, rollouts.index) / rollouts.size
        differs = signal_mask(part, rollouts.index)
        total += torch.where(differs, _grpo(rollouts._replace(centered=centered)), 0.0)
    return total


def _passk(rollouts: Rollouts) -> Tensor:
    """Expected advantage of the answer's part in k answers drawn from the group, one of which must be right.

        R = 1 - C(n, k) / C(G, k),  sigma = sqrt(R (1 - R))         n wrong answers among G
        right: (1 - R) / sigma      wrong: (1 - R - C(n - 1, k - 1) / C(G - 1, k - 1)) / sigma

    Chen et al. 2025, "Pass@k Training", arXiv:2508.10751, section 2.3 (analytical derivation). 0 where all draws of k
    are alike: no right answer, or fewer than k wrong ones.
    """
    is_right = rollouts.rewards == 1
    if not (is_right | (rollouts.rewards == 0)).all():
        raise ValueError("estimator 'passk' wants rewards of 0 (wrong) and 1 (right)")
    k, wrong = rollouts.passk_k, _group_sum((~is_right).double(), rollouts.index)
    if (rollouts.size < k).any():
        raise ValueError(f"passk_k={k} is more than a group's {int(rollouts.size.min())} rollouts")
    all_wrong = _draws(wrong, rollouts.size, k)
    sigma = (all_wrong * (1 - all_wrong)).sqrt()
    others_wrong = _draws(wrong - 1, rollouts.size - 1, k - 1)
    advantages = torch.where(is_right, all_wrong, all_wrong - others_wrong)
    return torch.where(sigma > 0, advantages / sigma.clamp(min=1e-30), 0.0)


def _draws(n: Tensor, of: Tensor, k: int) -> Tensor:
    """C(n, k) / C(of, k), 0 where n < k: the share of draws of k that fall into n of them."""
    share = torch.ones_like(n)
    for taken in range(k):
        share = share * (n - taken).clamp(min=0) / (of - taken).clamp(min=1)
    return share


ESTIMATORS: dict[str, Callable[[Rollouts], Tensor]] = {
    "grpo": _grpo,
    "dr_grpo": _dr_grpo,
    "rloo": _rloo,
    "opo": _opo,
    "reinforce++": _reinforce,
    "reinforce++-baseline": _reinforce_baseline,
    "gdpo": _gdpo,
    "passk": _passk,
}
# They normalise over all rollouts of the batch, with or without signal in their groups.
OVER_THE_BATCH = ("reinforce++", "reinforce++-baseline")
