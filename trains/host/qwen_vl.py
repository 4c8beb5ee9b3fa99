"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL as transformers 5.3.0 has them, made right for AReaL's packed micro-batches.

Four things differ from what this recipe needs, and `adapt` changes them on one model, before it is sharded:

- Positions of images. Qwen2.5-VL's temporal position is start * tokens_per_second instead of start (later versions
  of transformers compute start). Whether the installed version does it is measured, not read from its number.
- Positions of text. AReaL asks the model for them; without an image in the batch the model returns None, or fails.
- Attention. Under sdpa all sequences of a packed row see each other; here each is computed by itself. The vision
  tower needs nothing: it splits its rows itself.
- Micro-batches without images leave the vision tower out, and FSDP ranks that have images would wait for it forever.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from llavaonevision1_5 import QWEN_VL_TYPES
from llavaonevision1_5.attention import packed_sdpa, segment_lengths_of

ATTENTION = "packed_sdpa_by_bounds"


def adapt(model: nn.Module) -> None:
    """Change a Qwen-VL model (`...ForConditionalGeneration`) in place; any other model is left as it is."""
    if model.config.model_type not in QWEN_VL_TYPES:
        return
    inner = model.model
    if not image_starts_are_right(inner):
        inner.get_vision_position_ids = partial(_image_positions, inner.get_vision_position_ids)
    inner.compute_3d_position_ids = partial(_positions, inner.compute_3d_position_ids)
    # Where AReaL looks once adapters wrap the model: peft's `.model` is the outer model.
    model.compute_3d_position_ids = inner.compute_3d_position_ids
    inner.register_forward_pre_hook(_embed_text_through_tower, with_kwargs=True)
    text_config = inner.language_model.config
    if text_config._attn_implementation == "sdpa":
        text_config._attn_implementation = ATTENTION


def image_starts_are_right(inner: nn.Module) -> bool:
    """Does the image behind three tokens of text begin at position 3 in all dimensions? `inner` is the `...Model`."""
    merge = inner.config.vision_config.spatial_merge_size
    positions, _ = inner.get_rope_index(
        input_ids=torch.zeros(1, 4, dtype=torch.int64),
        mm_token_type_ids=torch.tensor([[0, 0, 0, 1]]),
        image_grid_thw=torch.tensor([[1, merge, merge]]),
    )
    return positions[:, 0, 3].tolist() == [3, 3, 3]


def segmented_sdpa(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: inside of the segments that `cu_seq_lens_q` `[sequences + 1]` bounds, else
    its own `sdpa`. Shapes as in `llavaonevision1_5.attention.segmented_attention`.
    """
    lengths = None if cu_seq_lens_q is None else segment_lengths_of(cu_seq_lens_q)
    return packed_sdpa(module, query, key, value, attention_mask, segment_lengths=lengths, **kwargs)


AttentionInterface.register(ATTENTION, segmented_sdpa)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def _image_positions(
    original: Any, start_position: int, grid_thw: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """Positions `[3, tokens]` of one image: `original` multiplies the start by its fifth argument, the seconds."""
    if int(grid_thw[0]) != 1:
        raise ValueError(
            f"image_grid_thw has an entry of {int(grid_thw[0])} frames; videos are not supported"
        )
    kwargs.pop("time_interval", None)
    return original(start_position, grid_thw, *args[:2], time_interval=1, **kwargs)


def _positions(
    original: Any,
    *,
    inputs_embeds: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    image_grid_thw: torch.Tensor | None,
    **kwargs: Any,
) -> torch.Tensor | None:
    """Positions `[3, batch, seq]`; for AReaL, which has no embeddings yet, text alone counts in all dimensions."""
    if image_grid_thw is None and inputs_embeds is None:
        counted = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        return counted.expand(3, -1, -1)
    return original(
        inputs_embeds=inputs_embeds, attention_mask=attention_mask, image_grid_thw=image_grid_thw, **kwargs
    )


def _embed_text_through_tower(inner: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple | None:
    """Before a forward pass without images: let the tower see one image of zeros, and add nothing of what it says.

    Its weights then get gradients of zero, and its collectives run on every rank.
    """
    if kwargs.get("pixel_values") is not None or kwargs.get("input_ids") is None:
        return None
    vision = inner.config.vision_config
    merge = vision.spatial_merge_size
    embeddings = inner.get_input_embeddings()(kwargs["input_ids"])
    pixels = embeddings.new_zeros(
        merge**2, vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    )
    grid = torch.tensor([[1, merge, merge]], device=embeddings.device)
    output = inner.get_image_features(pixels, grid, return_dict=True)
    features = [*output.pooler_output, *(getattr(output, "deepstack_features", None) or [])]
    nothing = sum(feature.sum() for feature in features) * 0.0
    return args, {**kwargs, "input_ids": None, "inputs_embeds": embeddings + nothing.to(embeddings.dtype)}
