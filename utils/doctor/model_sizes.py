"""The sizes of a vision-language model, from its `config.json`: what memory and arithmetic are counted from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """The sizes of a vision-language model that decide its memory and its arithmetic."""

    model_type: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    has_qk_norm: bool
    has_qkv_bias: bool
    vision_layers: int
    vision_width: int
    vision_ffn: int
    vision_gated: bool
    merge: int
    patch_dim: int
    num_merger_extra: int = 0  # Qwen3-VL merges at several depths

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Architecture:
        """From the contents of `config.json` of LLaVA-OneVision-1.5, Qwen2-VL, Qwen2.5-VL or Qwen3-VL.

        Raises ValueError for another model type, KeyError for a size that the file does not give.
        """
        kind = config["model_type"]
        readers = {
            "llavaonevision1_5": _llava_vision,
            "qwen2_vl": _qwen2_vision,
            "qwen2_5_vl": _qwen25_vision,
            "qwen3_vl": _qwen3_vision,
        }
        if kind not in readers:
            raise ValueError(f"model_type is {kind!r}; wanted one of {sorted(readers)}")
        text = {**config, **config.get("text_config", {})}  # older Qwen2-VL files are flat
        heads = text["num_attention_heads"]
        return cls(
            model_type=kind,
            layers=text["num_hidden_layers"],
            hidden=text["hidden_size"],
            ffn=text["intermediate_size"],
            heads=heads,
            kv_heads=text["num_key_value_heads"],
            head_dim=text.get("head_dim") or text["hidden_size"] // heads,
            vocab=text["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
            has_qk_norm=kind in ("llavaonevision1_5", "qwen3_vl"),
            has_qkv_bias=kind in ("qwen2_vl", "qwen2_5_vl"),
            **readers[kind](config.get("vision_config", {})),
        )

    @property
    def layer_parameters(self) -> int:
        """Weights of one decoder layer."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        norms = 2 * self.hidden + (2 * self.head_dim if self.has_qk_norm else 0)
        bias = queries + 2 * keys if self.has_qkv_bias else 0
        return 2 * self.hidden * (queries + keys) + 3 * self.hidden * self.ffn + norms + bias

    @property
    def vision_layer_parameters(self) -> int:
        """Weights of one block of the vision tower."""
        width, inner = self.vision_width, self.vision_ffn
        attention = 4 * width * width + 4 * width
        if self.vision_gated:  # RMSNorm without bias, three matrices
            return attention + 3 * width * inner + 2 * inner + width + 2 * width
        return attention + 2 * width * inner + inner + width + 4 * width

    @property
    def vision_parameters(self) -> int:
        """Vision tower and projector together."""
        width, merged = self.vision_width, self.vision_width * self.merge**2
        merger = merged * merged + merged + merged * self.hidden + self.hidden
        norm = width if self.vision_gated else 2 * width
        total = self.vision_layers * self.vision_layer_parameters + self.patch_dim * width
        total += merger + norm + self.num_merger_extra * (merger + 2 * merged)
        if self.model_type == "llavaonevision1_5":
            total += 2 * width + width + self.vision_head_dim // 2  # pre_layernorm, class token, its position
        if self.model_type == "qwen3_vl":
            total += width + 48 * 48 * width  # bias of the patch embedding, learned positions
        return total

    @property
    def vision_head_dim(self) -> int:
        return 64 if self.vision_width % 64 == 0 else 32

    @property
    def embedding_parameters(self) -> int:
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All weights."""
        embeddings = self.embedding_parameters * (1 if self.tied else 2)
        return self.layers * self.layer_parameters + self.hidden + embeddings + self.vision_parameters

    def adapter_parameters(self, rank: int, *, tower: bool = True, projector: bool = True) -> int:
        """Weights of low-rank adapters on every linear layer but the head, as peft's `all-linear` places them."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        width, inner, merged = self.vision_width, self.vision_ffn, self.vision_width * self.merge**2
        attention = 2 * (self.hidden + queries) + 2 * (self.hidden + keys)
        total = self.layers * (attention + 3 * (self.hidden + self.ffn))
        if tower:
            feed_forward = (3 if self.vision_gated else 2) * (width + inner)
            total += self.vision_layers * (4 * width + 2 * width + feed_forward)
        if projector:
            total += (1 + self.num_merger_extra) * (2 * merged + merged + self.hidden)
        return rank * total

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token in 16 bit."""
        return 2 * self.layers * self.kv_heads * self.head_dim * 2


def _llava_vision(vision: Mapping[str, Any]) -> dict[str, Any]:
    patch = vision.get("patch_size", 14)
    return {
        "vision_layers": vision.get("depth", 24),
        "vision_width": vision.get("embed_dim", 1024),
        "vision_ffn": vision.get("intermediate_size", 4096),
        "vision_gated": False,
        "merge": vision.get("spatial_merge_size", 2),
        "patch_dim": 3 * patch * patch,
    }


def _qwen2_vision(vision: Mapping[str, Any]) -> dict[str, Any]:
    width, patch = vision.get("embed_dim", 1280), vision.get("patch_size", 14)
    return {
        "vision_layers": vision.get("depth", 32),
        "vision_width": width,
        "vision_ffn": int(width * vision.get("mlp_ratio", 4)),
        "vision_gated": False,
        "merge": vision.get("spatial_merge_size", 2),
        "patch_dim": 3 * vision.get("temporal_patch_size", 2) * patch * patch,
    }


def _qwen25_vision(vision: Mapping[str, Any]) -> dict[str, Any]:
    patch = vision.get("patch_size", 14)
    return {
        "vision_layers": vision.get("depth", 32),
        "vision_width": vision.get("hidden_size", 1280),
        "vision_ffn": vision.get("intermediate_size", 3420),
        "vision_gated": True,
        "merge": vision.get("spatial_merge_size", 2),
        "patch_dim": 3 * vision.get("temporal_patch_size", 2) * patch * patch,
    }


def _qwen3_vision(vision: Mapping[str, Any]) -> dict[str, Any]:
    patch = vision.get("patch_size", 16)
    return {
        "vision_layers": vision.get("depth", 27),
        "vision_width": vision.get("hidden_size", 1152),
        "vision_ffn": vision.get("intermediate_size", 4304),
        "vision_gated": False,
        "merge": vision.get("spatial_merge_size", 2),
        "patch_dim": 3 * vision.get("temporal_patch_size", 2) * patch * patch,
        "num_merger_extra": len(vision.get("deepstack_visual_indexes", (8, 16, 24))),
    }
