import logging

import pyarrow.parquet as pq
import pytest

from dataset.encode import encode_prompt
from dataset.images import ImageError
from dataset.loader import create_dataloader
from dataset.schema import SchemaError, rows_to_table, write_shard
from dataset.shards import MappedRows, ParquetRows, open_rows
from tests.dataset.conftest import make_row
from utils.files import parquet_rows
from utils.sample import Sample


@pytest.fixture
def load(tmp_path):
    """load(data, processor=None, **options) -> loader whose length cache lies in the test's folder"""

    def _load(data, processor=None, **options):
        return create_dataloader(
            data, processor, cache_dir=str(tmp_path / "cache"), **({"batch_size": 4} | options)
        )

    return _load


def ids(loader):
    return [row["id"] for batch in loader for row in batch]


def test_batches_are_lists_of_rows(load, shard, processor):
    loader = load(shard(10), processor)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert loader.batch_size == 4
    row = batches[0][0]
    assert row["images"][0].size == (56, 56)
    assert isinstance(encode_prompt(processor, Sample.from_row(row)).input_ids, list)


def test_every_row_once_per_epoch_in_a_new_order(load, shard):
    loader = load(shard(70))
    first, second = ids(loader), ids(loader)
    assert sorted(first) == sorted(second) == [f"set/{n:05d}" for n in range(70)]
    assert first != second
    assert ids(load(shard(70))) == first


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("num_batches", [1, 7, 18, 23])
def test_resume_continues_with_exactly_the_next_row(load, shard, num_workers, num_batches):
    path = shard(70)  # 18 batches an epoch

    def stream(loader):
        while True:
            yield from loader

    loader = load(path, num_workers=num_workers)
    batches = stream(loader)
    for _ in range(num_batches):
        next(batches)
    state = loader.state_dict()
    expected = [[row["id"] for row in next(batches)] for _ in range(20)]
    resumed = load(path, num_workers=num_workers)
    resumed.load_state_dict(state)
    batches = stream(resumed)
    assert [[row["id"] for row in next(batches)] for _ in range(20)] == expected


def test_two_ranks_are_disjoint_and_cover_the_set(load, shard):
    path = shard(71)
    parts = [ids(load(path, rank=rank, world_size=2)) for rank in range(2)]
    assert not set(parts[0]) & set(parts[1])
    assert sorted(parts[0] + parts[1]) == [f"set/{n:05d}" for n in range(71)]


def test_mixture_shares_are_exact(load, shard):
    main, rehearsal = shard(90, "a.parquet"), shard(200, "b.parquet", source="old")
    loader = load([{"path": main, "weight": 0.9}, {"path": rehearsal, "weight": 0.1}], batch_size=10)
    for batch in loader:
        assert sum(row["source"] == "old" for row in batch) == 1


def test_too_long_rows_are_dropped_and_counted_and_none_fails(load, tmp_path, processor, caplog):
    rows = [make_row(n, problem="<image>" + "word " * (n * 10)) for n in range(20)]
    write_shard(tmp_path / "a.parquet", rows)
    lengths = {row["id"]: len(encode_prompt(processor, Sample.from_row(row)).input_ids) for row in rows}
    limit = sorted(lengths.values())[11]
    with caplog.at_level(logging.INFO, logger="dataset.loader"), caplog.at_level(logging.INFO):
        kept = ids(load(str(tmp_path / "a.parquet"), processor, max_length=limit))
    assert sorted(kept) == sorted(name for name, length in lengths.items() if length <= limit)
    assert f"12 rows; 8 left out, over {limit} prompt tokens" in caplog.text
    # from the cache now, and then with a limit for which the cached bounds decide nothing
    assert sorted(ids(load(str(tmp_path / "a.parquet"), processor, max_length=limit))) == sorted(kept)
    assert len(ids(load(str(tmp_path / "a.parquet"), processor, max_length=limit - 1))) == 11
    with pytest.raises(ValueError, match="none of its 20 rows fits max_length 5"):
        load(str(tmp_path / "a.parquet"), processor, max_length=5)


def test_lengths_count_images_by_their_stored_size(load, tmp_path, processor):
    rows = [make_row(0), make_row(1, images=[{"bytes": big_png(), "path": None}])]
    write_shard(tmp_path / "a.parquet", rows)
    limit = len(encode_prompt(processor, Sample.from_row(rows[0])).input_ids)
    assert ids(load(str(tmp_path / "a.parquet"), processor, max_length=limit)) == ["set/00000"]


