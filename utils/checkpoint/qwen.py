"""Folders of Qwen-VL, which transformers knows: trained and served as published, with nothing for `prepare` to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llavaonevision1_5 import QWEN_VL_TYPES
from llavaonevision1_5.checkpoint import tensor_shapes, token_problems
from llavaonevision1_5.shards import read_json

FAULTS = ("missing_keys", "unexpected_keys", "mismatched_keys")


def is_qwen(folder: str | Path) -> bool:
    """Whether `config.json` names a Qwen-VL model. Raises FileNotFoundError without that file."""
    return read_json(Path(folder) / "config.json").get("model_type") in QWEN_VL_TYPES


def verify(folder: str | Path) -> None:
    """Load it as training does and look at its special tokens; ValueError with every problem (the first of a kind)."""
    folder = Path(folder)
    tensor_shapes(folder)  # a truncated file or a git-lfs pointer is named
    problems = token_problems(folder, read_json(folder / "config.json"))
    _, found = load(folder)
    problems += [
        f"{kind.replace('_keys', '')} weights: {len(found[kind])}, first {min(map(str, found[kind]))}"
        for kind in FAULTS
        if found[kind]
    ]
    if problems:
        shown = "\n".join(f"  - {problem}" for problem in problems)
        raise ValueError(f"{folder} is not a Qwen-VL checkpoint that can be used:\n{shown}")


def load(folder: str | Path) -> tuple[Any, dict[str, Any]]:
    """(model, what transformers says of weights that do not fit it)."""
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # the faults are returned
    return AutoModelForImageTextToText.from_pretrained(
        folder, dtype="auto", output_loading_info=True, ignore_mismatched_sizes=True
    )
