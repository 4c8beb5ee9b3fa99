"""The embedded real images of the demo: scikit-learn's scans of handwritten digits. Needs no download.

`--dataset-config` chooses the stage (`stage1`: perception, answer-only; `stage2`: sums, thinking). The held-out scans
are the demo's evaluation split.
"""

from collections.abc import Iterator

from dataset.sources.base import Context, Location, Row, Source
from dataset.sources.reading import read_rows
from utils.sample import Sample


def load(location: Location) -> Iterator[Row]:
    """Rows made by `dataset.digits`, or read from shards that it wrote when a path is given."""
    if location.path:
        yield from read_rows(location)
    else:
        from dataset.digits import build_rows

        yield from build_rows(location.config or "stage1", location.split)


def to_sample(row: Row, context: Context) -> Sample:
    """The row is a curated row already; its id is unique and stays."""
    return Sample.from_row(row)


SOURCE = Source(
    name="digits",
    path="",
    split="train",
    config="stage1",
    columns=("id", "images", "problem", "answer", "problem_type", "answer_type", "source", "prompt_type"),
    problem_type="perception, math",
    answer_type="by row",
    licence="BSD-3-Clause (scikit-learn); scans of the UCI digits set, CC BY 4.0",
    to_sample=to_sample,
    eval_splits=("heldout",),
    load=load,
)
