"""Filters and guards: what they reject, and what they must let through."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dataset.curate.filters import FilterChoice, Filters, filter_reason, in_language, reference_boxes
from dataset.curate.guards import (
    Exclusion,
    check_split,
    perceptual_hash,
    question_fingerprint,
    read_exclusion,
)
from dataset.sources import SOURCES, SourceError
from utils.sample import Sample


def picture(seed, size=(160, 120)):
    """A smooth random picture: structure at several scales, as photographs have."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    fine = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    return Image.blend(coarse, fine, 0.25)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def sample(answer="7", answer_type="number", problem="<image>What is it?", image=None):
    images = () if image is None else (image,)
    return Sample(
        "s",
        images,
        problem if images else problem.replace("<image>", ""),
        (answer,),
        "math",
        answer_type,
        "x",
    )


@pytest.mark.parametrize(
    ("filters", "good", "bad", "reason"),
    [
        (Filters(max_answer_chars=5), sample("12345"), sample("123456"), "answer-length"),
        (Filters(answer_symbols="=["), sample("x"), sample("x=5"), "answer-symbols"),
        (Filters(drop_answer_types=("boolean",)), sample(), sample("yes", "boolean"), "answer-type"),
        (
            Filters(max_boxes=1),
            sample("[1, 2, 3, 4]", "bbox"),
            sample("[[1,2,3,4],[5,6,7,8]]", "detection"),
            "num-boxes",
        ),
        (Filters(language="en"), sample(), sample(problem="<image>这是什么东西?"), "language"),
        (Filters(language="zh"), sample(problem="<image>这是什么东西?"), sample(), "language"),
    ],
)
def test_each_filter(filters, good, bad, reason):
    assert filter_reason(good, filters) is None
    assert filter_reason(bad, filters) == f"filter:{reason}"
    assert filter_reason(bad, Filters()) is None


def test_box_area_is_a_share_of_the_image():
    image = encoded(Image.new("RGB", (100, 50)))
    half = sample("[0, 0, 50, 50]", "bbox", image=image)
    larger = sample("[0, 0, 51, 50]", "bbox", image=image)
    assert filter_reason(half, Filters(max_box_area=0.5)) is None
    assert filter_reason(larger, Filters(max_box_area=0.5)) == "filter:box-area"
    for reference, reason in (("[0.1, 0, 0.6, 1]", None), ("[0.1, 0, 0.7, 1]", "filter:box-area")):
        normalized = sample(reference, "bbox", image=image)
        assert filter_reason(normalized, Filters(max_box_area=0.5)) == reason


def test_the_best_reference_counts_for_length():
    two = Sample("s", (), "q", ("a very long answer indeed", "short"), "math", "ocrtext", "x")
    assert filter_reason(two, Filters(max_answer_chars=5)) is None


def test_presets_are_v_triunes_and_single_flags_win():
    reasoning = FilterChoice("reasoning").resolve()
    assert (reasoning.max_answer_chars, reasoning.answer_symbols) == (20, "=[")
    assert set(reasoning.drop_answer_types) == {"multiple-choice", "boolean"}
    detection = FilterChoice("detection", Filters(max_boxes=3)).resolve()
    assert (detection.max_boxes, detection.max_box_area) == (3, 0.5)
    with pytest.raises(ValueError, match="wanted one of reasoning"):
        FilterChoice("nonesuch").resolve()


@pytest.mark.parametrize(
    ("answer", "boxes"),
    [
        ("[1, 2, 3, 4]", [(1, 2, 3, 4)]),
        ("[[1,2,3,4],[5,6,7,8]]", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "cat"}]', [(1, 2, 3, 4)]),
        ("(1, 2, 3, 4), (5.5, 6, 7, 8)", [(1, 2, 3, 4), (5.5, 6, 7, 8)]),
        ("nothing", []),
    ],
)
def test_reference_boxes(answer, boxes):
    assert reference_boxes(answer) == boxes


def test_language_is_judged_by_letters_alone():
    assert in_language("<image> 3 + 4 = ?", "en")
    assert in_language("naïve question", "en")
    assert not in_language("Какой это цвет?", "en")


