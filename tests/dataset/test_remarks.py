"""Data that can be used, but not as its owner may think: images beyond the limits, fewer rows than a batch."""

import numpy as np
import pytest

from dataset import inspect
from dataset.images import to_png_bytes
from dataset.lengths import shrunk
from dataset.loader import create_dataloader
from dataset.schema import write_shard
from tests.dataset.conftest import make_image, make_row


@pytest.fixture
def mixed(tmp_path):
    """Eight rows: two images of the usual 56 x 56, one of 112 x 112, one of 224 x 112, a text, and three usual ones."""
    rows = [make_row(number) for number in range(8)]
    for number, size in ((2, (112, 112)), (3, (224, 112))):
        rows[number]["images"] = [{"bytes": to_png_bytes(make_image(number, *size)), "path": None}]
    rows[4] = make_row(4, num_images=0)
    write_shard(tmp_path / "mixed.parquet", rows)
    return str(tmp_path / "mixed.parquet")


def test_the_sentence_has_number_and_factor():
    assert shrunk(np.array([0, 100, 200, 400, 900]), 100) == (
        "3 of 5 rows have an image of more than 100 pixels, which is shrunk: from 4.0 times that in the median, "
        "9.0 times at most"
    )
    assert shrunk(np.array([0, 100]), 100) is None


def said(caplog, data, processor, tmp_path, **options):
    caplog.clear()
    create_dataloader(data, processor, cache_dir=str(tmp_path / "cache"), **options)
    return [record.message for record in caplog.records if record.levelname == "WARNING"]


def test_the_loader_says_it_and_remembers_it(mixed, processor, tmp_path, caplog):
    limit = 56 * 112
    for _ in range(2):  # the second time out of the cache
        (large,) = said(caplog, mixed, processor, tmp_path, batch_size=8, max_pixels=limit)
        assert "mixed.parquet: 2 of 8 rows have an image of more than 6272 pixels" in large
        assert "4.0 times at most" in large
    assert said(caplog, mixed, processor, tmp_path, batch_size=8, max_pixels=224 * 112) == []


def test_data_smaller_than_a_batch(mixed, processor, tmp_path, caplog):
    (few,) = said(caplog, mixed, processor, tmp_path, batch_size=9)
    assert few.startswith("an epoch has 8 rows, fewer than one batch (batch_size 9)")
    assert said(caplog, mixed, processor, tmp_path, batch_size=8) == []


def test_inspect_counts_them(mixed, monkeypatch, capsys):
    for words, expected in (([], False), (["--max-pixels", "6272"], True)):
        monkeypatch.setattr("sys.argv", ["inspect", mixed, *words])
        assert inspect.main() == 0
        report = capsys.readouterr().out
        assert "pixels of an image: median 3136, max 25088" in report
        assert ("2 of 8 rows have an image of more than 6272 pixels" in report) == expected
