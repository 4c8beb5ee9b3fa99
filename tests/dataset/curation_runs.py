"""Commands of `dataset.create` for the tests, and what a run leaves."""

import gzip
import hashlib
import json
from pathlib import Path

from utils.files import parquet_rows

HERE = Path(__file__).parent


ROOT = HERE.parents[1]


def digits_command(checkpoint, address, output, *more):
    return [
        "--model-name", checkpoint, "--dataset-name", "digits", "--rollout-n", "10", "--max-samples", "60",
        "--server-addresses", address, "--output-dir", str(output), "--concurrency", "4", "--max-tokens", "16", *more,
    ]  # fmt: skip


def manifest_of(output, source="digits"):
    return json.loads((output / "curation" / source / "manifest.json").read_text())


def generations_of(output, source="digits"):
    with gzip.open(output / "curation" / source / "generations.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def shard_rows(output):
    return [row for path in sorted(output.glob("*.parquet")) for row in parquet_rows(path)]


def contents(output):
    """Hashes of what must be the same in every run: shards and generations."""
    files = [*sorted(output.glob("*.parquet")), output / "curation" / "digits" / "generations.jsonl.gz"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
