"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): trained by AReaL and peft, merged for everybody else.

AReaL 1.0.4 hands adapters to SGLang in its single-controller mode alone. Here the servers, the checkpoints and the next
stage get full weights with the adapters added in,

    W + (alpha / r) B A        W [out, in], A [r, in], B [out, r]

so nothing outside of the trainer needs to know of them. The exchange costs what it costs for full training; gradients
and optimizer shrink to the adapters.
"""

from __future__ import annotations

import torch

PEFT_PREFIX = "base_model.model."


def merged_state(state: dict[str, torch.Tensor], scaling: float) -> dict[str, torch.Tensor]:
    """The state dict of the model without adapters, from that of peft's model around it.

    `scaling` is alpha / r. Products are computed in float32 and come back in the weight's dtype.
    """
    merged = {}
    for name, tensor in state.items():
        if ".lora_A." in name or ".lora_B." in name:
            continue
        plain = name.removeprefix(PEFT_PREFIX)
        if ".base_layer." not in name:
            merged[plain] = tensor
            continue
        down = state.get(name.replace(".base_layer.weight", ".lora_A.default.weight"))
        if name.endswith(".base_layer.weight") and down is not None:
            up = state[name.replace(".base_layer.weight", ".lora_B.default.weight")]
            merged[plain.replace(".base_layer.", ".")] = _sum(tensor, scaling * (up.float() @ down.float()))
        else:
            merged[plain.replace(".base_layer.", ".")] = tensor
    return merged


def _sum(weight: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    return (weight.float() + change).to(weight.dtype)
