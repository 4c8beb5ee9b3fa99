"""The same prompts in every form that the model takes: packed in one row, padded, one by one."""

from __future__ import annotations

import torch

from llavaonevision1_5.modeling import LLaVAOneVision1_5_ForConditionalGeneration

CLOSE = {"atol": 1e-5, "rtol": 0.0}


def merged_pixels(prompts):
    """pixel_values and image_grid_thw of several prompts, as AReaL concatenates them."""
    keys = ("pixel_values", "image_grid_thw")
    return {key: torch.cat([p.pixels[key] for p in prompts if key in p.pixels]) for key in keys}


def packed_inputs(prompts, num_padding=0):
    """One row as AReaL's engine makes it: bounds in cu_seq_lens_q, a dict for a mask, padding as a last segment."""
    ids = torch.tensor([token for p in prompts for token in p.ids] + [0] * num_padding)
    lengths = [len(p.ids) for p in prompts] + ([num_padding] if num_padding else [])
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return {
        "input_ids": ids.unsqueeze(0),
        "position_ids": torch.cat([torch.arange(n) for n in lengths]).unsqueeze(0),
        "attention_mask": {"full_attention": None, "sliding_attention": None},
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
        "use_cache": False,
        **merged_pixels(prompts),
    }


def padded_inputs(prompts, side):
    """One row per prompt, filled up to the longest. On the left the mask matters: the rest could see the padding."""
    longest = max(len(p.ids) for p in prompts)
    ids, mask = [], []
    for prompt in prompts:
        padding, real = [0] * (longest - len(prompt.ids)), [1] * len(prompt.ids)
        ids.append(padding + prompt.ids if side == "left" else prompt.ids + padding)
        mask.append(padding + real if side == "left" else real + padding)
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "use_cache": False,
        **merged_pixels(prompts),
    }


def one_by_one(model, prompts):
    with torch.no_grad():
        return [model(input_ids=torch.tensor([p.ids]), **p.pixels).logits[0] for p in prompts]


def load(checkpoint, implementation):
    return LLaVAOneVision1_5_ForConditionalGeneration.from_pretrained(
        checkpoint, attn_implementation=implementation
    ).eval()
