"""The journal survives torn tails, refuses damage in the middle, and belongs to one run at a time."""

import pytest

from dataset.curate.journal import FRAME, Journal, JournalError, Record, check_same_settings, encode_record

RECORDS = [Record({"position": i, "text": "ä\ud800" * i}, (bytes([i]) * i * 50, b"")) for i in range(5)]


@pytest.fixture
def path(tmp_path):
    journal = Journal(tmp_path / "run" / "journal.bin")
    for record in RECORDS:
        journal.append(record)
    journal.close()
    return tmp_path / "run" / "journal.bin"


def read_all(path):
    journal = Journal(path)
    try:
        return [record for _, record in journal.records(with_blobs=True)], journal.num_torn_bytes
    finally:
        journal.close()


def test_round_trip_with_blobs_and_lone_surrogates(path):
    assert read_all(path) == (RECORDS, 0)
    journal = Journal(path)
    offsets = [offset for offset, _ in journal.records()]
    assert [journal.read(offset) for offset in reversed(offsets)] == RECORDS[::-1]
    with pytest.raises(JournalError, match="no whole record"):
        journal.read(offsets[1] + 1)
    journal.close()


def test_every_possible_torn_tail_is_cut_off_and_writing_goes_on(path):
    content = path.read_bytes()
    last = len(encode_record(RECORDS[-1]))
    for lost in (1, 2, last - FRAME.size, last - FRAME.size + 1, last - 3, last - 1):
        path.write_bytes(content[:-lost])
        records, torn = read_all(path)
        assert (records, torn) == (RECORDS[:-1], last - lost)
        journal = Journal(path)
        journal.append(RECORDS[-1])
        journal.close()
        assert path.read_bytes() == content


def test_a_flipped_bit_in_the_last_record_loses_that_record_alone(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert read_all(path)[0] == RECORDS[:-1]


def test_damage_before_whole_records_is_an_error_and_cuts_nothing(path):
    content = bytearray(path.read_bytes())
    content[len(encode_record(RECORDS[0])) + FRAME.size + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(JournalError, match="damaged at byte"):
        read_all(path)
    assert path.read_bytes() == bytes(content)


def test_two_runs_cannot_share_a_journal(path):
    first = Journal(path)
    with pytest.raises(JournalError, match="in use"):
        Journal(path)
    first.close()
    Journal(path).close()


def test_differences_of_settings_are_all_named(path):
    check_same_settings(path, {"seed": 1}, {"seed": 1})
    with pytest.raises(JournalError) as error:
        check_same_settings(path, {"seed": 1, "model": "a", "gone": 2}, {"seed": 3, "model": "a", "new": 4})
    text = str(error.value)
    assert "seed: the journal has 1, this run 3" in text
    assert "gone: the journal has 2, this run None" in text
    assert "new: the journal has None, this run 4" in text
    assert "model" not in text
