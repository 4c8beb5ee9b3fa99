"""Attention of a CPU server: for new tokens alone, many requests in one call, and a prompt that they share once.

In the place of the loops of SGLang's `TorchNativeAttnBackend`, whose prefill fills the queries up to the whole sequence
and whose decoding makes a call per request and layer. With a prompt in the prefix cache each rollout of a group paid
for all of it again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch

DECODE_PLACES = 1 << 14  # of the cache, gathered for one attention call
PROBE = 32  # places between two looks at what requests share; the least that is worth to be shared


@dataclass(frozen=True)
class Sharing:
    """Requests of a batch, `rows`, that have their first `num_shared` places of the cache in common."""

    rows: torch.Tensor
    num_shared: int


def sharings(places: torch.Tensor, lengths: torch.Tensor) -> list[Sharing]:
    """Every row once: those that share a prefix, and last those that share none (`num_shared` 0), if there are any.

    `places` `[requests, longest]` are the cache's places of each request's tokens, of which the first `lengths` count.
    A place belongs to one token of one text: rows that agree in one agree in all before it, so a look at every
    `PROBE`-th tells which rows belong together.
    """
    probes = torch.arange(PROBE - 1, max(places.shape[1], PROBE - 1), PROBE)
    own = -1 - torch.arange(len(places))[:, None]  # no place: behind its end a row agrees with none
    looked = torch.where(probes < lengths[:, None], places[:, probes].long(), own)
    is_shared = (looked[:, None] == looked[None]).sum(1) > 1
    deepest = (is_shared * torch.arange(1, len(probes) + 1)).amax(1) if len(probes) else lengths * 0
    by_place = defaultdict(list)
    alone = []
    for row, depth in enumerate(deepest.tolist()):
        if depth:
            by_place[int(looked[row, depth - 1])].append(row)
        else:
            alone.append(row)
    found = []
    for members in by_place.values():
        if len(members) == 1:  # shares less with rows that share more with each other
            alone += members
            continue
        rows = torch.tensor(members)
        table = places[rows, : int(lengths[rows].min()) - 1]
        is_same = (table == table[0]).all(0)
        found.append(Sharing(rows, int(is_same.long().cumprod(0).sum())))
    return [*found, Sharing(torch.tensor(sorted(alone)), 0)] if alone else found


def attend_newest(  # noqa: PLR0917
    query: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    places: torch.Tensor,
    lengths: torch.Tensor,
    shared: list[Sharing],
    scaling: float | None,
) -> torch.Tensor:
    """Attention of the newest token of each request, which sees all of its own; `query` and result `[requests, heads,
    size]`, the caches `[places, key heads, size]`.
    """
    output = torch.empty_like(query)
    for part in shared:
        # requests of similar length beside each other, so that little is padded
        rows = part.rows[lengths[part.rows].argsort()]
        start = 0
        while start < len(rows):
            longest = int(lengths[rows[-1]]) - part.num_shared
            some = rows[start : start + max(1, DECODE_PLACES // longest)]
            start += len(some)
            num_keys = int(lengths[some[-1]])
            is_own = torch.arange(num_keys) < lengths[some, None]
            # behind a request's end the table names other requests' places, or none: their values must be finite
            own = torch.where(is_own, places[some, :num_keys], 0)
            attend = _with_common_keys if part.num_shared else _one_by_one
            output[some] = attend(query[some], k_cache, v_cache, own, is_own, part.num_shared, scaling)
    return output


def _one_by_one(  # noqa: PLR0917
    query: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    places: torch.Tensor,
    is_own: torch.Tensor,
    num_shared: int,
    scaling: float | None,
) -> torch.Tensor:
    del num_shared
    keys, values = (cache[places].transpose(1, 2).to(query.dtype) for cache in (k_cache, v_cache))
    attended = torch.nn.functional.scaled_dot_product_attention(
        query.unsqueeze(2), keys, values, attn_mask=is_own[:, None, None], scale=scaling, enable_gqa=True
    )
    return attended.squeeze(2)


def _with_common_keys(  # noqa: PLR0917
    query: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    places: torch.Tensor,
    is_own: torch.Tensor,
    num_shared: int,
    scaling: float | None,
) -> torch.Tensor:
    """One softmax over the scores of common and own keys; common ones are read once. In float32 throughout."""
    requests, heads, size = query.shape
    grouped = query.float().reshape(requests, k_cache.shape[1], -1, size) * (scaling or size**-0.5)
    common, own = places[0, :num_shared], places[:, num_shared:]
    common_keys, common_values, own_keys, own_values = (
        cache[chosen].float() for chosen in (common, own) for cache in (k_cache, v_cache)
    )
    scores = torch.cat(
        [
            torch.einsum("rkgd,pkd->rkgp", grouped, common_keys),
            torch.einsum("rkgd,rskd->rkgs", grouped, own_keys).masked_fill(
                ~is_own[:, None, None, num_shared:], -torch.inf
            ),
        ],
        dim=-1,
    )
    weights = scores.softmax(-1)
    attended = torch.einsum("rkgp,pkd->rkgd", weights[..., :num_shared], common_values)
    attended += torch.einsum("rkgs,rskd->rkgd", weights[..., num_shared:], own_values)
    return attended.reshape(requests, heads, size).to(query.dtype)


def init_forward_metadata(self: Any, forward_batch: Any) -> None:
    """What requests share is looked up once for all layers of a batch."""
    del forward_batch
    self.forward_metadata = None


def _shared(self: Any, places: torch.Tensor, lengths: torch.Tensor) -> list[Sharing]:
    if self.forward_metadata is None:
        self.forward_metadata = sharings(places, lengths)
    return self.forward_metadata


def extend(  # noqa: PLR0917 - SGLang's signature
    self: Any,
    query: torch.Tensor,
    output: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    req_to_token: torch.Tensor,
    req_pool_indices: torch.Tensor,
    seq_lens: torch.Tensor,
    extend_prefix_lens: torch.Tensor,
    extend_seq_lens: torch.Tensor,
    scaling: float | None = None,
    enable_gqa: bool = False,
    causal: bool = False,
) -> torch.Tensor:
    """`query` and `output` are `[new tokens, heads, size]`, the caches `[places, heads, size]`; requests in order."""
    del extend_prefix_lens
    ends = extend_seq_lens.cumsum(0)
    is_single = extend_seq_lens == 1  # as for the rollouts of a group behind the one that computed the prompt
    if bool(is_single.any()):
        last, lengths = ends[is_single] - 1, seq_lens[is_single]
        places = req_to_token[req_pool_indices[is_single], : int(lengths.max())]
        shared = _shared(self, places, lengths)
        output[last] = attend_newest(query[last], k_cache, v_cache, places, lengths, shared, scaling)
    several = (~is_single).nonzero().flatten()
    parts = (req_pool_indices[several], seq_lens[several], extend_seq_lens[several], ends[several])
    for request, num_keys, num_new, end in zip(*(part.tolist() for part in parts), strict=True):
        places = req_to_token[request, :num_keys]
        queries, keys, values = (
            part.movedim(0, 1).unsqueeze(0).to(query.dtype)
            for part in (query[end - num_new : end], k_cache[places], v_cache[places])
        )
        mask = None
        if causal and num_new < num_keys:  # new token i sees all keys up to its own
            mask = torch.ones(num_new, num_keys, dtype=torch.bool).tril(num_keys - num_new)
        attended = torch.nn.functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=mask,
            is_causal=causal and num_new == num_keys,
            scale=scaling,
            enable_gqa=enable_gqa,
        )
        output[end - num_new : end] = attended.squeeze(0).movedim(0, 1)
    return output


def decode(  # noqa: PLR0917 - SGLang's signature
    self: Any,
    query: torch.Tensor,
    output: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    req_to_token: torch.Tensor,
    req_pool_indices: torch.Tensor,
    seq_lens: torch.Tensor,
    scaling: float | None = None,
    enable_gqa: bool = False,
    causal: bool = False,
) -> torch.Tensor:
    """`query` and `output` are `[requests, heads, size]`: the newest token of each."""
    del enable_gqa, causal
    places = req_to_token[req_pool_indices, : int(seq_lens.max())]
    shared = _shared(self, places, seq_lens)
    output.copy_(attend_newest(query, k_cache, v_cache, places, seq_lens, shared, scaling))
    return output
