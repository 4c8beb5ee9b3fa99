"""From groups to what the engine computes on, and back."""

from __future__ import annotations

from typing import Any

import torch
from areal.utils.data import concat_padded_tensors

from trains.host.shared_batches import GRIDS, OWN, PIXELS
from trains.types import Group


def concatenated(batch: list[Group], keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the model reads of all groups, and `keys` of them, as one batch of rollouts."""
    parts = []
    has_own = any("rollout_images" in group for group in batch)
    for index, group in enumerate(batch):
        inputs = model_inputs(group) | {key: group[key] for key in keys}
        if has_own:
            empty = [{} for _ in group["input_ids"]]
            inputs[OWN] = group["rollout_images"][0] if "rollout_images" in group else empty
        parts.append(inputs | {"prompt": torch.full_like(inputs["num_prompt"], index)})
    return concat_padded_tensors(parts)


def model_inputs(group: Group) -> dict[str, Any]:
    """What the model reads of a group: ids, mask, and the prompt's images by reference, once per rollout."""
    images = group["images"][0]
    num_rollouts = len(group["input_ids"])
    has_images = len(images["pixel_values"]) > 0
    grids, pixels = ({key: images[key]} if has_images else {} for key in ("image_grid_thw", "pixel_values"))
    inputs = {
        "input_ids": group["input_ids"],
        "attention_mask": group["attention_mask"],
        "num_prompt": group["loss_mask"].argmax(-1),
        GRIDS: [grids] * num_rollouts,
        PIXELS: [pixels] * num_rollouts,
    }
    if "mm_token_type_ids" in group:
        inputs["mm_token_type_ids"] = group["mm_token_type_ids"]
    return inputs


def by_group(values: torch.Tensor, batch: list[Group]) -> list[torch.Tensor]:
    """`[rollouts, seq]` of a batch as `[G, seq]` of each of its groups."""
    parts = values.split([len(group["input_ids"]) for group in batch])
    return [
        part[:, : group["input_ids"].shape[1]]
        if part.shape[1] >= group["input_ids"].shape[1]
        else torch.nn.functional.pad(part, (0, group["input_ids"].shape[1] - part.shape[1]))
        for part, group in zip(parts, batch, strict=True)
    ]
