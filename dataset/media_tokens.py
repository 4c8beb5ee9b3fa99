"""Tokens that stand for images and videos in a prompt: a policy must never generate one, in training or in curation."""

from collections.abc import Iterable

MEDIA_TOKEN_KEYS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
# Added to a logit: far below every float32 log-probability, and finite for SGLang's JSON.
NEVER = -1e4


def media_token_ids(checkpoint: str) -> list[int]:
    """Ids of the image and video marks, from the config.json of a folder or of a model on the Hub."""
    from transformers import PretrainedConfig

    config, _ = PretrainedConfig.get_config_dict(checkpoint)
    return sorted({config[key] for key in MEDIA_TOKEN_KEYS if config.get(key) is not None})


def logit_bias(token_ids: Iterable[int]) -> dict[str, float]:
    """SGLang's sampling parameter `logit_bias` under which none of the tokens is ever sampled."""
    return {str(token): NEVER for token in token_ids}
