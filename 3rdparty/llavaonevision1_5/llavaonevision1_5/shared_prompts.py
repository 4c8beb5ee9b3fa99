"""Attention over rows in which a prompt stands once and several answers to it follow.

A row is a sequence of units, a unit a prompt and its answers:

    [p_0 .. p_{P-2}] [p_{P-1} a_0 a_1 ..] [p_{P-1} b_0 ..] ...        P tokens of prompt, answers a, b, ...

Each answer begins with a copy of the last prompt token, so that every answer predicts its own first token. A prompt
token sees the prompt up to itself; a token of an answer sees the prompt and its own answer up to itself, nothing else.
With positions that continue the prompt in every answer, outputs and gradients are those of the rollouts computed one by
one; what G rollouts share is computed once.

Under sdpa answers of similar length attend as one batch, whose keys are the prompt's, expanded, and their own. Under
flash-attention a row takes two calls, both causal: prompts on themselves; answers on keys that begin with the prompt
(with more keys than queries its causal mask is aligned at the end).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

MAX_PADDING = 0.25  # of a batch of answers of unequal length; beyond it they are computed in several batches


# Tokens of the prompt (without its last one, which begins each answer), and tokens of each answer.
Unit = tuple[int, tuple[int, ...]]


def attend_sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    units: tuple[Unit, ...],
    *,
    scaling: float | None,
) -> torch.Tensor:
    """query `[1, heads, tokens, head_dim]`, key and value `[1, kv_heads, tokens, head_dim]`, laid out as `units`.

    Returns `[1, tokens, heads, head_dim]`. Raises ValueError if the units do not cover the row.
    """
    _check(query, units)
    outputs, start = [], 0
    for num_prompt, answers in units:
        prompt = [x.narrow(2, start, num_prompt) for x in (query, key, value)]
        start += num_prompt
        if num_prompt:
            outputs.append(_sdpa(*prompt, scaling, is_causal=num_prompt > 1).transpose(1, 2)[0])
        for lengths in batches_of_similar_length(answers):
            own = [x.narrow(2, start, sum(lengths)) for x in (query, key, value)]
            outputs.append(_answers(own, prompt[1:], lengths, scaling))
            start += sum(lengths)
    return torch.cat(outputs).unsqueeze(0)


def batches_of_similar_length(lengths: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Neighbours that cost at most `MAX_PADDING` of padding; few batches where `lengths` are sorted."""
    batch: list[int] = []
    for length in lengths:
        longer = [*batch, length]
        if batch and max(longer) * len(longer) > (1 + MAX_PADDING) * sum(longer):
            yield tuple(batch)
            longer = [length]
        batch = longer
    if batch:
        yield tuple(batch)


def _answers(
    own: list[torch.Tensor], prompt: list[torch.Tensor], lengths: tuple[int, ...], scaling: float | None
):
    """Output `[sum(lengths), heads, head_dim]` of one batch of answers."""
    count, longest = len(lengths), max(lengths)
    num_prompt = prompt[0].shape[2]
    rows = None
    if min(lengths) < longest:
        offsets = torch.arange(longest, device=own[0].device)
        ends = torch.tensor(lengths, device=own[0].device).cumsum(0)
        starts = ends - torch.tensor(lengths, device=own[0].device)
        inside = offsets < (ends - starts)[:, None]
        # behind its end an answer is padded with its last token, which no earlier one sees
        own = [
            x.index_select(2, torch.minimum(starts[:, None] + offsets, ends[:, None] - 1).view(-1))
            for x in own
        ]
        rows = inside.view(-1)
    q, k, v = (x.reshape(x.shape[1], count, longest, x.shape[3]).transpose(0, 1) for x in own)
    k, v = (
        torch.cat([shared.expand(count, -1, -1, -1), x], dim=2)
        for shared, x in zip(prompt, (k, v), strict=True)
    )
    sees = torch.ones(longest, num_prompt + longest, dtype=torch.bool, device=q.device).tril(num_prompt)
    output = _sdpa(q, k, v, scaling, mask=sees).transpose(1, 2).flatten(0, 1)
    return output if rows is None else output[rows]


def _sdpa(q, k, v, scaling, *, mask=None, is_causal=False) -> torch.Tensor:
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=is_causal, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
    )


class Bounds(NamedTuple):
    """What two calls of flash-attention's varlen function need: places in the row, and where sequences begin."""

    prompt_rows: torch.Tensor  # [prompt tokens]
    prompt_bounds: torch.Tensor  # [units + 1] int32
    longest_prompt: int
    query_rows: torch.Tensor  # [answer tokens]
    query_bounds: torch.Tensor  # [answers + 1] int32
    longest_query: int
    key_rows: torch.Tensor  # of every answer the prompt's places, then its own
    key_bounds: torch.Tensor
    longest_key: int


def bounds_of(units: tuple[Unit, ...], device: torch.device) -> Bounds:
    """The same row for flash-attention."""
    prompts, queries, keys, start = [], [], [], 0
    for num_prompt, lengths in units:
        prompt = torch.arange(start, start + num_prompt)
        prompts.append(prompt)
        start += num_prompt
        for length in lengths:
            own = torch.arange(start, start + length)
            queries.append(own)
            keys.append(torch.cat([prompt, own]))
            start += length
    found = []
    for parts in (prompts, queries, keys):
        lengths = [len(part) for part in parts]
        starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        found += [torch.cat(parts).to(device), starts.to(device), max(lengths)]
    return Bounds(*found)


def attend_flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    units: tuple[Unit, ...],
    *,
    scaling: float | None,
    varlen: Any = None,
) -> torch.Tensor:
    """As `attend_sdpa`, by two calls of `flash_attn.flash_attn_varlen_func` (or of `varlen`, with its arguments)."""
    _check(query, units)
    if varlen is None:
        from flash_attn import flash_attn_varlen_func as varlen
    b = bounds_of(units, query.device)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [tokens, heads, head_dim]
    output = q.new_zeros(q.shape)
    if b.longest_prompt:
        rows, bounds, longest = b.prompt_rows, b.prompt_bounds, b.longest_prompt
        seen = varlen(
            q[rows], k[rows], v[rows], bounds, bounds, longest, longest, softmax_scale=scaling, causal=True
        )
        output = output.index_copy(0, rows, seen)
    seen = varlen(
        q[b.query_rows], k[b.key_rows], v[b.key_rows], b.query_bounds, b.key_bounds, b.longest_query, b.longest_key,
        softmax_scale=scaling, causal=True,
    )  # fmt: skip
    return output.index_copy(0, b.query_rows, seen).unsqueeze(0)


def _check(query: torch.Tensor, units: tuple[Unit, ...]) -> None:
    covered = sum(num_prompt + sum(lengths) for num_prompt, lengths in units)
    if query.shape[0] != 1 or query.shape[2] != covered:
        raise ValueError(
            f"{query.shape[0]} rows of {query.shape[2]} tokens, but the units cover one of {covered}"
        )
