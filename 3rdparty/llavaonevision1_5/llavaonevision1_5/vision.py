"""The RICE vision transformer of LLaVA-OneVision-1.5 and the merger behind it.

Patches come in 2 x 2 merge-block order, as the Qwen2-VL image processor writes them. A learned class token is
put in front of every frame, takes part in attention, and is removed before the merger. Attention is full
within a frame and none across frames; positions enter as 2D rotary embeddings, always computed in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from llavaonevision1_5.attention import segmented_attention
from llavaonevision1_5.configuration import RiceConfig


@dataclass(frozen=True)
class Frames:
    """Where the frames of a batch lie, once per forward pass.

    Not a tensor, tuple or dict on purpose: FSDP2's mixed precision casts those on the way into a block, and
    the rotary tables must stay float32.

    lengths: tokens per frame, class token included. cos, sin: `[tokens, head_dim]`, float32.
    cu_seqlens: `[frames + 1]`, int32.
    """

    lengths: list[int]
    cu_seqlens: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor


def frame_sizes(grid_thw: torch.Tensor) -> list[tuple[int, int]]:
    """(height, width) in patches of every frame; an image is one frame. grid_thw: `[images, 3]`."""
    return [(h, w) for t, h, w in grid_thw.tolist() for _ in range(t)]


def patch_coordinates(height: int, width: int, merge: int) -> torch.Tensor:
    """Row and column of each patch of a frame in merge-block order: `[height * width, 2]`.

    >>> patch_coordinates(2, 4, 2).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]]
    """
    rows = torch.arange(height)[:, None].expand(height, width)
    columns = torch.arange(width)[None, :].expand(height, width)
    grid = torch.stack([rows, columns], dim=-1)
    blocks = grid.reshape(height // merge, merge, width // merge, merge, 2)
    return blocks.transpose(1, 2).reshape(-1, 2)


def rotate_half(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


def apply_rotary(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate x `[tokens, heads, head_dim]` by tables `[tokens, head_dim]`, in float32, back in x's dtype."""
    wide = x.float()
    return (wide * cos[:, None] + rotate_half(wide) * sin[:, None]).to(x.dtype)


class RicePatchEmbed(nn.Module):
    def __init__(self, config: RiceConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(
            config.in_channels,
            config.embed_dim,
            kernel_size=config.patch_size,
            stride=config.patch_size,
            bias=False,
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """`[patches, 588]` to `[patches, embed_dim]`: the kernel covers a patch, so it is one product."""
        weight = self.proj.weight.flatten(1)
        return nn.functional.linear(pixel_values.to(weight.dtype), weight)


class RiceAttention(nn.Module):
    is_causal = False

    def __init__(self, config: RiceConfig) -> None:
        super().__init__()
        self.config = config
        self.num_heads = config.num_heads
        self.scaling = (config.embed_dim // config.num_heads) ** -0.5
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, hidden: torch.Tensor, frames: Frames) -> torch.Tensor:
        tokens = hidden.shape[0]
        query, key, value = self.qkv(hidden).view(tokens, 3, self.num_heads, -1).unbind(1)
        query = apply_rotary(query, frames.cos, frames.sin)
        key = apply_rotary(key, frames.cos, frames.sin)
        query, key, value = (x.transpose(0, 1).unsqueeze(0) for x in (query, key, value))
        implementation = self.config._attn_implementation or ""
        if "flash" in implementation:
            longest = max(frames.lengths)
            output, _ = ALL_ATTENTION_FUNCTIONS[implementation](
                self,
                query,
                key,
                value,
                attention_mask=None,
                scaling=self.scaling,
                dropout=0.0,
                cu_seq_lens_q=frames.cu_seqlens,
                cu_seq_lens_k=frames.cu_seqlens,
                max_length_q=longest,
                max_length_k=longest,
                is_causal=False,
            )
        else:
            output = segmented_attention(
                query, key, value, frames.lengths, scaling=self.scaling, is_causal=False
            )
        return self.proj(output.reshape(tokens, -1))


class RiceMLP(nn.Module):
    def __init__(self, config: RiceConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.embed_dim, config.intermediate_size)
        self.act = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.embed_dim)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(hidden)))


