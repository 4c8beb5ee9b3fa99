"""Rollouts of one prompt in one row: which rollouts share a row, and where each of their tokens stands.

A batch holds rollouts one by one, `[rollouts, seq]`, each a prompt of P tokens and an answer. The model computes
units instead, each a prompt once and several answers behind it,

    [p_0 .. p_{P-2}] [p_{P-1} a_0 .. a_{n-2}] [p_{P-1} b_0 .. b_{m-2}]

Every answer begins with the last prompt token, which predicts its first token, and ends before its own last token,
which predicts nothing. Whatever belongs to a token (ids, positions, token types) is gathered by `Row.rollouts` and
`Row.columns`; what the model predicts is put back by `Row.targets`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Row(NamedTuple):
    """One row of units: `tokens` stand in it, `predictions` of them predict a token of an answer."""

    units: tuple[
        tuple[int, tuple[int, ...]], ...
    ]  # of each: tokens before the answers; tokens of each answer
    rollouts: Tensor  # [tokens] int64: the rollout of the batch that the token is taken from
    columns: Tensor  # [tokens] int64: its place there
    predicting: Tensor  # [predictions] int64: places in this row
    targets: Tensor  # [predictions] int64: places in the same rollouts packed one behind the other


def share(
    prompts: Sequence[int], num_prompt: Sequence[int], lengths: Sequence[int], limit: int
) -> list[list[int]]:
    """Units as lists of rollouts, longest answer first, none with more than `limit` tokens if it holds several.

    prompts: of each rollout, the number of its prompt; rollouts of one prompt share.
    num_prompt, lengths: of each rollout, tokens of its prompt and of the whole sequence.
    A group that does not fit is cut into parts that repeat the prompt.
    """
    groups: dict[int, list[int]] = {}
    for rollout, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(rollout)
    units: list[list[int]] = []
    for members in groups.values():
        members.sort(key=lambda rollout: -lengths[rollout])
        unit: list[int] = []
        for rollout in members:
            if unit and num_tokens([*unit, rollout], num_prompt, lengths) > limit:
                units.append(unit)
                unit = []
            unit.append(rollout)
        units.append(unit)
    return units


def split_largest(
    units: list[list[int]], num_prompt: Sequence[int], lengths: Sequence[int]
) -> list[list[int]]:
    """One unit more: the one with the most tokens of those that hold several rollouts, in two halves.

    Raises ValueError where every unit holds one rollout.
    """
    several = [i for i, unit in enumerate(units) if len(unit) > 1]
    if not several:
        raise ValueError(f"{len(units)} rollouts cannot be dealt to more than {len(units)} micro-batches")
    largest = max(several, key=lambda i: num_tokens(units[i], num_prompt, lengths))
    unit = units[largest]
    return [*units[:largest], unit[::2], unit[1::2], *units[largest + 1 :]]


def num_tokens(unit: Sequence[int], num_prompt: Sequence[int], lengths: Sequence[int]) -> int:
    """Tokens that the model computes for a unit: the prompt without its last token, and each answer."""
    return num_prompt[unit[0]] - 1 + sum(lengths[rollout] - num_prompt[rollout] for rollout in unit)


def lay_out(units: Sequence[Sequence[int]], num_prompt: Sequence[int], lengths: Sequence[int]) -> Row:
    """The row of these units. `targets` counts the rollouts packed in the order in which the units name them."""
    bounds, rollouts, columns, predicting, targets = [], [], [], [], []
    place = packed = 0
    for unit in units:
        first = num_prompt[unit[0]] - 1
        bounds.append((first, tuple(lengths[rollout] - num_prompt[rollout] for rollout in unit)))
        rollouts.append(torch.full((first,), unit[0]))
        columns.append(torch.arange(first))
        place += first
        for rollout in unit:
            answer = torch.arange(first, lengths[rollout] - 1)
            rollouts.append(torch.full_like(answer, rollout))
            columns.append(answer)
            predicting.append(torch.arange(place, place + len(answer)))
            targets.append(packed + answer)
            place += len(answer)
            packed += lengths[rollout]
    return Row(tuple(bounds), *(torch.cat(parts) for parts in (rollouts, columns, predicting, targets)))
