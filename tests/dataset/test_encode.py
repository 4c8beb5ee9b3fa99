import base64
import io

import pytest
import torch
from PIL import Image

from dataset.encode import encode_prompt, image_limits, prompt_length, prompt_length_bound
from dataset.images import ImageError, smart_size, upright_size
from dataset.prompts import LAYOUTS, PromptConfig, render_problem
from tests.dataset.conftest import make_image, make_row
from utils.sample import Sample


def sample_with(images, problem=None, **changes):
    problem = "<image>" * len(images) + "What?" if problem is None else problem
    return Sample.from_row(make_row(images=images, problem=problem, **changes))


def test_trainer_and_server_see_identical_patches(processor):
    # The server decodes the base64 PNG and runs its own processor on it; sizes that need resizing matter most.
    images = [make_image(1, 300, 200), make_image(2, 61, 47), make_image(3)]
    encoded = encode_prompt(processor, sample_with(images))
    received = [Image.open(io.BytesIO(base64.b64decode(data))) for data in encoded.image_data]
    server = processor.image_processor(received, return_tensors="pt")
    assert torch.equal(server["pixel_values"], encoded.pixel_values)
    assert torch.equal(server["image_grid_thw"], encoded.image_grid_thw)
    assert [image.size for image in received] == list(encoded.image_sizes)


def test_pads_match_features_and_text_is_the_rendered_prompt(processor):
    sample = sample_with([make_image(1), make_image(2, 112, 56)], "Compare <image> with <image>!")
    encoded = encode_prompt(processor, sample)
    assert encoded.input_ids.count(processor.image_token_id) == 4 + 8
    assert encoded.multi_modal_input["pixel_values"].shape == (16 + 32, 588)
    text = processor.tokenizer.decode(encoded.input_ids)
    rendered = render_problem(sample)
    assert rendered.split("<image>")[0] in text
    assert rendered.split("<image>")[-1] in text
    assert text.endswith("<|im_start|>assistant\n")


def test_text_only_prompts_have_no_tensors(processor):
    encoded = encode_prompt(processor, sample_with([], "1+1?"))
    assert encoded.image_data == []
    assert encoded.multi_modal_input == {}
    assert processor.image_token_id not in encoded.input_ids


def test_stored_bytes_and_decoded_images_encode_alike(processor):
    row = make_row(images=[make_image(4, 90, 130)])
    stored = make_row(images=[{"bytes": png(make_image(4, 90, 130)), "path": None}])
    one, two = (encode_prompt(processor, Sample.from_row(r)) for r in (row, stored))
    assert one.image_data == two.image_data
    assert torch.equal(one.pixel_values, two.pixel_values)


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def test_max_pixels_only_lowers_the_processors_limit(processor):
    big = make_image(1, 600, 600)
    default = encode_prompt(processor, sample_with([big]))
    lowered = encode_prompt(processor, sample_with([big]), max_pixels=28 * 28 * 16)
    assert lowered.image_sizes == (smart_size(600, 600, max_pixels=28 * 28 * 16),)
    assert lowered.image_sizes < default.image_sizes
    assert default.image_sizes == encode_prompt(processor, sample_with([big]), max_pixels=10**9).image_sizes
    assert default.image_sizes[0][0] * default.image_sizes[0][1] <= image_limits(processor).max_pixels


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("prompt_type", ["answer", "think"])
@pytest.mark.parametrize("sizes", [[], [(56, 56)], [(300, 200), (61, 47)]])
def test_length_from_sizes_is_exact_and_bounded(processor, sizes, prompt_type, layout):
    images = [make_image(i, *size) for i, size in enumerate(sizes)]
    sample = sample_with(images, prompt_type=prompt_type, problem="<image>" * len(images) + "Où est \u4e2d?")
    options = {"prompts": PromptConfig(layout, format_guidance=True), "max_pixels": 28 * 28 * 20}
    exact = len(encode_prompt(processor, sample, **options).input_ids)
    stored = [upright_size(image) for image in images]
    assert prompt_length(processor, sample, stored, **options) == exact
    assert exact <= prompt_length_bound(processor, sample, stored, **options) <= exact + 200


def test_a_media_token_in_the_question_is_refused(processor):
    with pytest.raises(ValueError, match=r"set/00000|image marks"):
        encode_prompt(processor, sample_with([make_image(1)], "<image>what is <|image_pad|>?"))


def test_corrupt_image_names_the_sample(processor):
    with pytest.raises(ImageError, match="set/00000"):
        encode_prompt(processor, sample_with([{"bytes": b"broken", "path": None}]))
