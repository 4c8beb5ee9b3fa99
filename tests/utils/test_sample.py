import pytest

from tests.dataset.conftest import make_row
from utils.sample import Sample, parse_spec


def test_row_round_trip_keeps_everything():
    row = make_row(3, num_images=2, spec='{"eps": 0.5}')
    sample = Sample.from_row(row)
    assert sample.answer == ("3",)
    assert sample.spec == {"eps": 0.5}
    assert sample.to_row() == row


def test_statistics_columns_are_ignored_and_missing_columns_are_not():
    assert Sample.from_row(make_row() | {"pass_at_1": 0.25}) == Sample.from_row(make_row())
    row = make_row()
    del row["source"]
    with pytest.raises(KeyError, match="source"):
        Sample.from_row(row)


@pytest.mark.parametrize("spec", ["{eps: 1}", "[1]", "3"])
def test_bad_spec_names_the_sample(spec):
    with pytest.raises(ValueError, match="sample set/00000"):
        Sample.from_row(make_row(spec=spec))


@pytest.mark.parametrize("spec", [None, ""])
def test_no_spec_is_none(spec):
    assert parse_spec(spec) is None


def test_prompt_type_is_checked():
    sample = Sample.from_row(make_row())
    assert sample.with_prompt_type("think").prompt_type == "think"
    with pytest.raises(ValueError, match="prompt_type"):
        sample.with_prompt_type("thinking")
