"""The same for the Qwen-VL models, whose own processors in SGLang decode the ids and tokenise again.

It lives in this package because SGLang reads one external package of processors: a configuration of
LLaVA-OneVision-1.5 then serves a Qwen-VL checkpoint with nothing but another path.
"""

from __future__ import annotations

from typing import Any

import torch
from sglang.srt.layers.rotary_embedding import MRotaryEmbedding
from sglang.srt.managers.schedule_batch import MultimodalProcessorOutput
from sglang.srt.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from sglang.srt.models.qwen2_vl import Qwen2VLForConditionalGeneration
from sglang.srt.models.qwen3_vl import Qwen3VLForConditionalGeneration

from llavaonevision1_5.sglang_processor.processor import LLaVAOneVision1_5_SGLangProcessor


class QwenVLSGLangProcessor(LLaVAOneVision1_5_SGLangProcessor):
    """Prepares images and keeps token ids, and adds the three-dimensional positions by SGLang's own function."""

    models = [  # noqa: RUF012 - read by SGLang
        Qwen2VLForConditionalGeneration,
        Qwen2_5_VLForConditionalGeneration,
        Qwen3VLForConditionalGeneration,
    ]

    async def process_mm_data_async(self, *args: Any, **kwargs: Any) -> MultimodalProcessorOutput:
        """As for LLaVA-OneVision-1.5, with `mrope_positions` `[3, seq]`. Raises ValueError for a video."""
        if getattr(kwargs.get("request_obj"), "video_data", None):
            raise ValueError("videos are not supported; pass their frames as images")
        output = await super().process_mm_data_async(*args, **kwargs)
        config = self.hf_config
        grids = [item.model_specific_data["image_grid_thw"] for item in output.mm_items]
        positions, output.mrope_position_delta = MRotaryEmbedding.get_rope_index(
            spatial_merge_size=config.vision_config.spatial_merge_size,
            image_token_id=config.image_token_id,
            video_token_id=config.video_token_id,
            vision_start_token_id=config.vision_start_token_id,
            model_type=config.model_type,
            tokens_per_second=getattr(config.vision_config, "tokens_per_second", None),
            input_ids=torch.tensor([output.input_ids]),
            image_grid_thw=torch.cat(grids) if grids else None,
        )
        output.mrope_positions = positions.squeeze(1)
        return output
