"""The published data as downloaded, and data of one's own by its column names."""

import csv
import json

import pytest

from dataset.inspect import inspect_rows
from dataset.schema import SchemaError
from dataset.shards import open_rows
from reward.tools.audit import audit
from tests.dataset.conftest import make_image
from trains.rehearsal.published import KINDS, published_rows, write_published
from utils.evaluate.offline import read_samples
from utils.sample import Sample
from utils.tables import split_paths


def test_every_row_loads_under_our_words(tmp_path, processor):
    write_published(tmp_path / "stage1-normal")
    write_published(tmp_path / "stage2-long", "default")
    for folder, word in (("stage1-normal", "answer"), ("stage2-long", "think")):
        reader = open_rows(str(tmp_path / folder))
        assert inspect_rows(reader, processor, decode=True).problems == []
        samples = [Sample.from_row(reader.read(number)) for number in range(len(reader))]
        assert len(samples) == 2 * len(KINDS)
        assert {sample.prompt_type for sample in samples} == {word}
        assert "spatial" in {sample.problem_type for sample in samples}
        assert [len(s.images) for s in samples if s.source == "codeforces"] == [0, 0]
        assert samples == [Sample.from_row(row) for row in read_samples([str(tmp_path / folder)], None)]


def test_every_kind_passes_the_audit(tmp_path):
    write_published(tmp_path)
    results = audit(tmp_path)
    assert {result.answer_type for result in results} == {kind for kind, *_ in KINDS}
    assert {result.answer_type: result.failures for result in results if result.failures} == {}


def test_paths_with_commas_and_shares(tmp_path):
    for name in ("a", "b"):
        rows = [dict(row, id=f"{name}-{row['id']}") for row in published_rows()]
        write_published(tmp_path / name, rows=rows)
    assert split_paths("a, b[10%]") == [("a", 1.0), ("b", 0.1)]
    path = f"{tmp_path}/a,{tmp_path}/b[25%]"
    reader = open_rows(path, seed=1)
    found = [reader.read(number)["id"] for number in range(len(reader))]
    assert len(found) == 22 + round(22 / 4)
    assert sum(name.startswith("a-") for name in found) == 22
    assert found == [row["id"] for row in reader.iter_rows()]
    assert reader.place(22)[0] == f"{tmp_path}/b/00000.parquet"
    assert found == [row["id"] for row in open_rows(path, seed=1).iter_rows()]
    assert found != [row["id"] for row in open_rows(path, seed=2).iter_rows()]
    for wrong in ("a[0%]", "a[101%]", "a,,b"):
        with pytest.raises(ValueError, match="wanted PATH or PATH"):
            split_paths(wrong)


COLUMNS = {
    "problem": "question",
    "answer": "label",
    "images": "image",
    "answer_type": "number",
    "source": "mine",
    "prompt_type": "think",
}


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_data_of_ones_own(tmp_path, kind, processor, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    (tmp_path / "pictures").mkdir()
    rows = []
    for number in range(3):
        make_image(number).save(tmp_path / f"pictures/{number}.png")
        rows.append({"question": f"How many, {number}?", "label": number, "image": f"pictures/{number}.png"})
    path = tmp_path / f"mine.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    reader = open_rows(str(path), columns=COLUMNS)
    assert inspect_rows(reader, processor, decode=True).problems == []
    sample = Sample.from_row(reader.read(2))
    assert (sample.id, sample.problem, sample.answer) == ("mine/000002", "<image>How many, 2?", ("2",))
    assert (sample.answer_type, sample.source, sample.prompt_type) == ("number", "mine", "think")
    assert [result.failures for result in audit(path, columns=COLUMNS)] == [()]
    with pytest.raises(
        SchemaError, match=r"columns.problem: the data has no column 'query'; it has question"
    ):
        open_rows(str(path), columns=COLUMNS | {"problem": "query"})


def test_bad_rows_of_every_kind_are_found_at_the_start(tmp_path, processor):
    from dataset.loader import create_dataloader

    rows = published_rows(kinds=KINDS[4:5]) * 30
    rows = [dict(row, id=str(number)) for number, row in enumerate(rows)]
    picture = rows[0]["images"][0]["bytes"]
    thin = make_image(0, 300, 1)
    from dataset.images import to_png_bytes

    faults = {
        1: ({"images": [{"bytes": b"no image", "path": None}]}, "cannot be opened"),
        2: ({"images": [{"bytes": picture[:-40], "path": None}]}, "cannot be decoded"),
        3: ({"images": [{"bytes": to_png_bytes(thin), "path": None}]}, "aspect ratio"),
        4: ({"problem": "<image>Is this <|image_pad|>?"}, "would read as an image"),
        5: ({"answer": ["no number"]}, "cannot read the reference"),
        6: ({"problem": None}, "null"),
        7: ({"answer": [None]}, "non-empty string"),
        8: ({"images": [{"bytes": text_bomb(), "path": None}]}, "cannot be"),
        9: ({"prompt_type": "long"}, "prompt_type"),
    }
    for number, (change, _) in faults.items():
        rows[number] |= change
    write_published(tmp_path / "data", rows=rows)
    options = {"batch_size": 4, "max_length": 512, "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(
        SchemaError, match=r"9 of 60 rows cannot be used, more than max_bad_share 0\.1 allows"
    ):
        create_dataloader(str(tmp_path / "data"), processor, **options, max_bad_share=0.1)
    problems = inspect_rows(open_rows(str(tmp_path / "data")), processor).problems
    for (number, (_, reason)), problem in zip(faults.items(), problems, strict=True):
        assert problem.startswith(f"{tmp_path}/data/00000.parquet, row {number} (id '{number}')")
        assert reason in problem
    loader = create_dataloader(str(tmp_path / "data"), processor, **options, max_bad_share=0.2)
    assert sorted(int(row["id"]) for batch in loader for row in batch) == [0, *range(10, 60)]


def text_bomb():
    """A PNG whose text chunk unpacks to 100 times what Pillow allows, behind the pixels."""
    import struct
    import zlib

    from dataset.images import to_png_bytes

    content = b"Comment\0\0" + zlib.compress(b"0" * 100_000_000)
    chunk = (
        struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    )
    image = to_png_bytes(make_image(0))
    return image[:-12] + chunk + image[-12:]
