"""LLaVA-OneVision-1.5 for transformers 5.3.0.

The language model is transformers' own Qwen3; the vision tower is in `vision.py`. Module names equal the
names on disk (`visual.*`, `model.*`, `lm_head.weight`), so loading, saving and weight updates need no mapping.

These forms of input give the same logits:

- one sequence, or a right-padded batch with a 2D `attention_mask`;
- several sequences packed into one row, told apart by `cu_seq_lens_q` (as AReaL passes it) or by `position_ids`
  that restart; packed sequences never see each other, whatever the attention implementation;
- rollouts that share their prompts, told apart by `shared_prompts` (see `shared_prompts.py`);
- any of these with images: `pixel_values` `[patches, 588]` and `image_grid_thw` `[images, 3]` of all images in
  the order of their tokens.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel, Qwen3Model
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast

from llavaonevision1_5 import attention, shims
from llavaonevision1_5.configuration import SUPPRESSED_LOGIT, LLaVAOneVision1_5_Config
from llavaonevision1_5.vision import RiceVisionTower

# What the language model may be given. A trainer's batch holds much more (losses, versions, rewards), which
# would otherwise travel through every layer and be cast by FSDP on the way into each.
_TEXT_KEYS = ("output_hidden_states", "output_attentions", "return_dict")


class LLaVAOneVision1_5_PreTrainedModel(PreTrainedModel):
    config_class = LLaVAOneVision1_5_Config
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _no_split_modules = ["Qwen3DecoderLayer", "RiceBlock"]  # noqa: RUF012 - read by transformers and AReaL
    _skip_keys_device_placement = "past_key_values"
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, RiceVisionTower):
            init.normal_(module.class_embedding, std=module.config.embed_dim**-0.5)
            init.normal_(module.class_pos_emb)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> None:
        """Nothing: transformers would copy source files into every checkpoint; `shims.write` does better."""


class LLaVAOneVision1_5_ForConditionalGeneration(LLaVAOneVision1_5_PreTrainedModel, GenerationMixin):
    """Vision tower, language model and head. See the module's docstring for the forms of input."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 - only if config ties

    def __init__(self, config: LLaVAOneVision1_5_Config) -> None:
        super().__init__(config)
        implementation = config._attn_implementation
        config.vision_config._attn_implementation = implementation
        # Under the name of `sdpa` transformers has no way to keep packed sequences apart at a sensible price.
        config.text_config._attn_implementation = (
            attention.NAME if implementation == "sdpa" else implementation
        )
        self.visual = RiceVisionTower(config.vision_config)
        self.model = Qwen3Model(config.text_config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm_head = new_embeddings

    def get_image_features(self, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor) -> torch.Tensor:
        """Embeddings of all images, one row per image token: `[patches / 4, hidden]`."""
        return self.visual(pixel_values, image_grid_thw)

    def embed(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None,
        image_grid_thw: torch.Tensor | None,
    ) -> torch.Tensor:
        """Token embeddings with image features in the places of image tokens: `[batch, seq, hidden]`.

        Without images the tower runs on one block of zeros and contributes zero: FSDP ranks that have images
        wait in the tower's collectives for those that have none, and gradients of its weights are zeros
        instead of missing. Raises ValueError when tokens and features do not match in number.
        """
        embeddings = self.model.embed_tokens(input_ids)
        is_image = input_ids == self.config.image_token_id
        num_tokens = int(is_image.sum())
        if pixel_values is None or pixel_values.shape[0] == 0:
            if num_tokens:
                raise ValueError(f"{num_tokens} image tokens in input_ids, but there are no pixel_values")
            return embeddings + self._empty_image_features(embeddings).sum() * 0.0
        if image_grid_thw is None:
            raise ValueError("pixel_values need image_grid_thw")
        features = self.get_image_features(pixel_values, image_grid_thw)
        if num_tokens != features.shape[0]:
            raise ValueError(
                f"{num_tokens} image tokens (id {self.config.image_token_id}) in input_ids, but "
                f"{image_grid_thw.shape[0]} images give {features.shape[0]} features; "
                f"image_grid_thw is {image_grid_thw.tolist()}"
            )
        features = features.to(embeddings.dtype)
        return embeddings.masked_scatter(is_image.unsqueeze(-1).expand_as(embeddings), features)

    def _empty_image_features(self, embeddings: torch.Tensor) -> torch.Tensor:
        merge = self.config.vision_config.spatial_merge_size
        pixels = embeddings.new_zeros(merge**2, self.config.vision_config.patch_dim)
        return self.visual(pixels, torch.tensor([[1, merge, merge]]))

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | dict[str, Any] | None = None,
        position_ids: torch.Tensor | None = None,
        *,
        past_key_values: Any | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        cache_position: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        cu_seq_lens_q: torch.Tensor | None = None,
        shared_prompts: tuple | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits `[batch, seq, vocab]`; only the last `logits_to_keep`, or those at its indices, if given.

        `cu_seq_lens_q` (`[sequences + 1]`, first 0, last seq) says where the sequences of one packed row begin.
        `shared_prompts` (units of `shared_prompts.py`) lays out a row in which several answers follow one prompt; it
        needs `position_ids`. `mm_token_type_ids` is what processors of this family add; positions are one-dimensional
        here, so the model has no use for it.
        """
        del mm_token_type_ids
        if kwargs.get("pixel_values_videos") is not None:
            raise ValueError("videos are not supported; pass their frames as images")
        if inputs_embeds is None:
            if past_key_values is not None and past_key_values.get_seq_length() > 0:
                inputs_embeds = self.model.embed_tokens(input_ids)  # a decoding step: images are in the cache
            else:
                inputs_embeds = self.embed(input_ids, pixel_values, image_grid_thw)
        if isinstance(attention_mask, dict):
            attention_mask = None  # AReaL's way to say: no mask, the row is packed
        text_inputs = {key: kwargs[key] for key in _TEXT_KEYS if kwargs.get(key) is not None}
        is_plain = cu_seq_lens_q is None and attention_mask is None and past_key_values is None
        if is_plain and shared_prompts is None:
            cu_seq_lens_q = _bounds_if_packed(position_ids, num_rows=inputs_embeds.shape[0])
        if shared_prompts is not None:
            text_inputs |= {"attention_mask": {"full_attention": None}, "position_ids": position_ids}
            text_inputs["shared_prompts"] = shared_prompts
            use_cache = False
        elif cu_seq_lens_q is not None:
            text_inputs |= self._packed_inputs(inputs_embeds.shape[1], position_ids, cu_seq_lens_q)
            use_cache = False  # a cache would make transformers build a mask that ignores the packing
        else:
            text_inputs |= {"attention_mask": attention_mask, "position_ids": position_ids}
        outputs = self.model(
            inputs_embeds=inputs_embeds,
            past_key_values=past_key_values,
            use_cache=use_cache,
            cache_position=cache_position,
            **text_inputs,
        )
        hidden = outputs.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden[:, kept, :])
        # A trainer's output layer may return scores of tokens or values in place of logits.
        if self.config.suppress_media_tokens and logits.shape[-1] == self.config.vocab_size:
            media = torch.tensor(self.config.media_token_ids, device=logits.device)
            logits = logits.index_fill_(-1, media, SUPPRESSED_LOGIT)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _packed_inputs(
        self, num_tokens: int, position_ids: torch.Tensor | None, cu_seqlens: torch.Tensor
    ) -> dict[str, Any]:
        """Mask, positions and segment bounds of a packed row, in the form the attention implementation reads."""
        lengths = attention.segment_lengths_of(cu_seqlens)
        if sum(lengths) != num_tokens:
            raise ValueError(
                f"cu_seq_lens_q ends at {sum(lengths)}, but the packed row has {num_tokens} tokens"
            )
        restarting = torch.cat([torch.arange(n, device=cu_seqlens.device) for n in lengths]).unsqueeze(0)
        no_mask = {"full_attention": None}
        implementation = self.config.text_config._attn_implementation or ""
        if "flash" in implementation:
            bounds = cu_seqlens.to(torch.int32)
            return {
                "attention_mask": no_mask,
                "position_ids": restarting if position_ids is None else position_ids,
                "cu_seq_lens_q": bounds,
                "cu_seq_lens_k": bounds,
                "max_length_q": max(lengths),
                "max_length_k": max(lengths),
            }
        if implementation == attention.NAME:
            return {
                "attention_mask": no_mask,
                "position_ids": restarting if position_ids is None else position_ids,
                "segment_lengths": lengths,
            }
        # eager, flex: transformers builds a block-causal mask itself where positions restart.
        return {"attention_mask": None, "position_ids": restarting}

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        is_first_iteration: bool = False,
        use_cache: bool = True,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As in transformers; images go in with the prompt and not again."""
        inputs = super().prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, use_cache=use_cache, **kwargs
        )
        inputs.pop("mm_token_type_ids", None)
        if is_first_iteration or not use_cache:
            inputs |= {"pixel_values": pixel_values, "image_grid_thw": image_grid_thw}
        return inputs

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """As in transformers, and the folder then loads through this package (see `shims`)."""
        super().save_pretrained(save_directory, **kwargs)
        if kwargs.get("is_main_process", True):
            shims.write(save_directory)


def _bounds_if_packed(position_ids: torch.Tensor | None, num_rows: int) -> torch.Tensor | None:
    """Segment bounds of one row whose position ids restart; None for anything else."""
    if position_ids is None or num_rows != 1 or position_ids.shape[-1] <= 1:
        return None
    bounds = attention.bounds_from_position_ids(position_ids)
    return bounds if len(bounds) > 2 else None
