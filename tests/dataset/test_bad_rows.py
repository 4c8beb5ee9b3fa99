"""Rows that only a costly verifier can judge, the processes that check rows, and the list of what was left out."""

import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset import lengths, references
from dataset.bad_rows import BadRow, BadRows
from dataset.inspect import inspect_rows
from dataset.lengths import check_rows
from dataset.loader import create_dataloader
from dataset.prompts import DEFAULT_PROMPTS
from dataset.references import unreadable
from dataset.schema import OPTIONAL_COLUMNS, REQUIRED_COLUMNS, SchemaError
from dataset.shards import open_rows
from tests.dataset.conftest import make_row
from trains.rehearsal.published import LIST, SVG

SCRIPT = "<svg xmlns='http://www.w3.org/2000/svg' width='40' height='40'><script/></svg>"
COSTLY = (  # answer type, reference, what is wrong with it
    ("svg-code", SVG, None),
    ("svg-code", SCRIPT, "a script element"),
    ("svg-code", "no svg", "no svg root"),
    ("html-code", LIST, None),
    ("html-code", "plain words", "no HTML element"),
    ("math-expressions", r"\frac{3}{4}", None),
    ("math-expressions", r"\frac{3", "neither a number nor an expression"),
    ("math-expressions", r"\frac{3", "neither a number nor an expression"),
    ("ocrtext", "ACME Ltd.", None),
    ("number", "7", None),
)


def write(path, rows):
    schema = pa.schema(REQUIRED_COLUMNS | {"spec": OPTIONAL_COLUMNS["spec"]})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return str(path)


@pytest.fixture
def costly(tmp_path):
    rows = [
        make_row(number, answer_type=kind, answer=[reference])
        for number, (kind, reference, _) in enumerate(COSTLY)
    ]
    return write(tmp_path / "rows.parquet", rows)


def test_references_of_costly_verifiers_are_read_at_the_start_and_listed_once(costly, tmp_path, caplog):
    listed = BadRows(tmp_path / "bad_rows.jsonl")
    options = {"batch_size": 2, "cache_dir": str(tmp_path / "cache"), "bad_rows": listed}
    with pytest.raises(SchemaError, match=r"5 of 10 rows cannot be used, more than max_bad_share 0\.01"):
        create_dataloader(costly, None, **options)
    loader = create_dataloader(costly, None, **options, max_bad_share=0.5)  # from the cache
    wrong = {number: reason for number, (_, _, reason) in enumerate(COSTLY) if reason}
    rows = [json.loads(line) for line in listed.path.read_text().splitlines()]
    assert [(row["file"], row["row"], row["id"]) for row in rows] == [
        (costly, number, f"set/{number:05d}") for number in wrong
    ]
    assert all(reason in row["fault"] for row, reason in zip(rows, wrong.values(), strict=True))
    assert len(listed) == caplog.text.count("row left out") == 5
    assert sorted(row["id"] for batch in loader for row in batch) == [
        f"set/{number:05d}" for number in range(10) if number not in wrong
    ]
    assert rows[1]["fault"].startswith(
        "column 'answer': svg-code cannot read the reference 'no svg': no svg root"
    )
    problems = inspect_rows(open_rows(costly)).problems
    assert problems == [str(BadRow(**row)) for row in rows], "the same words before a run"


def test_a_reference_that_hangs_its_verifier_is_a_bad_row_and_takes_its_deadline(tmp_path):
    (tmp_path / "mine.py").write_text(
        "while True:\n    pass\n\ndef score(answer, reference):\n    return 1.0\n"
    )
    spec = json.dumps({"verifier": f"{tmp_path}/mine.py:score", "deadline_seconds": 0.2})
    reference = ('["7"]', "number", spec)
    assert unreadable([reference]) == {
        reference: "column 'answer': the verifier cannot read the reference (timeout)"
    }


def test_what_is_not_read_in_time_is_said_and_no_fault(monkeypatch, caplog):
    monkeypatch.setattr(references, "TOTAL_SECONDS", 0.0)
    with caplog.at_level(logging.WARNING):
        assert unreadable([('["x+1"]', "math-expressions", None), ('["?"]', "math-expressions", None)]) == {}
    assert "2 references were not read within 0 s" in caplog.text


def test_several_processes_find_what_one_finds(tmp_path, processor, monkeypatch):
    rows = [make_row(number, problem="<image>" + "word " * (7 * number)) for number in range(40)]
    rows[7]["answer"], rows[33]["images"] = ["no number"], [{"bytes": b"no image", "path": None}]
    reader = open_rows(write(tmp_path / "rows.parquet", rows))
    found = []
    for span in (100, 9):
        monkeypatch.setattr(lengths, "SPAN_ROWS", span)
        found.append(
            check_rows(
                reader, processor, max_length=200, prompts=DEFAULT_PROMPTS, max_pixels=None,
                cache_dir=str(tmp_path / f"cache{span}"),
            )
        )  # fmt: skip
    one, several = found
    assert one.lengths.tolist() == several.lengths.tolist()
    assert one.bad == several.bad
    assert list(one.bad) == [7, 33]
    assert len(one.fitting(200)) < 38


def test_a_row_is_counted_and_written_once_and_only_where_it_is_to_be(tmp_path):
    row = BadRow("a.parquet", 3, "x", "broken")
    first, other = BadRows(tmp_path / "bad.jsonl"), BadRows(tmp_path / "bad.jsonl")
    first.add([row, row])
    first.add([BadRow("a.parquet", 3, "x", "broken in another way")])
    other.add([row], written=True)  # a rank that found the same at its start
    other.add([row])
    other.add([BadRow("a.parquet", 4, None, "found while running")])
    assert (len(first), len(other)) == (1, 2)
    assert [json.loads(line)["row"] for line in (tmp_path / "bad.jsonl").read_text().splitlines()] == [3, 4]


def test_a_row_left_out_while_running_is_not_handed_out_again(shard, tmp_path):
    loader = create_dataloader(shard(6), None, batch_size=2, cache_dir=str(tmp_path / "cache"))
    bad = next(row for batch in loader for row in batch if row["id"] == "set/00004")
    for _ in range(2):
        loader.leave_out(bad["place"], bad["id"], "its reference cannot be read")
    for _ in range(2):
        assert sorted(row["id"][-1] for batch in loader for row in batch) == ["0", "1", "2", "3", "5"]
    assert loader.num_left_out == len(loader.bad_rows) == 1
