"""A random LLaVA-OneVision-1.5 of one to three million parameters in the published layout.

For tests and for the CPU demonstration: same architecture, same file names, same key names as the 4B and 8B
checkpoints, small enough to train on two CPU cores. The tokenizer is byte-level: a token is a byte, its id the
byte's value, and the special tokens follow. An image of 56 x 56 pixels becomes four image tokens.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import GenerationConfig, PreTrainedTokenizerFast

from llavaonevision1_5 import ARCHITECTURE
from llavaonevision1_5.configuration import LLaVAOneVision1_5_Config
from llavaonevision1_5.modeling import LLaVAOneVision1_5_ForConditionalGeneration
from llavaonevision1_5.processing import (
    CHAT_TEMPLATE,
    LLaVAOneVision1_5_ImageProcessor,
    LLaVAOneVision1_5_Processor,
)

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
SPECIAL_IDS = {token: 256 + index for index, token in enumerate(SPECIAL_TOKENS)}
VOCAB_SIZE = 264  # 256 bytes and 7 special tokens, rounded up to a multiple of 8


def byte_characters() -> list[str]:
    """The character by which `tokenizers` writes each byte: printable Latin-1 as itself, others from U+0100."""
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def build_tokenizer(*, model_max_length: int = 4096) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the chat and vision tokens of Qwen2-VL; every string survives a round trip."""
    tokenizer = Tokenizer(BPE(vocab={char: byte for byte, char in enumerate(byte_characters())}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def build_processor(
    *, min_pixels: int = 56 * 56, max_pixels: int = 28 * 28 * 64
) -> LLaVAOneVision1_5_Processor:
    """The processor of the tiny model; `min_pixels` and `max_pixels` bound an image after resizing."""
    return LLaVAOneVision1_5_Processor(
        image_processor=LLaVAOneVision1_5_ImageProcessor(
            size={"shortest_edge": min_pixels, "longest_edge": max_pixels}
        ),
        tokenizer=build_tokenizer(),
        chat_template=CHAT_TEMPLATE,
    )


def build_config(
    *,
    hidden_size: int = 128,
    intermediate_size: int = 384,
    num_layers: int = 4,
    num_heads: int = 4,
    num_kv_heads: int = 2,
    head_dim: int = 32,
    vision_width: int = 96,
    vision_depth: int = 3,
    vision_heads: int = 3,
    max_position_embeddings: int = 4096,
    suppress_media_tokens: bool = False,
) -> LLaVAOneVision1_5_Config:
    """A small configuration of the published architecture; about 1.4 million parameters by default.

    A run that samples from a barely trained model wants `suppress_media_tokens` (see the configuration).
    """
    text = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": max_position_embeddings,
        "rope_theta": 10_000.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": SPECIAL_IDS["<|im_end|>"],
        "pad_token_id": SPECIAL_IDS["<|endoftext|>"],
    }
    vision = {
        "depth": vision_depth,
        "embed_dim": vision_width,
        "num_heads": vision_heads,
        "intermediate_size": 4 * vision_width,
        "text_hidden_size": hidden_size,
    }
    return LLaVAOneVision1_5_Config(
        text_config=text,
        vision_config=vision,
        image_token_id=SPECIAL_IDS["<|image_pad|>"],
        video_token_id=SPECIAL_IDS["<|video_pad|>"],
        vision_start_token_id=SPECIAL_IDS["<|vision_start|>"],
        vision_end_token_id=SPECIAL_IDS["<|vision_end|>"],
        eos_token_id=SPECIAL_IDS["<|im_end|>"],
        pad_token_id=SPECIAL_IDS["<|endoftext|>"],
        architectures=[ARCHITECTURE],
        suppress_media_tokens=suppress_media_tokens,
    )


def build_model(
    config: LLaVAOneVision1_5_Config | None = None, *, seed: int = 0
) -> LLaVAOneVision1_5_ForConditionalGeneration:
    """The model with random float32 weights that depend on `seed` alone; the global generator is left as is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LLaVAOneVision1_5_ForConditionalGeneration(config or build_config()).float()
    ids = [SPECIAL_IDS["<|im_end|>"], SPECIAL_IDS["<|endoftext|>"]]
    model.generation_config = GenerationConfig(eos_token_id=ids, pad_token_id=SPECIAL_IDS["<|endoftext|>"])
    return model


def build_tiny_checkpoint(
    path: str | os.PathLike,
    *,
    seed: int = 0,
    config: LLaVAOneVision1_5_Config | None = None,
    min_pixels: int = 56 * 56,
    max_pixels: int = 28 * 28 * 64,
) -> Path:
    """Write a random tiny checkpoint (weights, configuration, processor, shims) into `path`; returns it.

    The same arguments write the same bytes. `config` comes from `build_config` when sizes are to differ.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    build_model(config, seed=seed).save_pretrained(path)
    build_processor(min_pixels=min_pixels, max_pixels=max_pixels).save_pretrained(path)
    return path


def to_published_layout(folder: str | os.PathLike) -> None:
    """Rewrite the configuration of a checkpoint folder of ours as published ones have it; weights and code stay."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("auto_map")
    config["vocab_size"] = config["text_config"]["vocab_size"]
    config["text_config"] |= {
        "rope_theta": config["text_config"].pop("rope_parameters")["rope_theta"],
        "rope_scaling": None,
        "model_type": "LLaVAOneVision1_5_text",
        "image_token_id": None,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "processor_config.json").unlink()
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    preprocessor.pop("auto_map")
    preprocessor["processor_class"] = "Qwen2_5_VLProcessor"
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
