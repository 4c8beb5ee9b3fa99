"""Changes to the libraries of a CPU server process, made before SGLang starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


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


def share_attention() -> None:
    """See `attention`."""
    from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend

    from sglang_cpu import attention

    TorchNativeAttnBackend.init_forward_metadata = attention.init_forward_metadata
    TorchNativeAttnBackend._run_sdpa_forward_extend = attention.extend
    TorchNativeAttnBackend._run_sdpa_forward_decode = attention.decode


def apply() -> None:
    """Make all changes; safe to call again."""
    pass_through_torch_compile()
    skip_typed_dict_validation()
    share_attention()
