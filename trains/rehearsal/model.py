"""A reduced copy of a checkpoint: its configuration with few narrow layers, random weights, and all its other files.

Tokenizer, chat template, image processor and special tokens are the ones of the folder; weights need not be there.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from llavaonevision1_5 import MODEL_TYPE, shims, tiny
from llavaonevision1_5.shards import read_json
from trains.rehearsal import tiny_qwen
from utils.doctor import known_models

HEAD_DIM, HEADS, KV_HEADS, LAYERS = 32, 2, 1, 2
HIDDEN = HEAD_DIM * HEADS
BUILT_IN_POSITIONS = 65_536
# Names that the configurations of LLaVA-OneVision-1.5 and the Qwen-VL family give to the same sizes.
TEXT = {
    "hidden_size": HIDDEN,
    "intermediate_size": 2 * HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "max_window_layers": LAYERS,
}
VISION_WIDTH, VISION_DEPTH, VISION_HEADS = 64, 2, 2
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


def is_small(folder: Path) -> bool:
    """Whether a checkpoint needs no reduction: it is walked through as it is, weights included."""
    config = read_json(folder / "config.json")
    text = config.get("text_config", config)
    return text["hidden_size"] <= 256 and text["num_hidden_layers"] <= 8


def reduce(folder: Path, target: Path, seed: int) -> str:
    """Write the reduced copy of `folder` into `target` (replaced); returns what it is, in words.

    Raises ValueError or KeyError where config.json describes no model that is known here.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(folder, trust_remote_code=shims.check_code(folder))
    was = f"{config.text_config.num_hidden_layers} layers of {config.text_config.hidden_size}"
    _shrink_text(config.text_config)
    _shrink_vision(config)
    _fresh(target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.model_type == MODEL_TYPE:
            from llavaonevision1_5.modeling import LLaVAOneVision1_5_ForConditionalGeneration as Model

            model = Model(config)
        else:
            model = AutoModelForImageTextToText.from_config(config)
    model.to(config.dtype or torch.float32).save_pretrained(target)
    for path in folder.iterdir():
        is_weight = path.suffix in WEIGHTS or path.name.endswith(".index.json")
        if path.is_file() and not is_weight and not (target / path.name).exists():
            shutil.copyfile(path, target / path.name)
    count = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{config.model_type} of {folder}, {was} reduced to {LAYERS} of {HIDDEN} ({count / 1e6:.1f} M random "
        "parameters), with its tokenizer, template and image processor"
    )


def built_in(name: str, target: Path, seed: int, max_pixels: int | None) -> str:
    """Write a tiny model of the project's own into `target` (replaced); returns what it is, in words.

    It is of the family that `name`, a path, names, and LLaVA-OneVision-1.5 where that is none.
    """
    _fresh(target)
    published = known_models.config_of(name)
    family = MODEL_TYPE if published is None else published[1]["model_type"]
    if family == MODEL_TYPE:
        config = tiny.build_config(max_position_embeddings=BUILT_IN_POSITIONS, suppress_media_tokens=True)
        limits = {} if max_pixels is None else {"max_pixels": max_pixels}
        tiny.build_tiny_checkpoint(target, seed=seed, config=config, **limits)
    else:
        tiny_qwen.build_model(family, max_position_embeddings=BUILT_IN_POSITIONS).save_pretrained(target)
        tiny_qwen.build_processor(family).save_pretrained(target)
    return f"a built-in {family} of about a million random parameters, whose tokens are bytes"


def end_token(folder: Path) -> int | None:
    """The end token that the folder's generation_config.json names; None without one."""
    path = folder / "generation_config.json"
    ends: Any = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
    return ends[0] if isinstance(ends, list) else ends


def _fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _shrink_text(text: Any) -> None:
    was = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    for name, value in TEXT.items():
        if hasattr(text, name):
            setattr(text, name, value)
    rope = getattr(text, "rope_parameters", None) or {}
    if "mrope_section" in rope:  # frequencies of time, height and width: half a head in all
        rope["mrope_section"] = [size * HEAD_DIM // was for size in rope["mrope_section"]]
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:LAYERS]


def _shrink_vision(config: Any) -> None:
    vision = config.vision_config
    is_qwen2 = config.model_type == "qwen2_vl"
    sizes = {
        "depth": VISION_DEPTH,
        "num_heads": VISION_HEADS,
        "intermediate_size": 2 * VISION_WIDTH,
        "embed_dim": VISION_WIDTH,
        "hidden_size": HIDDEN if is_qwen2 else VISION_WIDTH,  # Qwen2-VL calls the text's width so
        "out_hidden_size": HIDDEN,
        "text_hidden_size": HIDDEN,
        "fullatt_block_indexes": [VISION_DEPTH - 1],
        "deepstack_visual_indexes": [0, 1],
    }
    for name, value in sizes.items():
        if hasattr(vision, name):
            setattr(vision, name, value)
