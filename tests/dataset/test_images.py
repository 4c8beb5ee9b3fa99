import base64
import io

import numpy as np
import pytest
from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from dataset.images import (
    ImageError,
    decode_image,
    resize_to_limits,
    smart_size,
    to_base64_png,
    to_png_bytes,
    upright_size,
)
from tests.dataset.conftest import make_image


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def test_png_is_lossless():
    image = make_image(1, 70, 40)
    assert decode_image({"bytes": to_png_bytes(image), "path": None}).tobytes() == image.tobytes()
    assert decode_image(base64.b64decode(to_base64_png(image))).tobytes() == image.tobytes()


def test_a_path_is_read(tmp_path):
    make_image(1).save(tmp_path / "a.png")
    assert decode_image({"bytes": None, "path": str(tmp_path / "a.png")}).size == (56, 56)


def test_exif_orientation_is_applied_to_pixels_and_size():
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 40, 5))  # a white bar along the top
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise: the bar is then on the right
    data = encode(image, "PNG", exif=exif)
    decoded = decode_image(data)
    assert decoded.size == upright_size(data) == (20, 40)
    assert decoded.getpixel((19, 20)) == (255, 255, 255)
    assert decoded.getpixel((0, 20)) == (0, 0, 0)


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "LA", "RGBA"]
)
def test_every_mode_becomes_rgb(mode):
    image = Image.new(mode, (30, 20))
    assert decode_image(image).mode == "RGB"


def test_transparency_lies_over_white():
    clear = Image.new("RGBA", (28, 28), (255, 0, 0, 0))
    assert decode_image(encode(clear)).getpixel((5, 5)) == (255, 255, 255)
    palette = Image.new("P", (28, 28), 0)
    palette.putpalette([10, 20, 30])
    assert decode_image(encode(palette, transparency=0)).getpixel((5, 5)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    ramp = Image.fromarray(np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8))
    values = np.asarray(decode_image(encode(ramp)))[:, :, 0].ravel()
    assert values[0] == 0
    assert values[-1] == 255
    assert len(set(values)) > 50


@pytest.mark.parametrize(
    "record", [b"", b"no image", {"bytes": None, "path": None}, {"bytes": None, "path": "/no"}, 7]
)
def test_unusable_images_name_the_sample(record):
    with pytest.raises(ImageError, match="sample set/7"):
        decode_image(record, "set/7")


def test_truncated_data_is_an_error_not_a_grey_half():
    data = encode(make_image(1, 200, 200), "JPEG")
    with pytest.raises(ImageError, match="sample set/7: image cannot be decoded"):
        decode_image(data[: len(data) // 2], "set/7")


def test_extreme_aspect_ratio_is_an_error():
    with pytest.raises(ImageError, match="aspect ratio"):
        decode_image(encode(Image.new("RGB", (2010, 10))), "set/7")


def test_smart_size_by_hand():
    assert smart_size(56, 56) == (56, 56)
    assert smart_size(100, 60) == (112, 56)  # to the nearest multiples of 28
    assert smart_size(10, 10) == (56, 56)  # grown to the minimum
    assert smart_size(2000, 1000, max_pixels=100 * 28 * 28) == (14 * 28, 7 * 28)  # 392 x 196 <= 78,400


def test_smart_size_is_left_alone_by_the_processors_rule():
    generator = np.random.default_rng(0)
    for _ in range(2000):
        width, height = (int(v) for v in generator.integers(28, 4000, 2))
        size = smart_size(width, height, max_pixels=90_000)
        assert smart_resize(size[1], size[0], 28, 56 * 56, 90_000) == (size[1], size[0])
        assert 56 * 56 <= size[0] * size[1] <= 90_000
        assert size == smart_size(*size, max_pixels=90_000)


def test_resize_keeps_what_fits():
    image = make_image(1)
    assert resize_to_limits(image, factor=28, min_pixels=56 * 56, max_pixels=90_000) is image
    assert resize_to_limits(image, factor=28, min_pixels=112 * 112, max_pixels=90_000).size == (112, 112)


def test_limits_that_cannot_be_met_are_refused():
    with pytest.raises(ValueError, match="max_pixels"):
        smart_size(100, 100, max_pixels=1000)
