"""A sample as the model reads it: token ids, pixel tensors for the trainer, base64 images for the server.

The training workflow, curation, warm start and evaluation all call `encode_prompt`, once per prompt and not
once per rollout, so every part of the system measures the same task on the same pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from PIL import Image

from dataset.images import decode_image, resize_to_limits, smart_size, to_base64_png
from dataset.prompts import DEFAULT_PROMPTS, PromptConfig, frame, render_problem, to_messages
from utils.sample import IMAGE_MARK, Sample

DEFAULT_MIN_PIXELS = 56 * 56
DEFAULT_MAX_PIXELS = 3_240_000  # the recipe's evaluation limit


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What the processor's image side wants: sizes in multiples of `factor`, area in pixels within the
    limits.
    """

    factor: int = 28  # patch size x merge size: one language-model token covers factor x factor pixels
    min_pixels: int = DEFAULT_MIN_PIXELS
    max_pixels: int = DEFAULT_MAX_PIXELS

    def num_tokens(self, width: int, height: int) -> int:
        """Language-model tokens of an image of this stored size, after resizing to the limits."""
        width, height = smart_size(
            width, height, factor=self.factor, min_pixels=self.min_pixels, max_pixels=self.max_pixels
        )
        return (width // self.factor) * (height // self.factor)


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """One encoded prompt; the tensors are shared by all rollouts of its group."""

    input_ids: list[int]  # [seq]; image pads expanded, generation prompt included
    image_data: list[str]  # base64 PNG per image, already at the model's size: SGLang's `image_data`
    text: str  # the rendered chat text, one image pad per image
    pixel_values: Any = None  # float tensor [num_patches, 3 * patch * patch] over all images, or None
    image_grid_thw: Any = None  # int64 tensor [num_images, 3], patches; or None
    mm_token_type_ids: list[int] | None = None  # [seq]; only where the processor makes it (Qwen2.5-VL)
    image_sizes: tuple[tuple[int, int], ...] = field(default=())  # (width, height) that the model sees

    @property
    def multi_modal_input(self) -> dict[str, Any]:
        """The entry of AReaL's `multi_modal_input` list; empty for text-only prompts."""
        if self.pixel_values is None:
            return {}
        return {"pixel_values": self.pixel_values, "image_grid_thw": self.image_grid_thw}


def image_limits(processor: Any, max_pixels: int | None = None) -> ImageLimits:
    """The limits of a processor; `max_pixels` can only lower them, for the server applies its own as well."""
    image_processor = processor.image_processor
    size = getattr(image_processor, "size", None) or {}
    lower = size.get("shortest_edge") or getattr(image_processor, "min_pixels", None) or DEFAULT_MIN_PIXELS
    upper = size.get("longest_edge") or getattr(image_processor, "max_pixels", None) or DEFAULT_MAX_PIXELS
    return ImageLimits(
        factor=image_processor.patch_size * image_processor.merge_size,
        min_pixels=lower,
        max_pixels=upper if max_pixels is None else min(upper, max_pixels),
    )


def encode_prompt(
    processor: Any,
    sample: Sample,
    *,
    prompts: PromptConfig = DEFAULT_PROMPTS,
    max_pixels: int | None = None,
) -> EncodedPrompt:
    """Encode one sample with a Hugging Face processor (LLaVA-OneVision-1.5, Qwen2-VL family).

    Raises ``ValueError`` naming the sample when marks and images disagree in number, when an image cannot be
    decoded (``ImageError``), or when the image pads among the ids do not match the image features.
    """
    messages = to_messages(sample, prompts)
    return encode_messages(processor, messages, prepare_images(processor, sample, max_pixels), sample.id)


def encode_messages(
    processor: Any, messages: list[dict], images: list[Image.Image], sample_id: str
) -> EncodedPrompt:
    """Encode chat messages whose `{"type": "image"}` parts stand for `images`, in order, RGB and at the model's size
    already (`resize_to_limits`). Raises ``ValueError`` as `encode_prompt` does.
    """
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=images or None, padding=False, return_tensors="pt")
    input_ids = inputs["input_ids"][0].tolist()
    grid = inputs["image_grid_thw"] if images else None
    _check_image_tokens(processor, sample_id, input_ids, images)
    token_types = inputs.get("mm_token_type_ids")
    return EncodedPrompt(
        input_ids=input_ids,
        image_data=[to_base64_png(image) for image in images],
        text=text,
        pixel_values=inputs["pixel_values"] if images else None,
        image_grid_thw=grid,
        mm_token_type_ids=None if token_types is None else token_types[0].tolist(),
        image_sizes=tuple(image.size for image in images),
    )