def big_png():
    from dataset.images import to_png_bytes
    from tests.dataset.conftest import make_image

    return to_png_bytes(make_image(5, 224, 224))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_corrupt_image_is_left_out_and_reported_by_its_id(load, tmp_path, processor, caplog, num_workers):
    table = rows_to_table([make_row(n) for n in range(8)])
    broken = table.to_pylist()
    broken[5]["images"][0]["bytes"] = broken[5]["images"][0]["bytes"][:200]
    pq.write_table(table.from_pylist(broken, schema=table.schema), tmp_path / "a.parquet")
    with pytest.raises(
        SchemaError, match=r"1 of 8 rows cannot be used, more than max_bad_share 0\.01 allows:\n.*row 5"
    ):
        load(str(tmp_path / "a.parquet"), processor)
    caplog.clear()
    loader = load(str(tmp_path / "a.parquet"), processor, num_workers=num_workers, max_bad_share=0.2)
    assert sorted(ids(loader)) == [f"set/{n:05d}" for n in range(8) if n != 5]
    assert caplog.text.count("sample set/00005: image cannot be decoded") == 1
    assert loader.num_left_out == 0, "found at the start, so it is never drawn"


def test_damage_that_only_decoding_shows_is_reported_once(load, shard, processor, caplog, monkeypatch):
    from dataset import loader as module

    def fail(processor, sample, max_pixels):
        if sample.id == "set/00005":
            raise ImageError("sample set/00005: image cannot be decoded")
        return []

    monkeypatch.setattr(module, "prepare_images", fail)
    loader = load(shard(8), processor)
    assert [len(ids(loader)) for _ in range(3)] == [7, 7, 7]
    assert loader.num_left_out == 1
    assert caplog.text.count("row left out: ") == 1


def test_wrong_values_are_reported_with_file_and_row_at_start(load, tmp_path):
    table = rows_to_table([make_row(n) for n in range(40)])
    rows = table.to_pylist()
    rows[37]["answer_type"] = "numeric"
    rows[38]["problem"] = "no mark"
    pq.write_table(table.from_pylist(rows, schema=table.schema), tmp_path / "a.parquet")
    with pytest.raises(SchemaError) as error:
        load(str(tmp_path / "a.parquet"))
    assert f"{tmp_path / 'a.parquet'}, row 37 (id 'set/00037'): column 'answer_type': got 'numeric'" in str(
        error.value
    )
    assert "row 38 (id 'set/00038'): column 'problem': 0 <image> marks but 1 images" in str(error.value)


def test_missing_column_is_reported_at_start(load, tmp_path):
    pq.write_table(rows_to_table([make_row()]).drop_columns(["source"]), tmp_path / "a.parquet")
    with pytest.raises(SchemaError, match="column 'source' is missing"):
        load(str(tmp_path / "a.parquet"))


def test_directories_globs_and_lists_are_read_in_order(shard, tmp_path):
    shard(3, "sub/a.parquet"), shard(2, "sub/deep/b.parquet")
    for path in (
        str(tmp_path / "sub"),
        str(tmp_path / "sub/**/*.parquet"),
        [str(tmp_path / "sub/a.parquet"), str(tmp_path / "sub/deep/b.parquet")],
    ):
        reader = open_rows(path)
        assert isinstance(reader, ParquetRows)
        assert [reader.read(row)["id"] for row in range(5)] == [
            "set/00000",
            "set/00001",
            "set/00002",
            "set/00000",
            "set/00001",
        ]
        assert reader.place(4) == (str(tmp_path / "sub/deep/b.parquet"), 1)


def test_random_access_equals_reading_in_order(shard):
    path = shard(100)
    reader, expected = open_rows(path), list(parquet_rows(path))
    for row in [99, 0, 31, 32, 64, 63, 1, 98]:
        assert reader.read(row) == expected[row]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_foreign_files_are_memory_mapped(tmp_path, load, processor, monkeypatch, kind):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    if kind == "parquet":  # one row group for the whole file: a shuffled row would read all of it
        pq.write_table(
            rows_to_table([make_row(n) for n in range(600)]).drop_columns(["image_sizes"]),
            tmp_path / "a.parquet",
        )
    else:
        import json

        for number in range(600):
            make_row_path(tmp_path, number)
        lines = [
            json.dumps(make_row(n, images=[{"bytes": None, "path": make_row_path(tmp_path, n)}]))
            for n in range(600)
        ]
        (tmp_path / "a.jsonl").write_text("\n".join(lines))
    path = str(tmp_path / f"a.{kind}")
    assert isinstance(open_rows(path), MappedRows)
    found = ids(load(path, processor, batch_size=100, max_length=500))
    assert sorted(found) == [f"set/{n:05d}" for n in range(600)]


def make_row_path(folder, number):
    from tests.dataset.conftest import make_image

    path = folder / f"{number % 3}.png"
    if not path.exists():
        make_image(number).save(path)
    return str(path)


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/a.parquet", "missing.parquet"])
def test_missing_data_is_one_clear_error(load, path):
    with pytest.raises(FileNotFoundError, match="no data at"):
        load(path)


def test_batch_size_must_fit_the_ranks(load, shard):
    with pytest.raises(ValueError, match="batch_size: got 3, wanted a positive multiple of world_size 2"):
        load(shard(4), batch_size=3, world_size=2)
