"""The vision tower against a slow float64 computation written from the description of the architecture."""

from __future__ import annotations

import math

import pytest
import torch

from llavaonevision1_5 import tiny
from llavaonevision1_5.attention import bounds_from_position_ids, segmented_attention
from llavaonevision1_5.vision import patch_coordinates


def layer_norm(x, module):
    return torch.nn.functional.layer_norm(x, x.shape[-1:], module.weight, module.bias, module.eps)


def rotate(vector, angles):
    """Turn the pairs (i, i + d/2) of a head's vector by the angles, as complex numbers."""
    half = len(vector) // 2
    turned = torch.complex(vector[:half], vector[half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag])


def slow_tower(tower, pixel_values, height, width):
    """Features of one image, token by token and head by head."""
    config = tower.config
    heads, head_dim = config.num_heads, config.embed_dim // config.num_heads
    tokens = [tower.class_embedding]
    angles = [tower.class_pos_emb[0]]
    frequencies = [10000.0 ** -(i / (head_dim // 2)) for i in range(0, head_dim // 2, 2)]
    places = [
        (2 * block_row + r, 2 * block_column + c)
        for block_row in range(height // 2)
        for block_column in range(width // 2)
        for r in range(2)
        for c in range(2)
    ]
    for patch, (row, column) in zip(pixel_values, places, strict=True):
        tokens.append(tower.patch_embed.proj(patch.view(1, 3, 14, 14)).flatten())
        angles.append(
            torch.tensor([row * f for f in frequencies] + [column * f for f in frequencies]).double()
        )
    hidden = layer_norm(torch.stack(tokens), tower.pre_layernorm)
    for block in tower.blocks:
        qkv = block.attn.qkv(layer_norm(hidden, block.norm1))
        query, key, value = qkv.chunk(3, dim=-1)
        mixed = torch.zeros_like(hidden)
        for head in range(heads):
            part = slice(head * head_dim, (head + 1) * head_dim)
            q = torch.stack([rotate(x, a) for x, a in zip(query[:, part], angles, strict=True)])
            k = torch.stack([rotate(x, a) for x, a in zip(key[:, part], angles, strict=True)])
            mixed[:, part] = (q @ k.T / math.sqrt(head_dim)).softmax(-1) @ value[:, part]
        hidden = hidden + block.attn.proj(mixed)
        inner = block.mlp.fc1(layer_norm(hidden, block.norm2))
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        hidden = hidden + block.mlp.fc2(inner)
    merged = layer_norm(hidden[1:], tower.merger.ln_q).reshape(-1, 4 * config.embed_dim)
    inner = tower.merger.mlp[0](merged)
    return tower.merger.mlp[2](inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))))


@pytest.fixture(scope="module")
def tower():
    tower = tiny.build_model(seed=5).visual.eval()
    with torch.no_grad():
        for (
            parameter
        ) in tower.parameters():  # fresh biases are zero and fresh norms one, which would hide mistakes
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    return tower


@torch.no_grad()
def test_tower_equals_the_slow_computation(tower):
    grids = [(4, 4), (2, 6), (6, 4)]
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(h * w, 588, generator=generator) for h, w in grids]
    got = tower(torch.cat(images), torch.tensor([[1, h, w] for h, w in grids]))
    slow = tower.double()
    expected = torch.cat(
        [slow_tower(slow, image.double(), h, w) for image, (h, w) in zip(images, grids, strict=True)]
    )
    tower.float()
    torch.testing.assert_close(got, expected.float(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_images_do_not_see_each_other(tower):
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(16, 588, generator=generator) for _ in range(2))
    grid = torch.tensor([[1, 4, 4], [1, 4, 4]])
    both = tower(torch.cat([first, second]), grid)
    alone = [tower(image, grid[:1]) for image in (first, second)]
    torch.testing.assert_close(both, torch.cat(alone), atol=1e-6, rtol=0)


def test_patch_coordinates_follow_merge_blocks():
    assert patch_coordinates(4, 4, 2)[:8].tolist() == [
        [0, 0], [0, 1], [1, 0], [1, 1],
        [0, 2], [0, 3], [1, 2], [1, 3],
    ]  # fmt: skip


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("lengths", [[5], [3, 1, 4], [2, 2, 2], [1, 1, 6]])
def test_segmented_attention_equals_a_mask(lengths, is_causal):
    tokens = sum(lengths)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, tokens, 8, generator=generator)
    key, value = (torch.randn(1, 2, tokens, 8, generator=generator) for _ in range(2))
    segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    mask = segment[:, None] == segment[None, :]
    if is_causal:
        mask &= torch.ones(tokens, tokens, dtype=torch.bool).tril()
    wide_key, wide_value = (x.repeat_interleave(2, dim=1) for x in (key, value))
    scores = (query @ wide_key.transpose(2, 3) / 3.0).masked_fill(~mask, -torch.inf)
    expected = (scores.softmax(-1) @ wide_value).transpose(1, 2)
    got = segmented_attention(query, key, value, lengths, scaling=1 / 3.0, is_causal=is_causal)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_segmented_attention_refuses_lengths_that_do_not_fit():
    x = torch.zeros(1, 1, 4, 2)
    with pytest.raises(ValueError, match=r"1 rows of 4 tokens"):
        segmented_attention(x, x, x, [2, 1], scaling=1.0, is_causal=True)


@pytest.mark.parametrize(
    ("positions", "bounds"),
    [([0, 1, 2], [0, 3]), ([0, 1, 0, 0, 1], [0, 2, 3, 5]), ([5, 6, 7, 0], [0, 3, 4]), ([0], [0, 1])],
)
def test_bounds_from_position_ids(positions, bounds):
    assert bounds_from_position_ids(torch.tensor([positions])).tolist() == bounds
