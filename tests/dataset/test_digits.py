import hashlib
import io
import json
from functools import cache

import numpy as np
import pytest
from PIL import Image

from dataset import digits
from dataset.digits import SPLITS, load_scans, scan_image, split_scans, write_digits
from dataset.schema import row_problems
from reward import score
from utils.files import parquet_rows
from utils.sample import Sample

build_rows = cache(digits.build_rows)  # tests only read the rows


def test_splits_are_disjoint_complete_and_stratified():
    splits = split_scans()
    assert {name: len(scans) for name, scans in splits.items()} == {
        "heldout": 400,
        "warmstart": 300,
        "train": 897,
        "validation": 200,
    }
    assert sorted(scan for scans in splits.values() for scan in scans) == list(range(1797))
    _, labels = load_scans()
    assert np.bincount(labels[splits["heldout"]], minlength=10).tolist() == [40] * 10
    assert split_scans() == splits
    assert split_scans(seed=1) != splits


def scans_of(row):
    parts = row["id"].split("/")[-1].split("-")
    return {int(part) for part in (parts[1:] if row["source"] == "digits-sum" else parts)}


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_no_row_shows_a_scan_of_another_split(stage):
    splits = split_scans()
    for split in SPLITS:
        rows = build_rows(stage, split)
        assert {scan for row in rows for scan in scans_of(row)} == set(splits[split])
        assert len({row["id"] for row in rows}) == len(rows)


def test_no_image_is_shared_between_splits():
    images = {
        split: {image["bytes"] for row in build_rows("stage2", split) for image in row["images"]}
        for split in SPLITS
    }
    assert not images["heldout"] & (images["train"] | images["warmstart"])


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_rows_are_sound_and_their_answers_earn_the_full_reward(stage):
    for row in build_rows(stage, "heldout")[:80]:
        assert list(row_problems(row)) == []
        answer = row["answer"][0]
        text = f"<answer>{answer}</answer>"
        if row["prompt_type"] == "think":
            text = f"<think>counting</think>{text}"
        spec = Sample.from_row(row).spec
        result = score(text, row["answer"], row["answer_type"], prompt_type=row["prompt_type"], spec=spec)
        assert result.parts["accuracy"] == 1.0


def test_answers_agree_with_the_labels():
    _, labels = load_scans()
    for row in build_rows("stage1", "heldout"):
        label, answer = int(labels[next(iter(scans_of(row)))]), row["answer"][0]
        if row["source"] == "digits-number":
            assert int(answer) == label
        elif row["source"] == "digits-boolean":
            assert answer == ("yes" if label % 2 == 0 else "no")
        elif row["source"] == "digits-choice":
            options = dict(line.split(". ") for line in row["problem"].splitlines()[1:])
            assert str(label) in options[answer].split()
            assert sorted(" ".join(options.values()).split()) == list("0123456789")


def test_the_box_holds_the_scan_and_nothing_lies_outside():
    for row in build_rows("stage1", "heldout"):
        if row["source"] == "digits-bbox":
            canvas = Image.open(io.BytesIO(row["images"][0]["bytes"]))
            left, top, right, bottom = (int(v) for v in row["answer"][0].strip("[]").split(","))
            scan = next(iter(scans_of(row)))
            assert canvas.crop((left, top, right, bottom)).tobytes() == scan_image(scan).tobytes()
            pixels = np.asarray(canvas).copy()
            pixels[top:bottom, left:right] = 255
            assert pixels.min() == 255


def test_sums_add_the_two_scans():
    _, labels = load_scans()
    for row in build_rows("stage2", "heldout")[:100]:
        first, second = (int(part) for part in row["id"].split("-")[-2:])
        assert int(row["answer"][0]) == labels[first] + labels[second]
        assert len(row["images"]) == 2
        assert row["prompt_type"] == "think"


def test_first_rows_cover_all_heldout_scans_and_tasks_evenly():
    rows = build_rows("stage1", "heldout")[:400]
    assert len({scan for row in rows for scan in scans_of(row)}) == 400
    assert {row["source"] for row in rows} == {
        "digits-number",
        "digits-boolean",
        "digits-choice",
        "digits-bbox",
    }
    counts = [sum(row["source"] == source for row in rows) for source in {row["source"] for row in rows}]
    assert counts == [100] * 4


def test_only_warm_start_rows_carry_a_rationale():
    assert all(row["rationale"] for row in build_rows("stage2", "warmstart")[:5])
    assert all(row["rationale"] is None for row in build_rows("stage2", "train")[:5])


def test_manifest_agrees_with_the_files(tmp_path):
    manifest = write_digits(tmp_path)
    assert manifest == json.loads((tmp_path / "manifest.json").read_text())
    for name, file in manifest["files"].items():
        stage, split = name.removesuffix(".parquet").split("/")
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == file["sha256"]
        assert [row["id"] for row in parquet_rows(tmp_path / name)] == [
            row["id"] for row in build_rows(stage, split)
        ]
    assert manifest["files"]["stage1/heldout.parquet"]["num_rows"] == 1600


def test_rows_are_the_same_every_time():
    assert digits.build_rows("stage1", "warmstart") == build_rows("stage1", "warmstart")
    assert digits.build_rows("stage2", "heldout", seed=1) != build_rows("stage2", "heldout")


@pytest.mark.parametrize(("stage", "split"), [("stage3", "train"), ("stage1", "test")])
def test_unknown_stage_or_split_is_refused(stage, split):
    with pytest.raises(ValueError, match="wanted"):
        build_rows(stage, split)