class RiceBlock(GradientCheckpointingLayer):
    """Pre-norm transformer block; the unit of FSDP sharding and of gradient checkpointing."""

    def __init__(self, config: RiceConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.attn = RiceAttention(config)
        self.mlp = RiceMLP(config)

    def forward(self, hidden: torch.Tensor, frames: Frames) -> torch.Tensor:
        hidden = hidden + self.attn(self.norm1(hidden), frames)
        return hidden + self.mlp(self.norm2(hidden))


class RiceMerger(nn.Module):
    """The projector: each block of 2 x 2 patches becomes one embedding of the language model."""

    def __init__(self, config: RiceConfig) -> None:
        super().__init__()
        self.width = config.embed_dim * config.spatial_merge_size**2
        self.ln_q = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.mlp = nn.Sequential(
            nn.Linear(self.width, self.width), nn.GELU(), nn.Linear(self.width, config.text_hidden_size)
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.ln_q(hidden).view(-1, self.width))


class RiceVisionTower(nn.Module):
    """Vision transformer and merger: `[patches, 588]` and `[images, 3]` to `[patches / 4, text_hidden_size]`."""

    def __init__(self, config: RiceConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = RicePatchEmbed(config)
        self.class_embedding = nn.Parameter(torch.randn(config.embed_dim) * config.embed_dim**-0.5)
        self.class_pos_emb = nn.Parameter(torch.randn(1, config.embed_dim // config.num_heads // 2))
        self.pre_layernorm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.blocks = nn.ModuleList([RiceBlock(config) for _ in range(config.depth)])
        self.merger = RiceMerger(config)

    @property
    def dtype(self) -> torch.dtype:
        return self.patch_embed.proj.weight.dtype

    def angles(self, sizes: list[tuple[int, int]], device: torch.device) -> torch.Tensor:
        """Rotary angles of all patches: `[patches, head_dim / 2]`, float32, row angles then column angles.

        Frequencies are made here rather than kept in a buffer, which transformers leaves uninitialised when
        it builds a model on the meta device.
        """
        half = self.config.embed_dim // self.config.num_heads // 2
        frequencies = 1.0 / 10000.0 ** (torch.arange(0, half, 2, dtype=torch.float32, device=device) / half)
        merge = self.config.spatial_merge_size
        tables = {size: patch_coordinates(*size, merge).to(device) for size in set(sizes)}
        coordinates = torch.cat([tables[size] for size in sizes]).float()
        return (coordinates[:, :, None] * frequencies).flatten(1)

    def forward(self, pixel_values: torch.Tensor, grid_thw: torch.Tensor) -> torch.Tensor:
        sizes = frame_sizes(grid_thw)
        counts = [height * width for height, width in sizes]
        if sum(counts) != pixel_values.shape[0]:
            raise ValueError(
                f"image_grid_thw describes {sum(counts)} patches in {len(sizes)} frames, "
                f"but pixel_values has {pixel_values.shape[0]} rows"
            )
        patches = self.patch_embed(pixel_values)
        device = patches.device
        # Patch j of frame f stands at j + f + 1: one class token in front of each frame up to its own.
        frame_of_patch = torch.repeat_interleave(
            torch.arange(len(sizes), device=device), torch.tensor(counts, device=device)
        )
        patch_places = torch.arange(patches.shape[0], device=device) + frame_of_patch + 1
        bounds = torch.tensor([0, *counts], device=device).cumsum(0) + torch.arange(
            len(sizes) + 1, device=device
        )
        order = torch.empty(patches.shape[0] + len(sizes), dtype=torch.long, device=device)
        order[bounds[:-1]] = torch.arange(len(sizes), device=device)
        order[patch_places] = torch.arange(patches.shape[0], device=device) + len(sizes)

        class_tokens = self.class_embedding.to(patches.dtype).expand(len(sizes), -1)
        hidden = self.pre_layernorm(torch.cat([class_tokens, patches])[order])
        class_angles = self.class_pos_emb.float().expand(len(sizes), -1)
        angles = torch.cat([class_angles, self.angles(sizes, device)])[order]
        angles = torch.cat([angles, angles], dim=-1)
        frames = Frames(
            lengths=[count + 1 for count in counts],
            cu_seqlens=bounds.to(torch.int32),
            cos=angles.cos(),
            sin=angles.sin(),
        )
        for block in self.blocks:
            hidden = block(hidden, frames)
        return self.merger(hidden[patch_places])
