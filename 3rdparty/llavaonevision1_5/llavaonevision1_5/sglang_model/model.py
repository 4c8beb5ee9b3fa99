"""LLaVA-OneVision-1.5 as an SGLang model.

The language model is SGLang's own Qwen3 (tensor parallel). The vision tower is the very module the trainer
uses, whole on each rank: one implementation, so server and trainer agree on image features by construction.
Weights have the names they have on disk, for the first load, for `update_weights_from_disk` and for updates
over NCCL, which arrive in buckets of any composition.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sglang.srt.layers.logits_processor import LogitsProcessor
from sglang.srt.layers.quantization.base_config import QuantizationConfig
from sglang.srt.layers.vocab_parallel_embedding import ParallelLMHead
from sglang.srt.managers import mm_utils
from sglang.srt.managers.schedule_batch import MultimodalDataItem, MultimodalInputs
from sglang.srt.model_executor.forward_batch_info import ForwardBatch
from sglang.srt.model_loader.weight_utils import default_weight_loader
from sglang.srt.models.qwen3 import Qwen3Model
from sglang.srt.utils import add_prefix
from torch import nn

from llavaonevision1_5.configuration import SUPPRESSED_LOGIT, LLaVAOneVision1_5_Config
from llavaonevision1_5.vision import RiceVisionTower

# (part of a name on disk, part of the name of SGLang's fused parameter, shard)
FUSED = (
    (".q_proj.", ".qkv_proj.", "q"),
    (".k_proj.", ".qkv_proj.", "k"),
    (".v_proj.", ".qkv_proj.", "v"),
    (".gate_proj.", ".gate_up_proj.", 0),
    (".up_proj.", ".gate_up_proj.", 1),
)


def clear_image_embedding_cache() -> None:
    """Forget image features computed with older weights; SGLang's `flush_cache` leaves them in place."""
    if mm_utils.embedding_cache is not None:  # made after the first load of weights
        mm_utils.embedding_cache.clear()


class SuppressingLogitsProcessor(LogitsProcessor):
    """SGLang's logits with the media tokens taken out, as the trainer's model does with the same setting."""

    def __init__(self, config: LLaVAOneVision1_5_Config) -> None:
        super().__init__(config.text_config)
        self.register_buffer("media_token_ids", torch.tensor(config.media_token_ids), persistent=False)

    def _get_logits(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        logits = super()._get_logits(*args, **kwargs)
        return logits.index_fill_(-1, self.media_token_ids, SUPPRESSED_LOGIT)


class LLaVAOneVision1_5_ForConditionalGeneration(nn.Module):
    def __init__(
        self,
        config: LLaVAOneVision1_5_Config,
        quant_config: QuantizationConfig | None = None,
        prefix: str = "",
    ) -> None:
        super().__init__()
        self.config = config
        text_config = config.text_config
        self.visual = RiceVisionTower(config.vision_config)
        self.model = Qwen3Model(text_config, quant_config=quant_config, prefix=add_prefix("model", prefix))
        if config.tie_word_embeddings:
            self.lm_head = self.model.embed_tokens
        else:
            self.lm_head = ParallelLMHead(
                text_config.vocab_size,
                text_config.hidden_size,
                quant_config=quant_config,
                prefix=add_prefix("lm_head", prefix),
            )
        self.logits_processor = (
            SuppressingLogitsProcessor(config)
            if config.suppress_media_tokens
            else LogitsProcessor(text_config)
        )

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    def pad_input_ids(self, input_ids: list[int], mm_inputs: MultimodalInputs) -> list[int]:
        """Image tokens replaced by a value that stands for the image, so that the prefix cache tells images apart."""
        return mm_utils.MultiModalityDataPaddingPatternMultimodalTokens().pad_input_tokens(
            input_ids, mm_inputs
        )

    def get_image_feature(self, items: list[MultimodalDataItem]) -> torch.Tensor:
        """Features of all images of `items`, in order: `[image tokens, hidden]`."""
        device = self.visual.class_embedding.device
        pixel_values = torch.cat([item.feature for item in items]).to(device, self.visual.dtype)
        grid_thw = torch.cat([item.image_grid_thw for item in items])
        return self.visual(pixel_values, grid_thw)

    @torch.no_grad()  # as SGLang's own models
    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        forward_batch: ForwardBatch,
        get_embedding: bool = False,
    ) -> torch.Tensor:
        if get_embedding:
            raise ValueError("this model gives no embeddings; start the server without --is-embedding")
        hidden = mm_utils.general_mm_embed_routine(
            input_ids=input_ids,
            forward_batch=forward_batch,
            language_model=self.model,
            multimodal_model=self,
            positions=positions,
        )
        return self.logits_processor(input_ids, hidden, self.lm_head, forward_batch)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Load tensors by their names on disk, all of them or any part.

        Raises ValueError for a name that the model does not have: a silently skipped weight would leave the
        server with a policy that no trainer has.
        """
        clear_image_embedding_cache()
        parameters = dict(self.named_parameters(remove_duplicate=False))
        for name, tensor in weights:
            if name == "lm_head.weight" and self.config.tie_word_embeddings:
                continue
            target, shard = _place(name)
            if target not in parameters:
                raise ValueError(f"weight {name!r} has no place in this model (looked for {target!r})")
            parameter = parameters[target]
            loader = getattr(parameter, "weight_loader", default_weight_loader)
            if shard is None:
                loader(parameter, tensor)
            else:
                loader(parameter, tensor, shard)


def _place(name: str) -> tuple[str, str | int | None]:
    """Name of the parameter that holds the weight `name`, and the shard of it.

    >>> _place("model.layers.0.self_attn.k_proj.weight")
    ('model.layers.0.self_attn.qkv_proj.weight', 'k')
    >>> _place("visual.merger.ln_q.bias")
    ('visual.merger.ln_q.bias', None)
    """
    if name.startswith("model.layers."):
        for part, fused, shard in FUSED:
            if part in name:
                return name.replace(part, fused), shard
    return name, None


EntryClass = LLaVAOneVision1_5_ForConditionalGeneration
