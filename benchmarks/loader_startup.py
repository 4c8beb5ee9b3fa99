"""Start-up time and memory of the loader: both must not depend on how much the images weigh.

    python -m benchmarks.loader_startup --rows 50000 --image-kilobytes 64

Writes a set of shards with that many rows (removed afterwards), opens it in a fresh process as training does, with
a processor and a length limit, draws batches, and prints seconds and peak memory. A second opening uses the cached
lengths. With ``--rows`` given twice the figures stand side by side.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROWS_PER_SHARD = 5000

CHILD = r"""
import json, re, sys, time
from llavaonevision1_5 import tiny
from dataset.loader import create_dataloader
path, cache, num_batches = sys.argv[1], sys.argv[2], int(sys.argv[3])
processor = tiny.build_processor()
def peak():  # getrusage would report the parent's peak, which survives fork and exec
    return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024
before, started = peak(), time.perf_counter()
loader = create_dataloader(path, processor, batch_size=32, max_length=1024, cache_dir=cache)
opened, opened_peak = time.perf_counter() - started, peak()
batches = iter(loader)
first = time.perf_counter()
next(batches)
first = time.perf_counter() - first
drawing = time.perf_counter()
for _ in range(num_batches - 1):
    next(batches)
drawing = (time.perf_counter() - drawing) / (num_batches - 1)
print(json.dumps({"open_seconds": opened, "first_batch_seconds": first, "batch_seconds": drawing,
                  "memory_at_start_mb": before, "memory_after_open_mb": opened_peak, "memory_peak_mb": peak()}))
"""


def write_set(folder: Path, num_rows: int, image_bytes: int) -> None:
    """Shards of rows with one 112 x 112 image each, padded with random bytes behind the PNG's end to the weight."""
    import numpy as np
    from PIL import Image

    from dataset.images import to_png_bytes
    from dataset.schema import write_shard

    generator = np.random.default_rng(0)
    png = to_png_bytes(Image.fromarray(generator.integers(0, 256, (112, 112, 3), dtype=np.uint8)))
    padding = generator.bytes(max(0, image_bytes - len(png)))
    for start in range(0, num_rows, ROWS_PER_SHARD):
        rows = (
            {
                "id": f"bench/{number:06d}",
                "images": [{"bytes": png + padding, "path": None}],
                "problem": f"<image>What does figure {number} show? "
                + "Consider every detail. " * (number % 20),
                "answer": [str(number)],
                "problem_type": "math",
                "answer_type": "number",
                "source": "bench",
                "prompt_type": "answer",
                "spec": None,
            }
            for number in range(start, min(start + ROWS_PER_SHARD, num_rows))
        )
        write_shard(folder / f"{start:06d}.parquet", rows)


def measure(num_rows: int, image_kilobytes: int, num_batches: int) -> list[dict[str, float]]:
    """Figures of the first and of the second opening, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        write_set(Path(folder) / "data", num_rows, 1024 * image_kilobytes)
        command = [sys.executable, "-c", CHILD, f"{folder}/data", f"{folder}/cache", str(num_batches)]
        runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(2)]
        return [json.loads(run.stdout.splitlines()[-1]) for run in runs]


def main() -> None:
    parser = argparse.ArgumentParser(description="Start-up time and memory of the data loader.")
    parser.add_argument("--rows", type=int, nargs="+", default=[5000, 50000])
    parser.add_argument(
        "--image-kilobytes", type=int, default=32, help="weight of an image (default: %(default)s)"
    )
    parser.add_argument(
        "--batches", type=int, default=20, help="batches of 32 rows drawn (default: %(default)s)"
    )
    args = parser.parse_args()
    for num_rows in args.rows:
        for opening, figures in zip(
            ("first", "cached"), measure(num_rows, args.image_kilobytes, args.batches), strict=True
        ):
            shown = ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
            print(f"{num_rows} rows, {opening} opening: {shown}", flush=True)


if __name__ == "__main__":
    main()
