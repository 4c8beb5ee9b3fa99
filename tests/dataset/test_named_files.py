"""Rows name files: only regular ones below the image root are read, and none keeps the reader waiting."""

import os
import time

import pytest
from PIL import Image

from dataset import images
from dataset.images import ImageError, open_image
from dataset.sources import base, pixmo_count
from dataset.sources.base import BadRow, Context, image_record
from utils.files import read_named_file


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    (folder / "inner").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "inner" / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    os.mkfifo(folder / "pipe")
    os.symlink("/dev/zero", folder / "zero.png")
    os.symlink("../secret.png", folder / "link.png")
    os.symlink("inner/a.png", folder / "kept.png")
    return folder


@pytest.mark.parametrize("wrap", [str, lambda path: {"bytes": None, "path": path}])
@pytest.mark.parametrize("name", ["inner/a.png", "kept.png", "inner/../inner/a.png", "ABSOLUTE"])
def test_files_below_the_root(root, name, wrap):
    path = str(root / "inner" / "a.png") if name == "ABSOLUTE" else name
    assert image_record(wrap(path), Context("s", root))["bytes"].startswith(b"\x89PNG")


@pytest.mark.parametrize("wrap", [str, lambda path: {"bytes": None, "path": path}])
@pytest.mark.parametrize(
    "path",
    [
        "/proc/self/environ", "../secret.png", "inner/../../secret.png", "/dev/zero", "zero.png", "link.png", "pipe",
        "inner", ".", "absent.png", "a\0b", "../root-of-another/x", "/proc/self/fd/0", "~/x",
    ],
)  # fmt: skip
def test_anything_else_is_a_bad_row_at_once(root, path, wrap):
    (root.parent / "root-of-another").mkdir()
    (root.parent / "root-of-another" / "x").write_bytes(b"x")
    start = time.monotonic()
    with pytest.raises(BadRow) as error:
        image_record(wrap(path), Context("s", root))
    assert (error.value.reason, time.monotonic() - start < 20.0) == ("missing-image", True)


def test_a_path_without_a_root_is_refused(root):
    with pytest.raises(BadRow, match="--image-root"):
        image_record(str(root / "kept.png"), Context("s"))


def test_sizes_are_capped(root, monkeypatch):
    (root / "large").write_bytes(bytes(11))
    with pytest.raises(OSError, match="more than 10 bytes"):
        read_named_file(root / "large", 10)
    monkeypatch.setattr(base, "MAX_IMAGE_BYTES", 10)
    with pytest.raises(BadRow, match="more than 10 bytes"):
        image_record("large", Context("s", root))


@pytest.mark.parametrize("name", ["/dev/zero", "pipe", "inner"])
def test_the_loader_opens_regular_files_alone(root, name):
    assert open_image({"bytes": None, "path": str(root / "kept.png")}).size == (4, 4)
    with pytest.raises(ImageError, match="not a regular file"):
        open_image({"bytes": None, "path": str(root / name)})
    assert images.MAX_IMAGE_BYTES < 1 << 30


def test_addresses_are_of_the_web(root):
    row = {"image_url": f"file://{root}/inner/a.png", "image_sha256": "../secret", "count": 1, "label": "cat"}
    with pytest.raises(BadRow, match="not an address of the web"):
        pixmo_count.SOURCE.to_sample({**row, "image_sha256": "0" * 64}, Context("s", root))
    (root.parent / "secret.jpg").write_bytes(b"x")
    with pytest.raises(BadRow, match="outside"):
        pixmo_count.SOURCE.to_sample(row, Context("s", root))