def test_hash_is_stable_under_encoding_and_scale_and_differs_between_pictures():
    original = picture(1)
    value = perceptual_hash(original)
    same = [
        original.resize((320, 240)),
        original.resize((80, 60)),
        Image.open(io.BytesIO(encoded(original, "JPEG", quality=60)["bytes"])),
        ImageEnhance.Brightness(original).enhance(1.1),
    ]
    assert all((value ^ perceptual_hash(image)).bit_count() <= 4 for image in same)
    others = [perceptual_hash(picture(seed)) for seed in range(2, 60)]
    assert min((value ^ other).bit_count() for other in others) > 10


def test_the_band_index_finds_exactly_what_a_linear_search_finds():
    exclusion = Exclusion(max_distance=7)
    exclusion.add([encoded(picture(seed)) for seed in range(30)], "")
    generator = np.random.default_rng(0)
    for seed in range(30):
        image = picture(seed)
        noisy = np.asarray(image, dtype=float) + generator.normal(0, 25, (120, 160, 3))
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        value = perceptual_hash(image)
        linear = any((value ^ known).bit_count() <= 7 for known in exclusion.image_hashes)
        assert exclusion.has_image(image) == linear


def test_duplicates_need_question_and_image_unless_told_otherwise():
    known, unknown = encoded(picture(1)), encoded(picture(2))
    exclusion = Exclusion()
    exclusion.add([known], "How many dogs?")
    again = encoded(picture(1), "JPEG", quality=70)
    assert exclusion.reason(sample(problem="<image>how many DOGS", image=again)) == "duplicate:image"
    assert exclusion.reason(sample(problem="<image>How many cats?", image=again)) is None
    assert exclusion.reason(sample(problem="<image>How many dogs?", image=unknown)) is None
    exclusion.images_alone = True
    assert exclusion.reason(sample(problem="<image>How many cats?", image=again)) == "duplicate:image"
    assert exclusion.reason(sample(problem="How many dogs?")) == "duplicate:question"
    assert exclusion.reason(sample(image={"bytes": b"broken", "path": None})) is None
    assert Exclusion().reason(sample(image=known)) is None


def test_question_fingerprints():
    assert question_fingerprint("<image>What is  it?") == question_fingerprint("what is it")
    assert question_fingerprint("What is it?") != question_fingerprint("What was it?")


def test_exclusion_lists_are_read_from_evaluation_files(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"question": "How many dogs?", "image": encoded(picture(1))}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    (tmp_path / "more.jsonl").write_text(json.dumps({"problem": "Text only?"}) + "\n")
    exclusion = read_exclusion([str(tmp_path)])
    assert len(exclusion.image_hashes) == 1
    assert len(exclusion.questions) == 2
    with pytest.raises(SourceError, match="no such file"):
        read_exclusion([str(tmp_path / "missing")])
    (tmp_path / "empty.jsonl").write_text(json.dumps({"other": 1}) + "\n")
    with pytest.raises(SourceError, match="found neither"):
        read_exclusion([str(tmp_path / "empty.jsonl")])
    with pytest.raises(ValueError, match="wanted 0 to 7"):
        Exclusion(max_distance=8)


@pytest.mark.parametrize("name", SOURCES)
def test_evaluation_splits_are_refused(name):
    source = SOURCES[name]
    for split in source.eval_splits:
        with pytest.raises(SourceError, match="--allow-eval-split"):
            check_split(source, split, allow_eval_split=False)
        check_split(source, split, allow_eval_split=True)
    if source.split not in source.eval_splits:
        check_split(source, source.split, allow_eval_split=False)


def test_benchmarks_without_a_training_split_are_refused_by_default():
    for name in ("mathvision", "ocrbench", "mmstar", "treebench"):
        assert SOURCES[name].split in SOURCES[name].eval_splits
    for name in ("virl39k", "ref_l4", "pixmo_count", "webcode2m", "unisvg", "infovqa", "ai2d", "docvqa"):
        assert SOURCES[name].split not in SOURCES[name].eval_splits
