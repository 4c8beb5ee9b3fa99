"""Changes to the libraries of a CPU server process, made before SGLang starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

DECODE_PLACES = 1 << 14  # of the cache, gathered for one attention call


def _passthrough(model: Callable[..., Any] | None = None, **_: object) -> Callable[..., Any]:
    """`torch.compile` that returns the function itself, used bare or with arguments."""
    if model is not None:
        return model
    return lambda function: function


def pass_through_torch_compile() -> None:
    """Run every function as written: compiling needs a C++ compiler and costs more than it saves here."""
    torch.compile = _passthrough


def skip_typed_dict_validation() -> None:
    """Turn off the check of keyword types that transformers makes in every processor call.

    It was 27 % of the HTTP process's time with small images; a wrong type still fails where it is used.
    """
    import huggingface_hub.dataclasses

    huggingface_hub.dataclasses.validate_typed_dict = lambda schema, data: None


def attend_to_new_tokens_alone() -> None:
    """Prefill computes attention for the tokens that are new.

    SGLang's own form on a CPU fills the queries up to the whole sequence: with a prompt in the prefix cache each
    rollout of a group paid for all of it again, at 504 x 504 pixels two fifths of the scheduler's time.
    """
    from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend

    TorchNativeAttnBackend._run_sdpa_forward_extend = _extend


def decode_in_batches() -> None:
    """One attention call for many requests, where SGLang's own form on a CPU makes one per request and layer."""
    from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend

    TorchNativeAttnBackend._run_sdpa_forward_decode = _decode


def _extend(  # noqa: PLR0917 - SGLang's signature
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
    """`query` and `output` are `[new tokens, heads, size]`, the caches `[places, heads, size]`; one row per request."""
    del self, extend_prefix_lens
    start = 0
    lengths = (req_pool_indices.tolist(), seq_lens.tolist(), extend_seq_lens.tolist())
    for request, num_keys, num_new in zip(*lengths, strict=True):
        places = req_to_token[request, :num_keys]
        end = start + num_new
        queries, keys, values = (
            part.movedim(0, 1).unsqueeze(0).to(query.dtype)
            for part in (query[start:end], k_cache[places], v_cache[places])
        )
        mask = None
        if causal and 1 < num_new < num_keys:  # new token i sees all keys up to its own
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
        output[start:end] = attended.squeeze(0).movedim(0, 1)
        start = end
    return output


def _decode(  # noqa: PLR0917 - SGLang's signature
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
    """`query` and `output` are `[requests, heads, size]`: the newest token of each, which sees all of its own."""
    del self, causal
    by_length = seq_lens.argsort()  # so that little is padded
    longest, start = int(seq_lens.max()), 0
    while start < len(by_length):
        rows = by_length[start : start + max(1, DECODE_PLACES // longest)]
        start += len(rows)
        lengths = seq_lens[rows]
        num_keys = int(lengths.max())
        places = req_to_token[req_pool_indices[rows], :num_keys]
        is_own = torch.arange(num_keys) < lengths[:, None]
        # behind a request's end the table names other requests' places, or none: their values must be finite
        places = torch.where(is_own, places, 0)
        keys, values = (cache[places].transpose(1, 2).to(query.dtype) for cache in (k_cache, v_cache))
        attended = torch.nn.functional.scaled_dot_product_attention(
            query[rows].unsqueeze(2),
            keys,
            values,
            attn_mask=is_own[:, None, None, :],
            scale=scaling,
            enable_gqa=enable_gqa,
        )
        output[rows] = attended.squeeze(2)
    return output


def apply() -> None:
    """Make all changes; safe to call again."""
    pass_through_torch_compile()
    skip_typed_dict_validation()
    attend_to_new_tokens_alone()
    decode_in_batches()
