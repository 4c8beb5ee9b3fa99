"""The embedded source: scikit-learn's 1,797 scans of real handwritten digits, as curated shards.

``python -m dataset.digits --output-dir data/digits`` writes ``<stage>/<split>.parquet`` and ``manifest.json``.

Splits are by scan, fixed by the seed and stratified by digit: `heldout` (400 scans, for reporting only),
`warmstart` (300, for the supervised phase that makes the tiny model), `validation` (200, for choosing learning rates
and mixtures) and `train` (the other 897, for reinforcement learning). A scan belongs to one split in every task, also
inside sums and on canvases.

Stage 1 asks for short perception under the answer-only prompt; stage 2 asks for sums of two scans under the
thinking prompt. Both are balanced so that any prefix of stage 1 holds its tasks in equal shares.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from dataset.images import to_png_bytes
from dataset.schema import write_shard
from utils.command_line import Parser, check_output

NUM_HELDOUT = 400
NUM_WARMSTART = 300
NUM_VALIDATION = 200
SCAN_SIZE = 56  # pixels; 4 tokens with 14-pixel patches merged 2x2
CANVAS_SIZE = 112
CANVAS_STEP = 28  # the scan's corner lies on this grid
GROUPS = {"A": "0 1 2", "B": "3 4", "C": "5 6", "D": "7 8 9"}  # options of the multiple-choice task
SPLITS = ("warmstart", "train", "heldout", "validation")
STAGES = ("stage1", "stage2")
SUMS_PER_SCAN = {"warmstart": 4, "train": 2, "heldout": 1, "validation": 1}
WITH_STAGE1 = ("heldout", "validation")  # splits whose second stage measures what is forgotten, too
EXTRA_COLUMNS = {"rationale": pa.string()}  # a worked solution, only in the warm-start split


@lru_cache(maxsize=1)
def load_scans() -> tuple[np.ndarray, np.ndarray]:
    """(scans [1797, 8, 8] uint8, dark ink on white; labels [1797] int), in scikit-learn's order."""
    from sklearn.datasets import load_digits

    data = load_digits()
    ink = data.images / 16.0  # stored as 0 to 16
    return np.round(255 * (1 - ink)).astype(np.uint8), data.target.astype(int)


def split_scans(seed: int = 219) -> dict[str, list[int]]:
    """Split name -> scan indices in shuffled order; disjoint, together all scans, stratified by digit."""
    _, labels = load_scans()
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(labels))
    # Interleaving the classes makes every prefix balanced, so cutting at any point is stratified.
    rank_in_class = np.zeros(len(labels), dtype=int)
    for digit in range(10):
        members = shuffled[labels[shuffled] == digit]
        rank_in_class[members] = np.arange(len(members))
    order = [int(i) for i in sorted(shuffled, key=lambda i: (rank_in_class[i], labels[i]))]
    heldout, warmstart, validation, train = np.split(
        np.array(order), np.cumsum([NUM_HELDOUT, NUM_WARMSTART, NUM_VALIDATION])
    )
    parts = {"heldout": heldout, "warmstart": warmstart, "train": train, "validation": validation}
    return {name: [int(i) for i in generator.permutation(scans)] for name, scans in parts.items()}


def scan_image(scan: int) -> Image.Image:
    """One scan as SCAN_SIZE x SCAN_SIZE RGB."""
    pixels, _ = load_scans()
    image = Image.fromarray(pixels[scan], mode="L")
    return image.resize((SCAN_SIZE, SCAN_SIZE), Image.Resampling.BICUBIC).convert("RGB")


@cache
def scan_png(scan: int) -> bytes:
    """The scan's PNG; every task but one shows it as it is."""
    return to_png_bytes(scan_image(scan))


def canvas_image(scan: int, left: int, top: int) -> Image.Image:
    """The scan with its upper left corner at (left, top) pixels of a white CANVAS_SIZE square."""
    canvas = Image.new("RGB", (CANVAS_SIZE, CANVAS_SIZE), (255, 255, 255))
    canvas.paste(scan_image(scan), (left, top))
    return canvas


def number_row(scan: int, label: int, generator: np.random.Generator) -> dict[str, Any]:
    """Read the digit."""
    return _row("number", "<image>Which digit is this?", str(label), [scan_png(scan)], f"It is {label}.")


def boolean_row(scan: int, label: int, generator: np.random.Generator) -> dict[str, Any]:
    """Even or odd."""
    answer = "yes" if label % 2 == 0 else "no"
    return _row("boolean", "<image>Is this digit even?", answer, [scan_png(scan)], f"It is {label}.")


def choice_row(scan: int, label: int, generator: np.random.Generator) -> dict[str, Any]:
    """Which of four groups of digits. The groups are fixed: looking an option up in a list is beyond a tiny model."""
    letter = next(name for name, group in GROUPS.items() if str(label) in group.split())
    listed = "\n".join(f"{name}. {group}" for name, group in GROUPS.items())
    problem = f"<image>Which group has this digit?\n{listed}"
    return _row("multiple-choice", problem, letter, [scan_png(scan)], f"It is {label}.")


