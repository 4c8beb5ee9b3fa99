"""A real digit, small on a large canvas: what the zoom demo asks about (`make demo-zoom`).

``python -m dataset.zoom_digits --output-dir data/zoom_digits`` writes ``<split>.parquet`` of the splits of
`dataset.digits`, by scan and with the same seed.

The canvas has 448 x 448 pixels, in squares of 8 x 8: light paper, and on it a dark card, in the middle of which the
scan lies as it is stored, 8 x 8 pixels, light on black. The model is shown 56 x 56 pixels (`train_dataset.max_pixels`),
one for each square: the card can be seen, and the digit cannot be read. The shade of its pixel would tell how much ink
it has, and so the digit a little; scans are therefore more or less bright, by chance, and no two squares are alike. A
zoom is cut out of the canvas itself.
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
SQUARE = CANVAS_SIZE // SHOWN_SIZE  # side of a shown pixel on the canvas; the scan's, too
PAPER, CARD = (191, 255), (0, 64)  # shades
CARD_MARGIN = 2  # squares around the scan
BRIGHTNESS = (0.4, 1.0)  # of the scan's light pixels
CELLS = 4  # the scan is the square in the middle of one of CELLS x CELLS cells
PLACES_PER_SCAN = {"warmstart": 4, "train": 2, "heldout": 1, "validation": 1}
QUESTION = "Which digit is this?<image>"


def canvas(scan: int, column: int, row: int, generator: np.random.Generator) -> Image.Image:
    """The canvas with a scan in the middle of a cell, grey."""
    scans, _ = load_scans()
    x, y, _, _ = box_of(column, row)
    squares = generator.integers(PAPER[0], PAPER[1] + 1, (SHOWN_SIZE, SHOWN_SIZE))
    card = slice(y - CARD_MARGIN, y + CARD_MARGIN + 1), slice(x - CARD_MARGIN, x + CARD_MARGIN + 1)
    squares[card] = generator.integers(CARD[0], CARD[1] + 1, squares[card].shape)
    pixels = squares.astype(np.uint8).repeat(SQUARE, axis=0).repeat(SQUARE, axis=1)
    top, left = SQUARE * y, SQUARE * x
    pixels[top : top + SQUARE, left : left + SQUARE] = (255 - scans[scan]) * generator.uniform(*BRIGHTNESS)
    return Image.fromarray(pixels)


def box_of(column: int, row: int) -> list[int]:
    """The box around the middle of a cell, in pixels of what the model sees."""
    cell = SHOWN_SIZE // CELLS
    left, top = (cell * place + cell // 2 for place in (column, row))
    return [left, top, left + 1, top + 1]


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
