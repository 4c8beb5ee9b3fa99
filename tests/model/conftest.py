"""Fixtures of the model tests: a tiny checkpoint, images, samples, and one SGLang server for all tests."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from llavaonevision1_5 import sglang_environment, tiny
from llavaonevision1_5.modeling import LLaVAOneVision1_5_ForConditionalGeneration
from llavaonevision1_5.processing import LLaVAOneVision1_5_Processor
from sglang_cpu.process import running_server

torch.set_num_threads(1)


def make_image(seed: int, width: int = 56, height: int = 56) -> Image.Image:
    """An image of noise, different for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def to_base64(image: Image.Image) -> str:
    """The form in which AReaL sends images."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@dataclass
class Prompt:
    """An encoded prompt: `ids` with expanded image tokens, model inputs of its images, images for the server."""

    ids: list[int]
    pixels: dict[str, torch.Tensor]
    image_data: list[str]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights; they would sample image tokens, so those are suppressed as in the CPU runs."""
    config = tiny.build_config(suppress_media_tokens=True)
    return tiny.build_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), seed=0, config=config)


@pytest.fixture
def model(checkpoint: Path) -> LLaVAOneVision1_5_ForConditionalGeneration:
    return LLaVAOneVision1_5_ForConditionalGeneration.from_pretrained(checkpoint).eval()


@pytest.fixture(scope="session")
def processor(checkpoint: Path) -> LLaVAOneVision1_5_Processor:
    return LLaVAOneVision1_5_Processor.from_pretrained(checkpoint)


@pytest.fixture(scope="session")
def encode(processor: LLaVAOneVision1_5_Processor) -> Callable[..., Prompt]:
    """encode(text, images=()) -> Prompt"""

    def _encode(text: str, images: tuple[Image.Image, ...] = ()) -> Prompt:
        content = [*({"type": "image"} for _ in images), {"type": "text", "text": text}]
        messages = [{"role": "user", "content": content}]
        rendered = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        encoded = processor(images=list(images) or None, text=rendered, return_tensors="pt")
        pixels = {key: encoded[key] for key in ("pixel_values", "image_grid_thw") if key in encoded}
        return Prompt(encoded["input_ids"][0].tolist(), pixels, [to_base64(image) for image in images])

    return _encode


@pytest.fixture(scope="session")
def prompts(encode: Callable[..., Prompt]) -> list[Prompt]:
    """Text alone, one image, two images of different sizes, one wide image: of different lengths."""
    return [
        encode("How many legs has a cat?"),
        encode("Which digit is this?", (make_image(1),)),
        encode("What is the sum of the two digits?", (make_image(2), make_image(3, 84, 56))),
        encode("Read it.", (make_image(4, 140, 56),)),
    ]


@pytest.fixture(scope="session")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real SGLang server of the tiny checkpoint."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with running_server(
        checkpoint, log_path=log, options={"max-total-tokens": 16384}, environment=sglang_environment()
    ) as url:
        yield url
