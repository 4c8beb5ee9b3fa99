"""Rotation, jigsaw and crop position can be solved from the pictures alone: undone, they give the picture back."""

import io
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from dataset.sources import SOURCES, Context, Location
from dataset.sources.base import LETTERS

FOLDER = Path(__file__).parents[1] / "fixtures" / "sources" / "pictures"
NAMES = ("a/0.png", "a/1.png", "b/2.png")


def sample_of(source, name):
    return SOURCES[source].to_sample({"image": name}, Context(f"{source}/0", FOLDER))


def opened(record):
    return Image.open(io.BytesIO(record["bytes"])).convert("RGB")


def same(one, other):
    return one.size == other.size and ImageChops.difference(one, other).getbbox() is None


@pytest.mark.parametrize("name", NAMES)
def test_turning_back_by_the_answer_gives_the_picture(name):
    sample = sample_of("rotation", name)
    degrees = int(sample.spec["params"]["options"][LETTERS.index(sample.answer[0])].split()[0])
    turned, original = opened(sample.images[0]), Image.open(FOLDER / name).convert("RGB")
    assert same(turned.rotate(degrees, expand=True), original), "rotate is counter-clockwise"
    assert sum(same(turned.rotate(d, expand=True), original) for d in (0, 90, 180, 270)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_laying_the_pieces_by_the_answer_gives_the_picture(name):
    sample = sample_of("jigsaw", name)
    shown = opened(sample.images[0])
    width, height = shown.width // 2, shown.height // 2
    corners = [(0, 0), (width, 0), (0, height), (width, height)]
    whole = Image.new("RGB", shown.size)
    for corner, place in zip(corners, sample.answer[0], strict=True):
        x, y = corners[int(place) - 1]
        whole.paste(shown.crop((x, y, x + width, y + height)), corner)
    original = Image.open(FOLDER / name).convert("RGB").crop((0, 0, *shown.size))
    assert same(whole, original)
    assert not same(shown, original), "it was shuffled"


@pytest.mark.parametrize("name", NAMES)
def test_the_part_is_where_the_answer_says(name):
    sample = sample_of("crop_position", name)
    whole, part = map(opened, sample.images)
    width, height = whole.width // 3, whole.height // 3
    cells = [(x * width, y * height) for y in range(3) for x in range(3)]
    found = [
        same(whole.crop((x, y, x + width, y + height)).resize((2 * width, 2 * height)), part)
        for x, y in cells
    ]
    assert [LETTERS[i] for i, here in enumerate(found) if here] == list(sample.answer)


def test_a_folder_always_gives_the_same_samples_and_answers_vary():
    answers = {}
    for source in ("rotation", "jigsaw", "crop_position"):
        assert sample_of(source, NAMES[0]) == sample_of(source, NAMES[0])
        answers[source] = {sample_of(source, f"{'./' * n}{NAMES[0]}").answer for n in range(12)}
    assert all(len(found) >= 3 for found in answers.values()), answers


@pytest.mark.parametrize("path", ["", "nowhere", "dataset"])
def test_a_folder_without_pictures_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"folder of pictures|holds no picture"):
        list(SOURCES["rotation"].load(Location(path, "train")))
