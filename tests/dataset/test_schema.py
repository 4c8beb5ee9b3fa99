import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset.schema import (
    ROWS_PER_GROUP,
    SchemaError,
    columns_problems,
    row_problems,
    rows_to_table,
    write_shard,
)
from tests.dataset.conftest import make_row
from utils.files import parquet_rows


def test_written_rows_come_back_with_their_image_sizes(tmp_path):
    rows = [make_row(n, num_images=n % 3) for n in range(2 * ROWS_PER_GROUP + 1)]
    assert write_shard(tmp_path / "a.parquet", rows) == len(rows)
    back = list(parquet_rows(tmp_path / "a.parquet"))
    assert [{key: row[key] for key in rows[0]} for row in back] == rows
    assert [len(row["image_sizes"]) for row in back] == [n % 3 for n in range(len(rows))]
    assert back[1]["image_sizes"] == [[56, 56]]
    assert pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).num_rows == ROWS_PER_GROUP
    assert columns_problems(pq.read_schema(tmp_path / "a.parquet")) == []


def test_same_rows_give_same_bytes_and_no_temporary_file_stays(tmp_path):
    for name in ("a", "b"):
        write_shard(tmp_path / name, [make_row(n) for n in range(5)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_failed_write_leaves_the_old_shard(tmp_path):
    write_shard(tmp_path / "a", [make_row(1)])
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(SchemaError):
        write_shard(tmp_path / "a", [make_row(2, answer=[])])
    assert (tmp_path / "a").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": []}, "'answer': got []"),
        ({"answer": [" "]}, "'answer'"),
        ({"answer_type": "numeric"}, "'answer_type': got 'numeric'"),
        ({"prompt_type": "cot"}, "'prompt_type': got 'cot'"),
        ({"problem": "no mark"}, "0 <image> marks but 1 images"),
        ({"problem": "<image><image>"}, "2 <image> marks but 1 images"),
        ({"images": None}, "1 <image> marks but 0 images"),
        ({"id": ""}, "'id': empty"),
        ({"source": None}, "'source': null"),
        ({"spec": "{"}, "'spec'"),
    ],
)
def test_wrong_values_say_column_row_and_value(changes, message):
    assert list(row_problems(make_row())) == []
    assert any(message in problem for problem in row_problems(make_row(**changes)))
    with pytest.raises(SchemaError, match="row 1 "):
        rows_to_table([make_row(0), make_row(1, **changes)])


def test_text_only_rows_are_sound():
    assert list(row_problems(make_row(num_images=0))) == []
    assert list(row_problems(make_row(num_images=0, images=None))) == []


def test_corrupt_image_is_refused_at_writing():
    with pytest.raises(SchemaError, match="set/00000: image cannot be opened"):
        rows_to_table([make_row(0, images=[{"bytes": b"no image", "path": None}])])


def test_wrong_columns_are_named():
    table = pa.table({"id": [1], "problem": ["x"], "answer": ["7"]})
    problems = columns_problems(table.schema)
    assert "column 'id': got int64, wanted string" in problems
    assert "column 'answer': got string, wanted list<item: string>" in problems
    assert any(problem.startswith("column 'images' is missing") for problem in problems)


def test_extra_columns_are_kept():
    table = rows_to_table([make_row() | {"pass_at_1": 0.5}], {"pass_at_1": pa.float64()})
    assert table.column("pass_at_1").to_pylist() == [0.5]
