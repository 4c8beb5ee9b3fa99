"""SGLang's side of the processor: images to patches, given token ids kept as they are.

SGLang's stock processors decode token ids to text, expand image marks and tokenise again. After an interrupted
generation the ids hold tokens that the model sampled, and text does not always come back as the same tokens:
the resumed sequence would no longer be the one the trainer sees. Here ids pass through untouched.

Accepted prompts, with N images:
- token ids whose image tokens are already expanded (what the trainer sends, also when it resumes);
- token ids or text with one mark per image, which is expanded.

An image is decoded and cut into patches once, however many requests carry it: a group of rollouts sends the
same image in each of its requests, mostly at the same time.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sglang.srt.managers.mm_utils import hash_feature
from sglang.srt.managers.schedule_batch import Modality, MultimodalDataItem, MultimodalProcessorOutput
from sglang.srt.multimodal.processors.base_processor import BaseMultimodalProcessor
from sglang.srt.utils import load_image

from llavaonevision1_5.patch_memory import SharedTensor
from llavaonevision1_5.sglang_model.model import LLaVAOneVision1_5_ForConditionalGeneration

CACHE_BYTES = 512 * 2**20
KEEP_SECONDS = 120.0  # a request that was sent off with patches may wait for the scheduler so long


@dataclass(frozen=True)
class Patches:
    """One prepared image: `pixel_values` `[patches, 588]`, `grid_thw` `[1, 3]`, and a hash of the pixels."""

    pixel_values: SharedTensor
    grid_thw: torch.Tensor
    num_tokens: int
    hash: int


def place_images(
    ids: Sequence[int], counts: Sequence[int], image_token_id: int
) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids with image tokens expanded, and first and last place of each image's tokens.

    `counts` are the tokens per image. Raises ValueError with the counts when ids and images do not match.

    >>> place_images([7, 9, 9, 8, 9], [2, 1], image_token_id=9)
    ([7, 9, 9, 8, 9], [(1, 2), (4, 4)])
    >>> place_images([7, 9, 8, 9], [2, 1], image_token_id=9)
    ([7, 9, 9, 8, 9], [(1, 2), (4, 4)])
    """
    ids = list(ids)
    places = [place for place, token in enumerate(ids) if token == image_token_id]
    if len(places) != sum(counts):
        if len(places) != len(counts):
            raise ValueError(
                f"the prompt has {len(places)} image tokens; {len(counts)} images need {sum(counts)} tokens "
                f"({list(counts)}) or one mark each"
            )
        remaining = iter(counts)
        ids = [
            t for token in ids for t in ([token] * next(remaining) if token == image_token_id else [token])
        ]
        places = [place for place, token in enumerate(ids) if token == image_token_id]
    offsets = []
    start = 0
    for index, count in enumerate(counts):
        first, last = places[start], places[start + count - 1]
        if last - first + 1 != count:
            raise ValueError(
                f"the {count} tokens of image {index} are not in one piece (from {first} to {last})"
            )
        offsets.append((first, last))
        start += count
    return ids, offsets


def feature_dtype(server_dtype: str, hf_config: Any) -> torch.dtype:
    """dtype in which patches travel to the scheduler: the one in which the tower will read them anyway.

    In bfloat16 this halves what a request carries (20 instead of 39 MB for a photograph at the pixel limit).
    """
    if server_dtype == "auto":
        dtype = hf_config.dtype
        return torch.bfloat16 if dtype in {torch.bfloat16, "bfloat16"} else torch.float32
    return torch.bfloat16 if server_dtype == "bfloat16" else torch.float32


class LLaVAOneVision1_5_SGLangProcessor(BaseMultimodalProcessor):
    models = [LLaVAOneVision1_5_ForConditionalGeneration]  # noqa: RUF012 - read by SGLang
    gpu_image_decode = False  # a GPU decoder gives other pixels than the trainer's PIL

    def __init__(self, hf_config: Any, server_args: Any, _processor: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(hf_config, server_args, _processor, *args, **kwargs)
        self._dtype = feature_dtype(server_args.dtype, hf_config)
        self._images: OrderedDict[str, asyncio.Future[Patches]] = OrderedDict()  # by time of use
        self._used: dict[str, float] = {}
        self._image_bytes = 0

    def _prepare(self, image: Any) -> Patches:
        pixels, _ = load_image(image, self.gpu_image_decode)
        features = self._processor.image_processor(pixels)
        grid = features["image_grid_thw"]
        merge = self.hf_config.vision_config.spatial_merge_size
        return Patches(
            pixel_values=SharedTensor(features["pixel_values"].to(self._dtype)),
            grid_thw=grid,
            num_tokens=int(grid.prod()) // merge**2,
            hash=hash_feature(features["pixel_values"]),
        )

    async def _patches(self, image: Any) -> Patches:
        """Patches of an image, shared by all requests that carry it, those in flight included."""
        loop = asyncio.get_running_loop()
        key = image if isinstance(image, str) else getattr(image, "url", None)
        if key is None:
            key = uuid.uuid4().hex  # pixels of the caller's: kept as long as a request may wait
        self._used[key] = time.monotonic()
        if key in self._images:
            self._images.move_to_end(key)
            return await asyncio.shield(self._images[key])
        future = loop.run_in_executor(self.io_executor, self._prepare, image)
        self._images[key] = future
        # whoever waits may be cancelled; the patches stay, for those who do not
        future.add_done_callback(lambda done: self._prepared(key, done))
        return await asyncio.shield(future)

    def _prepared(self, key: str, done: asyncio.Future[Patches]) -> None:
        if done.cancelled() or done.exception() is not None:
            del self._images[key], self._used[key]
            return
        self._image_bytes += done.result().pixel_values.num_bytes
        self._forget()

    def _forget(self) -> None:
        """Let go of the images that were used longest ago, as long as there are too many."""
        while self._image_bytes > CACHE_BYTES:
            oldest = next(iter(self._images))
            if not self._images[oldest].done() or time.monotonic() - self._used[oldest] < KEEP_SECONDS:
                break
            self._image_bytes -= self._images.pop(oldest).result().pixel_values.num_bytes
            del self._used[oldest]

    async def process_mm_data_async(
        self,
        image_data: Any,
        audio_data: Any = None,
        input_text: str | list[int] = "",
        request_obj: Any = None,
        **kwargs: Any,
    ) -> MultimodalProcessorOutput:
        """Prepared images and token ids of one request. Raises ValueError when they do not match in number."""
        images = image_data if isinstance(image_data, list) else [image_data]
        images = [image for image in images if image is not None]
        prepared = await asyncio.gather(*(self._patches(image) for image in images))
        ids = self._tokenizer(input_text).input_ids if isinstance(input_text, str) else input_text
        image_token_id = self.hf_config.image_token_id
        ids, offsets = place_images(ids, [patches.num_tokens for patches in prepared], image_token_id)
        items = [
            MultimodalDataItem(
                modality=Modality.IMAGE,
                feature=patches.pixel_values,
                offsets=[offset],
                hash=patches.hash,
                model_specific_data={"image_grid_thw": patches.grid_thw},
            )
            for patches, offset in zip(prepared, offsets, strict=True)
        ]
        return MultimodalProcessorOutput(mm_items=items, input_ids=ids, im_token_id=image_token_id)
