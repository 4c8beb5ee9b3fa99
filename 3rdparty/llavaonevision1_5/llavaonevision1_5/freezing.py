"""Freeze parts of the model, for stages that train the rest."""

from __future__ import annotations

from torch import nn

PROJECTOR_PREFIX = "visual.merger."
VISION_PREFIX = "visual."


def freeze(model: nn.Module, *, vision_tower: bool = True, projector: bool = False) -> list[str]:
    """Stop gradients into the vision tower and / or the projector (`visual.merger`).

    The two are separate: `vision_tower` leaves the projector trainable. Returns the names frozen. Raises
    ValueError if the model has no such parameters.
    """
    frozen = []
    for name, parameter in model.named_parameters():
        is_projector = name.startswith(PROJECTOR_PREFIX)
        is_tower = name.startswith(VISION_PREFIX) and not is_projector
        if (vision_tower and is_tower) or (projector and is_projector):
            parameter.requires_grad_(False)
            frozen.append(name)
    if (vision_tower or projector) and not frozen:
        raise ValueError(f"{type(model).__name__} has no parameters under {VISION_PREFIX!r} to freeze")
    return frozen
