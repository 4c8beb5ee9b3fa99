from pathlib import Path

from utils import metric_names

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_up_to_date():
    assert (ROOT / "docs/metrics.md").read_text() == metric_names.page(), "run python -m utils.metric_names"


def test_stars_match_one_part_and_unknown_names_have_no_sentence():
    assert metric_names.describe("by_source/digits-sum/parts/accuracy").endswith("One source.")
    assert metric_names.describe("gap_histogram/3") == "Tokens by version gap."
    assert metric_names.describe("nobody/knows") is None
