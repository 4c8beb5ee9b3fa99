"""The parts of a vision-language model by parameter name, and freezing some of them.

LLaVA-OneVision-1.5 keeps its vision tower under `visual.`, the Qwen-VL models under `model.visual.`; adapters add a
prefix of their own. What follows `visual.` has the same names everywhere.
"""

from __future__ import annotations

from torch import nn

VISION_PREFIX = "visual."
PROJECTOR_PREFIXES = ("merger.", "deepstack_merger_list.")


def part_of_model(name: str) -> str:
    """Where a parameter belongs: `vision_block_03`, `vision_embedding`, `projector` or `language_model`."""
    if VISION_PREFIX not in name:
        return "language_model"
    name = name.split(VISION_PREFIX, 1)[1]
    if name.startswith(PROJECTOR_PREFIXES):
        return "projector"
    return f"vision_block_{int(name.split('.')[1]):02d}" if name.startswith("blocks.") else "vision_embedding"


def freeze(model: nn.Module, *, vision_tower: bool = True, projector: bool = False) -> list[str]:
    """Stop gradients into the vision tower and / or the projector (`visual.merger`).

    The two are separate: `vision_tower` leaves the projector trainable. Returns the names frozen. Raises
    ValueError if the model has no such parameters.
    """
    frozen = []
    for name, parameter in model.named_parameters():
        part = part_of_model(name)
        if (vision_tower and part.startswith("vision_")) or (projector and part == "projector"):
            parameter.requires_grad_(False)
            frozen.append(name)
    if (vision_tower or projector) and not frozen:
        raise ValueError(f"{type(model).__name__} has no parameters under {VISION_PREFIX!r} to freeze")
    return frozen
