"""Records outlive a crash in the middle of a line and a disk that is full."""

import errno
import json
import os

import pytest

from utils import records


def test_a_line_that_was_cut_off_is_cut_off_for_good(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert records.read(path) == [{"step": 1}, {"step": 2}]
    records.append(path, {"step": 3})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


@pytest.mark.parametrize("size", [0, 1, 7, records.TAIL_BYTES, 3 * records.TAIL_BYTES + 5])
def test_the_end_of_the_last_line_is_found_however_much_follows(size, tmp_path):
    path = tmp_path / "file"
    for before in ("", '{"a": 1}\n'):
        path.write_text(before + "x" * size)
        records.append(path, {"b": 2})
        assert path.read_text() == before + '{"b": 2}\n'


def test_only_the_last_line_may_be_broken(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n')
    assert records.read(path) == [{"step": 1}]
    path.write_text('{"st\n{"step": 1}\n')
    with pytest.raises(ValueError, match="line 1: not a record"):
        records.read(path)
    assert records.read(tmp_path / "none") == []


def test_dropping_records_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)) + '{"st')
    whole = path.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="No space left"):
            records.keep(path, lambda record: record["step"] <= 1)
    assert path.read_text() == whole
    records.keep(path, lambda record: record["step"] <= 2)
    assert records.read(path) == [{"step": 1}, {"step": 2}]
    records.keep(tmp_path / "none", bool)
    assert not (tmp_path / "none").exists()


def test_a_full_disk_leaves_the_file_as_it_was_and_is_heard_of(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    records.append(path, {"step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="No space left"):
            records.append(path, {"step": 2})
    assert path.read_text() == '{"step": 1}\n'
    records.append(path, {"step": 2})
    assert records.read(path) == [{"step": 1}, {"step": 2}]


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")
