"""Attention within segments of one packed row, for machines without flash-attention.

AReaL packs all sequences of a micro-batch into one row and says where they begin in `cu_seq_lens_q`. The
vision transformer packs the frames of all images in the same way. flash-attention takes such rows as they
are; PyTorch's own attention would let the segments see each other. `packed_sdpa` computes each segment by
itself: exact, and cheaper than one large masked product by the number of segments.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from llavaonevision1_5.shared_prompts import attend_flash, attend_sdpa

NAME = "packed_sdpa"
FLASH_NAME = "flash_attention_2"  # transformers looks its kernels up by this name


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scaling: float | None, is_causal: bool
) -> torch.Tensor:
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        scale=scaling,
        is_causal=is_causal and query.shape[2] > 1,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def segmented_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: list[int],
    *,
    scaling: float | None,
    is_causal: bool,
) -> torch.Tensor:
    """Attention inside each of the consecutive segments of one row.

    query `[1, heads, tokens, head_dim]`; key and value `[1, kv_heads, tokens, head_dim]`; `lengths` add up to
    `tokens`. Returns `[1, tokens, heads, head_dim]`. Raises ValueError if the lengths do not fit.
    """
    batch, heads, tokens, head_dim = query.shape
    if batch != 1 or sum(lengths) != tokens:
        raise ValueError(
            f"packed attention needs one row and lengths that cover it, got {batch} rows of {tokens} tokens "
            f"and {len(lengths)} lengths that add up to {sum(lengths)}"
        )
    outputs = []
    # Neighbours of the same length (the frames of equal images) are computed as one batch.
    runs = [(length, len(list(group))) for length, group in itertools.groupby(lengths)]
    splits = [length * count for length, count in runs]
    parts = zip(query.split(splits, 2), key.split(splits, 2), value.split(splits, 2), strict=True)
    for (length, count), part in zip(runs, parts, strict=True):
        if length == 0:
            continue
        batched = (x.reshape(x.shape[1], count, length, head_dim).transpose(0, 1) for x in part)
        output = _attend(*batched, scaling=scaling, is_causal=is_causal)
        outputs.append(output.transpose(1, 2).reshape(count * length, heads, head_dim))
    return torch.cat(outputs).unsqueeze(0)


def packed_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    segment_lengths: list[int] | None = None,
    shared_prompts: tuple | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: `shared_prompts` or segments if they are given, else its own `sdpa`."""
    if shared_prompts is not None:
        return attend_sdpa(query, key, value, shared_prompts, scaling=scaling), None
    if segment_lengths is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    is_causal = bool(getattr(module, "is_causal", True))
    output = segmented_attention(query, key, value, segment_lengths, scaling=scaling, is_causal=is_causal)
    return output, None


def flash(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    shared_prompts: tuple | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: `shared_prompts` if they are given, else its own flash-attention."""
    if shared_prompts is not None:
        return attend_flash(query, key, value, shared_prompts, scaling=scaling), None
    return flash_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


def segment_lengths_of(cu_seqlens: torch.Tensor) -> list[int]:
    """Lengths of the segments whose bounds are `cu_seqlens` (`[segments + 1]`, the first one 0)."""
    return (cu_seqlens[1:] - cu_seqlens[:-1]).tolist()


def bounds_from_position_ids(position_ids: torch.Tensor) -> torch.Tensor:
    """Segment bounds (`[segments + 1]`, int32) of one row of position ids, which restart with each segment."""
    flat = position_ids.reshape(-1)
    starts = (torch.diff(flat, prepend=flat[:1] - 2) != 1).nonzero().flatten()
    end = torch.tensor([flat.numel()], device=flat.device)
    return torch.cat([starts, end]).to(torch.int32)


def register() -> None:
    """Make `packed_sdpa` an attention implementation of transformers, with masks as for `sdpa`, and let its
    `flash_attention_2` take rows with shared prompts.
    """
    AttentionInterface.register(NAME, packed_sdpa)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    AttentionInterface.register(FLASH_NAME, flash)


register()
