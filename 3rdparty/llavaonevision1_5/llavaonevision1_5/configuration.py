"""Configuration of LLaVA-OneVision-1.5: a RICE vision transformer, a merger, and Qwen3 as language model."""

from __future__ import annotations

import os
from typing import Any

from transformers import PretrainedConfig, Qwen3Config

from llavaonevision1_5 import ARCHITECTURE, MODEL_TYPE, shims

# The logit of a suppressed token: probability exactly 0, but finite, so that entropy is not 0 times infinity.
SUPPRESSED_LOGIT = -1e4


class RiceConfig(PretrainedConfig):
    """The vision transformer and the merger; the defaults are those of the 4B and 8B checkpoints.

    `text_hidden_size` is the width of the merger's output and equals the language model's `hidden_size`.
    """

    model_type = "rice_vit"
    base_config_key = "vision_config"

    def __init__(
        self,
        *,
        depth: int = 24,
        embed_dim: int = 1024,
        num_heads: int = 16,
        intermediate_size: int = 4096,
        hidden_act: str = "gelu",
        layer_norm_eps: float = 1e-5,
        in_channels: int = 3,
        patch_size: int = 14,
        temporal_patch_size: int = 1,
        spatial_merge_size: int = 2,
        text_hidden_size: int = 4096,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        self.depth = depth
        self.embed_dim = embed_dim
        self.hidden_size = kwargs.pop("hidden_size", embed_dim)
        self.num_heads = num_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.in_channels = in_channels
        self.patch_size = patch_size
        self.temporal_patch_size = temporal_patch_size
        self.spatial_merge_size = spatial_merge_size
        self.text_hidden_size = text_hidden_size
        self.initializer_range = initializer_range
        super().__init__(**kwargs)
        if embed_dim % (4 * num_heads):
            raise ValueError(
                "vision_config: embed_dim / num_heads must be a multiple of 4 (2D rotary embedding), "
                f"got embed_dim={embed_dim}, num_heads={num_heads}"
            )
        if temporal_patch_size != 1:
            raise ValueError(f"vision_config.temporal_patch_size must be 1, got {temporal_patch_size}")

    @property
    def patch_dim(self) -> int:
        """Values in one flattened patch: 3 x 14 x 14 = 588 as published."""
        return self.in_channels * self.patch_size**2


class LLaVAOneVision1_5_Config(PretrainedConfig):
    """The whole model. `text_config` is a Qwen3 configuration whatever `model_type` the checkpoint gives it.

    `suppress_media_tokens` takes the four media tokens out of the output distribution, in the trainer's model
    and in SGLang's alike, so that log-probabilities still agree. A barely trained model samples `<|image_pad|>`,
    and such a sequence has more image tokens than features. Off unless config.json says otherwise.
    """

    model_type = MODEL_TYPE
    sub_configs = {"text_config": Qwen3Config, "vision_config": RiceConfig}  # noqa: RUF012 - read by transformers
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    def __init__(
        self,
        text_config: Qwen3Config | dict[str, Any] | None = None,
        vision_config: RiceConfig | dict[str, Any] | None = None,
        *,
        image_token_id: int = 151655,
        video_token_id: int = 151656,
        vision_start_token_id: int = 151652,
        vision_end_token_id: int = 151653,
        tie_word_embeddings: bool = False,
        suppress_media_tokens: bool = False,
        **kwargs: Any,
    ) -> None:
        self.text_config = _text_config(text_config)
        self.vision_config = (
            vision_config if isinstance(vision_config, RiceConfig) else RiceConfig(**_plain(vision_config))
        )
        self.image_token_id = image_token_id
        self.video_token_id = video_token_id
        self.vision_start_token_id = vision_start_token_id
        self.vision_end_token_id = vision_end_token_id
        self.suppress_media_tokens = suppress_media_tokens
        # Explicit on both levels: transformers 5 ties by default where nothing is said, and lm_head is its own.
        self.tie_word_embeddings = tie_word_embeddings
        self.text_config.tie_word_embeddings = tie_word_embeddings
        kwargs.setdefault("architectures", [ARCHITECTURE])
        kwargs.pop("vocab_size", None)  # published beside the text configuration's own; one of them suffices
        super().__init__(**kwargs)
        if self.vision_config.text_hidden_size != self.text_config.hidden_size:
            raise ValueError(
                "vision_config.text_hidden_size must equal text_config.hidden_size, got "
                f"{self.vision_config.text_hidden_size} and {self.text_config.hidden_size}"
            )
        if getattr(self.text_config, "use_sliding_window", False):
            raise ValueError("text_config.use_sliding_window must be false: no published checkpoint uses it")

    @property
    def media_token_ids(self) -> list[int]:
        """Tokens that only the processor may write: image and video marks, start and end of vision."""
        return [
            self.image_token_id,
            self.video_token_id,
            self.vision_start_token_id,
            self.vision_end_token_id,
        ]

    @property
    def vocab_size(self) -> int:
        return self.text_config.vocab_size

    @property
    def hidden_size(self) -> int:
        return self.text_config.hidden_size

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """As in transformers, and the folder then loads through this package (see `shims`)."""
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        shims.write(save_directory)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Nothing: transformers would copy source files into every checkpoint; `shims.write` does better."""


def _plain(config: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (config or {}).items() if key != "model_type"}


def _text_config(config: Qwen3Config | dict[str, Any] | None) -> Qwen3Config:
    if isinstance(config, Qwen3Config):
        return config
    # Checkpoints carry image_token_id: null and the like here, which would shadow the real values above.
    media = {"image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"}
    return Qwen3Config(**{key: value for key, value in _plain(config).items() if key not in media})