def bbox_row(scan: int, label: int, generator: np.random.Generator) -> dict[str, Any]:
    """Where the scan lies on a larger canvas, as [x1, y1, x2, y2] in pixels."""
    corners = range(0, CANVAS_SIZE - SCAN_SIZE + 1, CANVAS_STEP)
    left, top = (int(generator.choice(corners)) for _ in range(2))
    box = f"[{left}, {top}, {left + SCAN_SIZE}, {top + SCAN_SIZE}]"
    problem = "<image>Where is the digit? Give its box as [x1, y1, x2, y2]."
    row = _row("bbox", problem, box, [to_png_bytes(canvas_image(scan, left, top))], f"The box is {box}.")
    # Without a threshold the central box, which overlaps with all others, is a comfortable answer to everything.
    return row | {"spec": json.dumps({"eps": 0.5})}


def sum_row(first: int, second: int) -> dict[str, Any]:
    """The sum of the digits in two images, under the thinking prompt."""
    _, labels = load_scans()
    a, b = int(labels[first]), int(labels[second])
    images = [scan_png(first), scan_png(second)]
    row = _row("sum", "<image><image>What is the sum?", str(a + b), images, f"{a}+{b}={a + b}")
    return row | {"answer_type": "math-expressions", "problem_type": "math", "prompt_type": "think"}


STAGE1_TASKS: dict[str, Callable[[int, int, np.random.Generator], dict[str, Any]]] = {
    "number": number_row,
    "boolean": boolean_row,
    "choice": choice_row,
    "bbox": bbox_row,
}


def build_rows(stage: str, split: str, seed: int = 219) -> list[dict[str, Any]]:
    """Curated rows of a stage and split, in a fixed order; ids look like ``digits-number/train/0042``.

    Stage 1 has every scan once per task. Its order visits all scans once, tasks taking turns, before it visits
    them again, so the first 400 held-out rows cover 400 scans with 100 rows per task. Stage 2's held-out split has
    400 sums and then those rows, so that what is learned and what is forgotten are measured together; likewise
    `validation`, with 200.
    Raises ``ValueError`` for an unknown stage or split.
    """
    if stage not in STAGES or split not in SPLITS:
        raise ValueError(f"got stage {stage!r}, split {split!r}; wanted {STAGES} and {SPLITS}")
    scans = split_scans(seed)[split]
    rows = _stage1_rows(scans, seed) if stage == "stage1" else _stage2_rows(scans, split, seed)
    if stage == "stage2" and split in WITH_STAGE1:
        rows += _stage1_rows(scans, seed)[: len(scans)]
    for name, row in rows:
        row["id"] = row["id"].format(split=split, name=name)
        if split != "warmstart":
            row["rationale"] = None
    return [row for _, row in rows]


def write_digits(output_dir: str | Path, seed: int = 219) -> dict[str, Any]:
    """Write all stages and splits and the manifest (row counts, scans per split, file hashes); returns it."""
    output_dir = Path(output_dir)
    manifest: dict[str, Any] = {"source": "scikit-learn load_digits", "seed": seed, "files": {}}
    manifest["num_scans"] = {split: len(scans) for split, scans in split_scans(seed).items()}
    for stage in STAGES:
        for split in SPLITS:
            path = output_dir / stage / f"{split}.parquet"
            extra = EXTRA_COLUMNS if split == "warmstart" else None
            num_rows = write_shard(path, build_rows(stage, split, seed), extra)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            manifest["files"][f"{stage}/{split}.parquet"] = {"num_rows": num_rows, "sha256": sha256}
    (output_dir / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def _row(task: str, problem: str, answer: str, images: list[bytes], rationale: str) -> dict[str, Any]:
    source = "digits-choice" if task == "multiple-choice" else f"digits-{task}"
    return {
        "id": f"{source}/{{split}}/{{name}}",
        "images": [{"bytes": image, "path": None} for image in images],
        "problem": problem,
        "answer": [answer],
        "problem_type": "perception",
        "answer_type": task,
        "source": source,
        "prompt_type": "answer",
        "spec": None,
        "rationale": rationale,
    }


def _stage1_rows(scans: list[int], seed: int) -> list[tuple[str, dict[str, Any]]]:
    _, labels = load_scans()
    tasks = list(STAGE1_TASKS)
    rows = []
    for turn in range(len(tasks)):
        for position, scan in enumerate(scans):
            task = tasks[(position + turn) % len(tasks)]
            # A generator per row: adding a task or a scan changes no other row.
            generator = np.random.default_rng([seed, scan, list(STAGE1_TASKS).index(task)])
            rows.append((f"{scan:04d}", STAGE1_TASKS[task](scan, int(labels[scan]), generator)))
    return rows


def _stage2_rows(scans: list[int], split: str, seed: int) -> list[tuple[str, dict[str, Any]]]:
    generator = np.random.default_rng([seed, SPLITS.index(split)])
    rows = []
    for turn in range(SUMS_PER_SCAN[split]):
        partners = generator.permutation(scans)
        pairs = zip(scans, (int(partner) for partner in partners), strict=True)
        rows += [(f"{turn}-{a:04d}-{b:04d}", sum_row(a, b)) for a, b in pairs]
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m dataset.digits", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument(
        "--output-dir", default="data/digits", help="where the shards go (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=219, help="of the split and the rows (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    try:
        check_output(args.output_dir, "--output-dir")
    except ValueError as error:
        parser.error(str(error))
    for name, file in write_digits(args.output_dir, args.seed)["files"].items():
        print(f"{args.output_dir}/{name}: {file['num_rows']} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
