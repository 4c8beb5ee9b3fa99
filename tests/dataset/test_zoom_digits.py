import io
from functools import cache

import numpy as np
import pytest
from PIL import Image
from sklearn.ensemble import ExtraTreesClassifier

from dataset import zoom_digits
from dataset.digits import load_scans, split_scans
from dataset.schema import row_problems
from dataset.zoom_digits import BRIGHTNESS, SQUARE, box_of, canvas, cell_of

build_rows = cache(zoom_digits.build_rows)  # tests only read the rows


def shown(image, left, top):
    """What the model sees of a canvas, 12 x 12 pixels around one of them; without the rest, which takes time."""
    part = image.crop([SQUARE * side for side in (left - 6, top - 6, left + 6, top + 6)])
    return np.asarray(part.resize((12, 12), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("split", zoom_digits.SPLITS)
def test_rows_are_sound_and_of_their_splits_scans(split):
    rows = build_rows(split)
    assert len(rows) == len({row["id"] for row in rows})
    assert {int(row["id"].split("/")[2][:4]) for row in rows} == set(split_scans()[split])
    assert [problem for row in rows[:20] for problem in row_problems(row)] == []


def test_every_cell_is_used_and_the_box_holds_the_scan_and_nothing_else():
    rows = build_rows("validation")
    scans, labels = load_scans()
    assert len({cell_of(row["id"]) for row in rows}) == 16
    for row in rows:
        scan, box = int(row["id"].split("/")[2][:4]), box_of(*cell_of(row["id"]))
        image = Image.open(io.BytesIO(row["images"][0]["bytes"]))
        crop = np.asarray(image.crop([SQUARE * side for side in box]), dtype=float)
        ink = 255.0 - scans[scan]
        share = crop.sum() / ink.sum()
        assert BRIGHTNESS[0] - 0.02 <= share <= BRIGHTNESS[1]
        np.testing.assert_allclose(crop, ink * share, atol=2)
        assert row["answer"] == [str(labels[scan])]


def test_the_card_is_seen_and_the_digit_is_not():
    """A reader that is told the place, and has seen each of the other 1,197 scans six times, is little better than
    chance; the scans themselves it reads."""
    splits, (scans, labels) = split_scans(), load_scans()
    known, unknown = [*splits["warmstart"], *splits["train"]], splits["heldout"]
    left, top, _, _ = box_of(1, 2)

    def views(some, times):
        generator, found = np.random.default_rng(0), []
        for scan in some * times:
            pixels = shown(canvas(scan, 1, 2, generator), left, top)
            assert pixels[4:9, 4:9].mean() < 110
            assert pixels[:3].mean() > 200
            found.append(pixels[3:10, 3:10].ravel())
        return found

    trees = ExtraTreesClassifier(100, min_samples_leaf=8, random_state=0)
    trees.fit(views(known, 6), list(labels[known]) * 6)
    assert trees.score(views(unknown, 2), list(labels[unknown]) * 2) < 0.17
    trees.fit(scans[known].reshape(-1, 64), labels[known])
    assert trees.score(scans[unknown].reshape(-1, 64), labels[unknown]) > 0.9
