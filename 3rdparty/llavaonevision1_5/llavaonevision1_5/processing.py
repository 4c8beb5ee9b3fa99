"""Processor of LLaVA-OneVision-1.5: images to patches, chat messages to text, image marks to image tokens.

Trainer and server both prepare images here, so both see the same pixels. Nothing needs torchvision.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, BatchFeature, ProcessorMixin
from transformers.image_utils import make_flat_list_of_images, to_numpy_array
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor, smart_resize

from llavaonevision1_5 import shims
from llavaonevision1_5.configuration import LLaVAOneVision1_5_Config

IMAGE_TOKEN = "<|image_pad|>"
VIDEO_TOKEN = "<|video_pad|>"
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') or 'image' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
    "{% endif %}"
    "<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _to_rgb(image: Any) -> Image.Image:
    """A PIL RGB image from PIL, numpy or torch (values 0 to 255); transparency is dropped onto black."""
    if not isinstance(image, Image.Image):
        array = to_numpy_array(image)
        if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[-1] not in (1, 3, 4):
            array = array.transpose(1, 2, 0)
        image = Image.fromarray(
            array.astype(np.uint8).squeeze(-1) if array.shape[-1:] == (1,) else array.astype(np.uint8)
        )
    return image if image.mode == "RGB" else image.convert("RGB")


class LLaVAOneVision1_5_ImageProcessor(Qwen2VLImageProcessor):
    """The Qwen2-VL image processor with one frame per patch: the same settings, resizing and patch order.

    Patches are cut while pixels are still bytes and normalised once, which takes a fifth of the time that
    the original needs for a photograph. `size` bounds the pixels per image after resizing to multiples of
    28: `shortest_edge` pixels at least, `longest_edge` pixels at most.
    """

    def __init__(self, temporal_patch_size: int = 1, **kwargs: Any) -> None:
        if temporal_patch_size != 1:
            raise ValueError(f"temporal_patch_size must be 1 for this model, got {temporal_patch_size}")
        super().__init__(temporal_patch_size=1, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The published form, which names the stock class."""
        return {**super().to_dict(), "image_processor_type": "Qwen2VLImageProcessor"}

    def patches(
        self, image: Image.Image, min_pixels: int, max_pixels: int
    ) -> tuple[torch.Tensor, tuple[int, int, int]]:
        """Patches `[height * width, 588]`, float32, in merge-block order, and the grid (1, height, width)."""
        size, merge = self.patch_size, self.merge_size
        width, height = image.size
        if self.do_resize:
            height, width = smart_resize(height, width, size * merge, min_pixels, max_pixels)
            if (width, height) != image.size:
                image = image.resize((width, height), resample=self.resample)
        pixels = torch.from_numpy(np.array(image))
        rows, columns = height // size, width // size
        blocks = pixels.view(rows // merge, merge, size, columns // merge, merge, size, 3)
        patches = blocks.permute(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, 3, size * size).float()
        scale = self.rescale_factor if self.do_rescale else 1.0
        if self.do_normalize:
            mean = torch.tensor(self.image_mean).view(3, 1)
            std = torch.tensor(self.image_std).view(3, 1)
            patches.mul_(scale / std).sub_(mean / std)
        elif self.do_rescale:
            patches.mul_(scale)
        return patches.flatten(1), (1, rows, columns)

    def preprocess(
        self,
        images: Any,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """`pixel_values` `[patches of all images, 588]` and `image_grid_thw` `[images, 3]`."""
        del kwargs  # settings belong to the checkpoint; only the pixel budget may vary by call
        min_pixels = min_pixels or self.size["shortest_edge"]
        max_pixels = max_pixels or self.size["longest_edge"]
        results = [
            self.patches(_to_rgb(image), min_pixels, max_pixels) for image in make_flat_list_of_images(images)
        ]
        data = {
            "pixel_values": torch.cat([patches for patches, _ in results]),
            "image_grid_thw": torch.tensor([grid for _, grid in results], dtype=torch.long),
        }
        return BatchFeature(data=data, tensor_type=return_tensors)


class LLaVAOneVision1_5_Processor(ProcessorMixin):
    """Image processor, tokenizer and chat template in one object."""

    def __init__(
        self,
        image_processor: LLaVAOneVision1_5_ImageProcessor | None = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        del kwargs  # processor_config.json of other versions may hold more
        self.image_token = IMAGE_TOKEN
        self.video_token = VIDEO_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.video_token_id = tokenizer.convert_tokens_to_ids(VIDEO_TOKEN)
        template = chat_template or getattr(tokenizer, "chat_template", None) or CHAT_TEMPLATE
        super().__init__(image_processor, tokenizer, chat_template=template)

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: str, processor_dict: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        """The parts of a checkpoint, without the Auto classes: those insist on torchvision for some."""
        del processor_dict
        kwargs.pop("use_fast", None)  # SGLang and AReaL pass it; there is one image processor here
        image_processor = LLaVAOneVision1_5_ImageProcessor.from_pretrained(
            pretrained_model_name_or_path, **kwargs
        )
        # A configuration is given because AutoTokenizer would otherwise follow config.json's auto_map, and ask
        # on the terminal whether it may; it reads nothing but the model type.
        kwargs["config"] = LLaVAOneVision1_5_Config()
        tokenizer = AutoTokenizer.from_pretrained(pretrained_model_name_or_path, **kwargs)
        return [image_processor, tokenizer]

    def expand_image_tokens(self, text: str, counts: Sequence[int]) -> str:
        """Repeat each image mark as often as its image has tokens.

        Raises ValueError unless there are as many marks as counts.
        """
        pieces = text.split(self.image_token)
        if len(pieces) - 1 != len(counts):
            raise ValueError(f"{len(pieces) - 1} image marks in the text, but {len(counts)} images")
        expanded = pieces[0]
        for piece, count in zip(pieces[1:], counts, strict=True):
            expanded += self.image_token * count + piece
        return expanded

    def __call__(
        self,
        images: Any = None,
        text: str | list[str] | None = None,
        videos: Any = None,
        *,
        padding: bool | str = False,
        return_tensors: str | None = None,
        return_mm_token_type_ids: bool = True,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Token ids of `text`, image marks expanded, and the patches of `images` in order of their marks.

        `text` holds one mark per image (`<|image_pad|>`), as `apply_chat_template` writes it. Returns
        `input_ids`, `attention_mask`, `mm_token_type_ids` (1 at image tokens) and, with images,
        `pixel_values` and `image_grid_thw`. Raises ValueError when marks and images differ in number.
        """
        if videos is not None:
            raise ValueError("videos are not supported; pass their frames as images")
        if text is None:
            raise ValueError("text is needed")
        texts = [text] if isinstance(text, str) else list(text)
        data: dict[str, Any] = {}
        counts: list[int] = []
        if images is not None and len(flat := make_flat_list_of_images(images)) > 0:
            data |= self.image_processor(flat, min_pixels=min_pixels, max_pixels=max_pixels)
            counts = (data["image_grid_thw"].prod(-1) // self.image_processor.merge_size**2).tolist()
        marks = [t.count(self.image_token) for t in texts]
        if sum(marks) != len(counts):
            raise ValueError(f"{sum(marks)} image marks in the text, but {len(counts)} images")
        remaining = iter(counts)
        texts = [
            self.expand_image_tokens(t, [next(remaining) for _ in range(n)])
            for t, n in zip(texts, marks, strict=True)
        ]
        tokens = self.tokenizer(texts, padding=padding, **kwargs)
        if return_mm_token_type_ids:
            tokens["mm_token_type_ids"] = [
                [int(token == self.image_token_id) for token in ids] for ids in tokens["input_ids"]
            ]
        return BatchFeature(data={**tokens, **data}, tensor_type=return_tensors)

    @property
    def model_input_names(self) -> list[str]:
        return [*super().model_input_names, "mm_token_type_ids"]

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """As in transformers, plus `preprocessor_config.json` (the published place) and the shims."""
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        self.image_processor.save_pretrained(save_directory)
        shims.write(save_directory)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoProcessor") -> None:
        """Nothing: transformers would copy source files into every checkpoint; `shims.write` does better."""