def prepare_images(processor: Any, sample: Sample, max_pixels: int | None = None) -> list[Image.Image]:
    """The sample's images decoded, RGB and at the size the model sees them; both processors then keep
    them.
    """
    limits = image_limits(processor, max_pixels)
    return [
        resize_to_limits(
            decode_image(image, sample.id),
            factor=limits.factor,
            min_pixels=limits.min_pixels,
            max_pixels=limits.max_pixels,
        )
        for image in sample.images
    ]


def prompt_length(
    processor: Any,
    sample: Sample,
    image_sizes: Sequence[tuple[int, int]],
    *,
    prompts: PromptConfig = DEFAULT_PROMPTS,
    max_pixels: int | None = None,
) -> int:
    """Exact number of prompt tokens, from stored image sizes (width, height) alone: nothing is decoded."""
    text = processor.apply_chat_template(
        to_messages(sample, prompts), tokenize=False, add_generation_prompt=True
    )
    limits = image_limits(processor, max_pixels)
    # each image has one pad in the text
    num_text = len(processor.tokenizer(text)["input_ids"]) - len(image_sizes)
    return num_text + sum(limits.num_tokens(*size) for size in image_sizes)


def prompt_length_bound(
    processor: Any,
    sample: Sample,
    image_sizes: Sequence[tuple[int, int]],
    *,
    prompts: PromptConfig = DEFAULT_PROMPTS,
    max_pixels: int | None = None,
) -> int:
    """An upper bound of `prompt_length` without tokenising: a byte-level token covers at least one byte of
    text.
    """
    body = render_problem(sample, prompts)
    limits = image_limits(processor, max_pixels)
    frame_bytes, image_bytes = _template_bytes(processor, prompts)
    num_bytes = len(body.encode()) - len(IMAGE_MARK) * len(image_sizes) + frame_bytes
    return num_bytes + sum(image_bytes + limits.num_tokens(*size) for size in image_sizes)


@lru_cache(maxsize=8)
def _template_bytes(processor: Any, prompts: PromptConfig) -> tuple[int, int]:
    """Bytes that the chat template and the layout's system message add around a user turn, and per image."""
    before = frame("answer", config=prompts).messages

    def rendered(*parts: dict) -> int:
        messages = [*before, {"role": "user", "content": [*parts, {"type": "text", "text": "x"}]}]
        return len(
            processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True).encode()
        )

    around = rendered() - 1
    return around, rendered({"type": "image"}) - 1 - around


def _check_image_tokens(
    processor: Any, sample_id: str, input_ids: list[int], images: list[Image.Image]
) -> None:
    # A special token written out in the question would become a real one and shift every feature after it.
    limits = image_limits(processor)
    num_pixels = sum(image.width * image.height for image in images)
    expected = num_pixels // limits.factor**2
    pad = getattr(processor, "image_token_id", None)
    if pad is None:
        pad = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    found = input_ids.count(pad)
    if found != expected:
        raise ValueError(
            f"sample {sample_id}: {found} image tokens in the prompt but {expected} image features; "
            f"does the question contain {processor.tokenizer.convert_ids_to_tokens(pad)!r}?"
        )
