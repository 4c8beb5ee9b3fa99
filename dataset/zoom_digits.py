"""A real digit, small on a large canvas: what the zoom demo asks about (`make demo-zoom`).

``python -m dataset.zoom_digits --output-dir data/zoom_digits`` writes ``<split>.parquet`` of the splits of
`dataset.digits`, by scan and with the same seed.

The canvas has 448 x 448 pixels, of which the scan covers 16 x 16. The model is shown 56 x 56 of them
(`train_dataset.max_pixels`), in which the scan is two pixels wide and high: its place can be seen, the digit cannot be
read. A zoom is cut out of the canvas itself.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset.digits import SPLITS, load_scans, split_scans
from dataset.images import to_png_bytes
from dataset.schema import write_shard
from utils.command_line import Parser, check_output

CANVAS_SIZE = 448
SHOWN_SIZE = 56  # what the model sees of it
SCAN_SIZE = 16  # twice the scan's own 8 pixels
CELLS = 4  # the scan lies somewhere in the middle of one of CELLS x CELLS cells
BOX_SIZE = 4  # side of the box around a cell's middle, in pixels of what the model sees
JITTER = 4  # pixels of the canvas
PLACES_PER_SCAN = {"warmstart": 4, "train": 4, "heldout": 1, "validation": 1}
QUESTION = "<image>Which digit is this?"


def canvas(scan: int, column: int, row: int, generator: np.random.Generator) -> Image.Image:
    """The canvas with a scan near the middle of a cell, RGB."""
    pixels, _ = load_scans()
    image = Image.fromarray(pixels[scan], mode="L").resize((SCAN_SIZE, SCAN_SIZE), Image.Resampling.BICUBIC)
    cell = CANVAS_SIZE // CELLS
    left, top = (
        cell * place + (cell - SCAN_SIZE) // 2 + int(generator.integers(-JITTER, JITTER + 1))
        for place in (column, row)
    )
    whole = Image.new("L", (CANVAS_SIZE, CANVAS_SIZE), 255)
    whole.paste(image, (left, top))
    return whole.convert("RGB")


def box_of(column: int, row: int) -> list[int]:
    """The box around the middle of a cell, in pixels of what the model sees."""
    cell = SHOWN_SIZE // CELLS
    left, top = (cell * place + (cell - BOX_SIZE) // 2 for place in (column, row))
    return [left, top, left + BOX_SIZE, top + BOX_SIZE]


def build_rows(split: str, seed: int = 219) -> list[dict[str, Any]]:
    """Curated rows of a split, in a fixed order; ids look like ``zoom-digits/train/0042-1-3-0``: scan, place, cell.

    Raises ``ValueError`` for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"got split {split!r}, wanted one of {SPLITS}")
    _, labels = load_scans()
    rows = []
    for turn in range(PLACES_PER_SCAN[split]):
        for scan in split_scans(seed)[split]:
            generator = np.random.default_rng([seed, scan, turn])
            column, row = (int(place) for place in generator.integers(0, CELLS, 2))
            image = to_png_bytes(canvas(scan, column, row, generator))
            rows.append(
                {
                    "id": f"zoom-digits/{split}/{scan:04d}-{turn}-{column}-{row}",
                    "images": [{"bytes": image, "path": None}],
                    "problem": QUESTION,
                    "answer": [str(int(labels[scan]))],
                    "problem_type": "perception",
                    "answer_type": "number",
                    "source": "zoom-digits",
                    "prompt_type": "answer",
                    "spec": None,
                }
            )
    return rows


def cell_of(sample_id: str) -> tuple[int, int]:
    """(column, row) of the cell in which a row's digit lies.

    >>> cell_of("zoom-digits/train/0042-1-3-0")
    (3, 0)
    """
    column, row = sample_id.split("-")[-2:]
    return int(column), int(row)


def write_zoom_digits(output_dir: str | Path, seed: int = 219) -> dict[str, int]:
    """Write all splits; returns the number of rows of each."""
    return {
        split: write_shard(Path(output_dir) / f"{split}.parquet", build_rows(split, seed)) for split in SPLITS
    }


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m dataset.zoom_digits", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument(
        "--output-dir", default="data/zoom_digits", help="where the shards go (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=219, help="of the split and the rows (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    try:
        check_output(args.output_dir, "--output-dir")
    except ValueError as error:
        parser.error(str(error))
    for split, count in write_zoom_digits(args.output_dir, args.seed).items():
        print(f"{args.output_dir}/{split}.parquet: {count} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
