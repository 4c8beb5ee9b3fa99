import sys

import pyarrow.parquet as pq
import pytest

from dataset import inspect
from dataset.inspect import inspect_rows, render_html, render_text
from dataset.schema import rows_to_table
from dataset.shards import open_rows
from tests.dataset.conftest import make_row


@pytest.fixture
def faulty(tmp_path):
    """A shard with a duplicate id, an unknown answer type and a corrupt image."""
    table = rows_to_table([make_row(n) for n in range(6)])
    rows = table.to_pylist()
    rows[1]["id"] = "set/00000"
    rows[2]["answer_type"] = "numeric"
    rows[3]["images"][0]["bytes"] = rows[3]["images"][0]["bytes"][:150]
    pq.write_table(table.from_pylist(rows, schema=table.schema), tmp_path / "bad.parquet")
    return str(tmp_path / "bad.parquet")


def test_counts_and_lengths(shard, processor):
    found = inspect_rows(open_rows(shard(7)), processor, decode=True)
    assert found.num_rows == 7
    assert found.counts == {("set", "number", "answer"): 7}
    assert found.unit == "tokens"
    assert found.problems == []
    text = render_text(found, "name")
    assert "name: 7 rows" in text
    assert "0 problems" in text


def test_every_problem_is_found_with_its_row(faulty):
    problems = "\n".join(inspect_rows(open_rows(faulty), decode=True).problems)
    assert "row 1 (id 'set/00000'): column 'id': 'set/00000' is also row 0" in problems
    assert "row 2 (id 'set/00002'): column 'answer_type': got 'numeric'" in problems
    assert "row 3 (id 'set/00003'): column 'images': sample set/00003: image cannot be decoded" in problems
    assert len(problems.splitlines()) == 3


def test_page_shows_images_prompts_and_escapes_text(shard):
    reader = open_rows(shard(5, problem="<image>Is 1 < 2 & <b>bold</b>?"))
    page = render_html(inspect_rows(reader), reader, num_samples=3)
    assert page.count("data:image/png;base64,") == 3
    assert "Is 1 &lt; 2 &amp; &lt;b&gt;bold&lt;/b&gt;?" in page
    assert "<b>bold</b>" not in page
    assert "within &lt;answer&gt;&lt;/answer&gt;" in page


def test_page_of_faulty_data_still_comes(faulty):
    reader = open_rows(faulty)
    page = render_html(inspect_rows(reader), reader, num_samples=6)
    assert "image cannot be decoded" in page


def test_command_line_status(shard, faulty, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["inspect", shard(3), "--html", str(tmp_path / "page.html")])
    assert inspect.main() == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    monkeypatch.setattr(sys, "argv", ["inspect", faulty])
    assert inspect.main() == 1
    monkeypatch.setattr(sys, "argv", ["inspect", "./nowhere"])
    assert inspect.main() == 1
    assert "no data at './nowhere'" in capsys.readouterr().err
