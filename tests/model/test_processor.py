"""Processor: the pixels of the stock image processor, exact expansion of image marks, no torchvision."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from llavaonevision1_5.processing import LLaVAOneVision1_5_ImageProcessor


def noise(seed, height, width, mode="RGB"):
    channels = {"RGB": 3, "RGBA": 4, "L": 1}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels, mode=mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize(("height", "width"), [(56, 56), (84, 140), (100, 37), (8, 8), (300, 500)])
def test_pixels_equal_the_stock_image_processor(height, width, mode):
    size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 100}
    image = noise(0, height, width, mode)
    expected = Qwen2VLImageProcessor(temporal_patch_size=1, size=dict(size))(
        images=[image], return_tensors="pt"
    )
    got = LLaVAOneVision1_5_ImageProcessor(size=dict(size))(images=[image])
    assert got["image_grid_thw"].tolist() == expected["image_grid_thw"].tolist()
    assert got["pixel_values"].dtype == torch.float32
    torch.testing.assert_close(got["pixel_values"], expected["pixel_values"], atol=1e-5, rtol=0)


def test_several_images_are_the_images_in_order(processor):
    images = [noise(1, 56, 56), noise(2, 84, 56), noise(3, 56, 112)]
    together = processor.image_processor(images)
    alone = [processor.image_processor(image) for image in images]
    assert together["image_grid_thw"].tolist() == [[1, 4, 4], [1, 6, 4], [1, 4, 8]]
    assert torch.equal(together["pixel_values"], torch.cat([one["pixel_values"] for one in alone]))


def test_pixel_budget_can_vary_by_call(processor):
    image = noise(1, 280, 280)
    small = processor.image_processor(image, max_pixels=56 * 56)
    assert small["image_grid_thw"].tolist() == [[1, 4, 4]]
    assert processor.image_processor(image)["image_grid_thw"].tolist() == [[1, 16, 16]]


def test_temporal_patches_are_refused():
    with pytest.raises(ValueError, match="temporal_patch_size must be 1 for this model, got 2"):
        LLaVAOneVision1_5_ImageProcessor(temporal_patch_size=2)


def test_image_marks_are_expanded_in_order(processor):
    image_token = processor.image_token_id
    text = "a<|vision_start|><|image_pad|><|vision_end|>b<|vision_start|><|image_pad|><|vision_end|>c"
    encoded = processor(images=[noise(1, 56, 56), noise(2, 56, 112)], text=text, return_tensors="pt")
    ids = encoded["input_ids"][0].tolist()
    start, end = (
        processor.tokenizer.convert_tokens_to_ids(t) for t in ("<|vision_start|>", "<|vision_end|>")
    )
    expected = [ord("a"), start, *[image_token] * 4, end, ord("b"), start, *[image_token] * 8, end, ord("c")]
    assert ids == expected
    assert encoded["mm_token_type_ids"][0].tolist() == [int(token == image_token) for token in expected]


@pytest.mark.parametrize(
    ("text", "num_images", "message"),
    [
        ("<|image_pad|>", 0, "1 image marks in the text, but 0 images"),
        ("no mark", 1, "0 image marks in the text, but 1 images"),
        ("<|image_pad|><|image_pad|>", 1, "2 image marks in the text, but 1 images"),
    ],
)
def test_marks_and_images_must_agree(processor, text, num_images, message):
    with pytest.raises(ValueError, match=message):
        processor(images=[noise(i, 56, 56) for i in range(num_images)], text=text)


def test_chat_template(processor):
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Look: "}, {"type": "image"}, {"type": "text", "text": "?"}],
        },
        {"role": "assistant", "content": "7"},
    ]
    assert processor.apply_chat_template(messages, tokenize=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nLook: <|vision_start|><|image_pad|><|vision_end|>?<|im_end|>\n"
        "<|im_start|>assistant\n7<|im_end|>\n"
    )
    prompt = processor.apply_chat_template(messages[1:2], tokenize=False, add_generation_prompt=True)
    assert prompt.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
    assert prompt.endswith("<|im_start|>assistant\n")


def test_save_and_reload(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path, trust_remote_code=True, use_fast=True)
    assert type(again) is type(processor)
    text, image = "<|image_pad|> ?", noise(5, 80, 60)
    before, after = (p(images=[image], text=text, return_tensors="pt") for p in (processor, again))
    assert before["input_ids"].tolist() == after["input_ids"].tolist()
    assert torch.equal(before["pixel_values"], after["pixel_values"])


def test_works_without_torchvision(checkpoint):
    program = f"""
        import importlib.util
        import sys

        class NoTorchvision:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "torchvision":
                    raise ModuleNotFoundError("torchvision is absent", name="torchvision")

        sys.meta_path.insert(0, NoTorchvision())
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "torchvision" else find(name, *rest)
        from PIL import Image
        from transformers import AutoProcessor
        processor = AutoProcessor.from_pretrained({str(checkpoint)!r}, trust_remote_code=True)
        out = processor(images=[Image.new("RGB", (56, 56))], text="<|image_pad|>", return_tensors="pt")
        assert out["pixel_values"].shape == (16, 588)
        assert "torchvision" not in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
