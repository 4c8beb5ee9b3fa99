"""SGLang's Qwen-VL models, which forget image features with every update of weights.

Their own classes leave the cache as it is: after an update of the vision tower an image seen before would be answered
by the old one.
"""

from __future__ import annotations

from typing import Any

from sglang.srt.models import qwen2_5_vl, qwen2_vl, qwen3_vl

from llavaonevision1_5.sglang_model.model import clear_image_embedding_cache


class Qwen2VLForConditionalGeneration(qwen2_vl.Qwen2VLForConditionalGeneration):
    def load_weights(self, *args: Any, **kwargs: Any) -> Any:
        clear_image_embedding_cache()
        return super().load_weights(*args, **kwargs)


class Qwen2_5_VLForConditionalGeneration(qwen2_5_vl.Qwen2_5_VLForConditionalGeneration):
    def load_weights(self, *args: Any, **kwargs: Any) -> Any:
        clear_image_embedding_cache()
        return super().load_weights(*args, **kwargs)


class Qwen3VLForConditionalGeneration(qwen3_vl.Qwen3VLForConditionalGeneration):
    def load_weights(self, *args: Any, **kwargs: Any) -> Any:
        clear_image_embedding_cache()
        return super().load_weights(*args, **kwargs)


EntryClass = [
    Qwen2VLForConditionalGeneration,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
]
