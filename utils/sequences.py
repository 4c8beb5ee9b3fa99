"""What the loss needs of the batch's layout: masking, and sums and means over its sequences.

Padded is `[batch, seq]`; packed is `[tokens]` with `cu_seqlens` `[num_sequences + 1]`, the first position of
each sequence and, last, the number of tokens. Both layouts give the same numbers. On CUDA the packed sums
are reproducible to the last bit only under `torch.use_deterministic_algorithms(True)`.
"""

from typing import Literal

import torch
from torch import Tensor

# exp(20) = 4.9e8 is far outside every clip range, and finite: a zero advantage times the ratio stays zero.
MAX_LOG_RATIO = 20.0


def sequence_sum(values: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
    """Sum over each sequence, repeated on each of its positions; same layout as `values`."""
    sums = sums_of_sequences(values, cu_seqlens)
    if cu_seqlens is None:
        return sums.unsqueeze(-1).expand_as(values)
    return sums.repeat_interleave(cu_seqlens.diff(), output_size=values.shape[0])


def sequence_mean(values: Tensor, loss_mask: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
    """Mean over each sequence's loss tokens, repeated on each of its positions (0 without loss tokens)."""
    mask = loss_mask.bool()
    counts = sequence_sum(mask.to(values.dtype), cu_seqlens).clamp(min=1)
    return sequence_sum(masked(values, mask), cu_seqlens) / counts


def sequence_extreme(
    values: Tensor, loss_mask: Tensor, kind: Literal["amax", "amin"], cu_seqlens: Tensor | None = None
) -> Tensor:
    """Largest or smallest value over each sequence's loss tokens, repeated on each of its positions (0 without any)."""
    mask = loss_mask.bool()
    fill = -torch.inf if kind == "amax" else torch.inf
    inner = torch.where(mask, values, fill)
    if cu_seqlens is None:
        found = getattr(inner, kind)(-1, keepdim=True).expand_as(values)
    else:
        lengths = cu_seqlens.diff()
        owner = torch.arange(len(lengths), device=values.device)
        owner = owner.repeat_interleave(lengths, output_size=values.shape[0])
        extremes = values.new_full((len(lengths),), fill).scatter_reduce(0, owner, inner, kind)
        found = extremes[owner]
    return torch.where(found.isinf(), 0.0, found)


def sums_of_sequences(values: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """`[num_sequences]` sums of the padded or packed `values`."""
    if cu_seqlens is None:
        if values.ndim != 2:
            raise ValueError(f"values of shape {tuple(values.shape)} are packed: pass cu_seqlens")
        return values.sum(-1)
    if values.ndim != 1:
        raise ValueError(f"cu_seqlens is for packed [tokens] tensors, got shape {tuple(values.shape)}")
    lengths = cu_seqlens.diff()
    owner = torch.arange(len(lengths), device=values.device)
    owner = owner.repeat_interleave(lengths, output_size=values.shape[0])
    return values.new_zeros(len(lengths)).index_add(0, owner, values)


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """At least float32, and exactly zero (value and gradient) outside the mask."""
    wide = values if values.dtype == torch.float64 else values.float()
    return torch.where(mask, wide, 0.0)
