"""The result of a run, derived from its journal alone: shards, generations and the manifest.

The same journal and rules give the same bytes. The manifest goes first and comes last: while it is missing, the folder
is not finished, whatever else lies there.
"""

import gzip
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataset.curate.journal import Journal, images_of
from dataset.curate.pipeline import Progress, statistics_of
from dataset.curate.rules import drop_reason
from dataset.curate.settings import Settings
from dataset.curate.statistics import Statistics
from dataset.schema import write_shard
from utils.files import replacing

STATISTICS_COLUMNS: dict[str, pa.DataType] = {
    "pass_at_1": pa.float64(),
    "pass_at_ks": pa.list_(pa.int32()),  # k of each entry of pass_at
    "pass_at": pa.list_(pa.float64()),  # unbiased Pass@k
    "gap": pa.float64(),  # Pass@N - Pass@1
    "mean_reward": pa.float64(),
    "reward_variance": pa.float64(),  # population
    "num_attempts": pa.int32(),
    "num_solved": pa.int32(),
    "solved_threshold": pa.float64(),
    "rewards": pa.list_(pa.float64()),  # per attempt
    "mean_tokens": pa.float64(),
    "row_number": pa.int64(),  # in the source
    "reward_rule": pa.string(),  # JSON: the resolved verifier, parameters and weights
}
SWEEP_STEPS = 10
MAX_LISTED = 1000  # rejected rows named in the manifest; all of them are in generations.jsonl.gz


@dataclass(frozen=True, slots=True)
class Decided:
    """One decided position: what the report needs, without text or images."""

    position: int
    source: str
    answer_type: str | None
    statistics: Statistics | None
    outcome: str  # "kept", "dropped" or "rejected"
    reason: str | None
    num_tokens: int


def write_results(
    settings: Settings, journal: Journal, progress: Progress
) -> tuple[dict[str, Any], list[Decided]]:
    """Write shards and generations; returns the manifest (not yet written) and the decided positions in order."""
    manifest_path = settings.work_dir / "manifest.json"
    manifest_path.unlink(missing_ok=True)
    generations = settings.work_dir / "generations.jsonl.gz"
    decided = list(_write_generations(generations, journal, progress))
    shards = _write_shards(settings, journal, progress)
    manifest = {
        "format": 1,
        "command": list(settings.command),
        "measurement": progress.measurement,
        "selection": settings.selection(),
        "counts": counts(decided),
        "by_source": {
            name: counts([d for d in decided if d.source == name])
            for name in sorted({d.source for d in decided})
        },
        "raw": summary([d for d in decided if d.statistics]),
        "kept": summary([d for d in decided if d.outcome == "kept"]),
        "sweep": sweep(decided, settings),
        "shards": shards,
        "generations": {"file": generations.name, "sha256": _sha256(generations)},
        "rejected_rows": _rejected_rows(journal, progress),
        "complete": bool(progress.selection.complete or progress.exhausted),
        "num_beyond": len(progress.offsets) - len(decided),  # journaled after the size was reached
        "throughput": {
            "rows_resumed": progress.num_resumed,
            "generations": progress.num_generated,
            "tokens": progress.num_tokens,
            "seconds": round(progress.seconds, 2),
            "tokens_per_second": round(progress.num_tokens / progress.seconds, 1)
            if progress.seconds
            else 0.0,
        },
    }
    return manifest, decided


def write_manifest(settings: Settings, manifest: Mapping[str, Any]) -> Path:
    """Write the manifest atomically; its presence says that everything else is in place."""
    path = settings.work_dir / "manifest.json"
    with replacing(path) as file:
        file.write((json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode())
    return path


def counts(decided: Sequence[Decided]) -> dict[str, Any]:
    """How many rows were examined, measured, kept, dropped and rejected, the last two by reason."""
    dropped = Counter(d.reason for d in decided if d.outcome == "dropped")
    rejected = Counter(d.reason for d in decided if d.outcome == "rejected")
    num_kept = sum(d.outcome == "kept" for d in decided)
    return {
        "examined": len(decided),
        "measured": num_kept + dropped.total(),
        "kept": num_kept,
        "dropped": dropped.total(),
        "rejected": rejected.total(),
        "dropped_by_reason": dict(sorted(dropped.items())),
        "rejected_by_reason": dict(sorted(rejected.items())),
    }


def summary(decided: Sequence[Decided]) -> dict[str, Any]:
    """Means over measured samples; None where there is none."""
    measured = [d.statistics for d in decided if d.statistics is not None]

    def mean(values: Iterable[float]) -> float | None:
        values = list(values)
        return math.fsum(values) / len(values) if values else None

    ks = sorted(measured[0].pass_at) if measured else []
    return {
        "num_samples": len(measured),
        "mean_reward": mean(s.mean_reward for s in measured),
        "mean_variance": mean(s.reward_variance for s in measured),
        "mean_gap": mean(s.gap for s in measured),
        "pass_at": {str(k): mean(s.pass_at[k] for s in measured) for k in ks},
        "mean_tokens": mean(d.num_tokens / d.statistics.num_attempts for d in decided if d.statistics),
    }


def sweep(decided: Sequence[Decided], settings: Settings) -> dict[str, list[list[float]]]:
    """How many measured samples would be kept at other thresholds, the other rules unchanged.

    Class shares and the data set's size are left out: they cut, they do not judge.
    """
    from dataclasses import replace

    measured = [d.statistics for d in decided if d.statistics is not None]

    def kept(**changes: Any) -> int:
        rule = replace(settings.rule, keep_all=False, **changes)
        return sum(drop_reason(statistics, rule) is None for statistics in measured)

    steps = [step / SWEEP_STEPS for step in range(SWEEP_STEPS + 1)]
    return {
        "min_gap": [[t, kept(min_gap=t)] for t in steps[:-1]],
        "max_reward": [[t, kept(max_reward=t)] for t in steps[1:]] + [["off", kept(max_reward=math.inf)]],
        "min_reward": [[t, kept(min_reward=t)] for t in steps[:-1]],
    }


def curated_row(header: Mapping[str, Any], images: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The row of a shard: the sample, its statistics, and the rule it was judged by."""
    sample, statistics, attempts = header["sample"], statistics_of(dict(header)), header["attempts"]
    ks = sorted(statistics.pass_at)
    return {
        **sample,
        "images": list(images),
        "pass_at_1": statistics.pass_at_1,
        "pass_at_ks": ks,
        "pass_at": [statistics.pass_at[k] for k in ks],
        "gap": statistics.gap,
        "mean_reward": statistics.mean_reward,
        "reward_variance": statistics.reward_variance,
        "num_attempts": statistics.num_attempts,
        "num_solved": statistics.num_solved,
        "solved_threshold": header["solved_threshold"],
        "rewards": [attempt["reward"] for attempt in attempts],
        "mean_tokens": math.fsum(attempt["num_tokens"] for attempt in attempts) / len(attempts),
        "row_number": header["row_number"],
        "reward_rule": json.dumps(header["reward_rule"], sort_keys=True),
    }


def _write_shards(settings: Settings, journal: Journal, progress: Progress) -> list[dict[str, Any]]:
    kept, size, name = progress.selection.kept, settings.shard_size, settings.source.name
    num_shards = math.ceil(len(kept) / size)
    shards = []
    for i in range(num_shards):
        path = settings.output_dir / f"{name}-{i:05d}-of-{num_shards:05d}.parquet"
        records = [journal.read(progress.offsets[position]) for position in kept[i * size : (i + 1) * size]]
        rows = [curated_row(record.header, images_of(record)) for record in records]
        num_rows = write_shard(path, rows, STATISTICS_COLUMNS)
        shards.append({"file": path.name, "rows": num_rows, "sha256": _sha256(path)})
    written = {shard["file"] for shard in shards}
    for path in settings.output_dir.glob(f"{name}-[0-9]*-of-[0-9]*.parquet"):
        if path.name not in written:
            path.unlink()  # a shard of an earlier, differently sized result of this source
    return shards


def _write_generations(path: Path, journal: Journal, progress: Progress) -> Iterator[Decided]:
    """All decided records in order as JSON lines: what was generated, how it scored, what became of it."""
    selection = progress.selection
    kept = set(selection.kept)
    positions = sorted([*kept, *selection.dropped, *selection.rejected])
    with replacing(path) as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as sink:
        for position in positions:
            header = journal.read(progress.offsets[position]).header
            outcome = (
                "kept" if position in kept else "dropped" if position in selection.dropped else "rejected"
            )
            reason = selection.dropped.get(position) or selection.rejected.get(position)
            # Seconds differ from run to run; the file must not.
            line = {**header, "outcome": outcome, "reason": reason}
            line.pop("seconds", None)
            sink.write((json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass"))
            measured = header["kind"] == "measured"
            yield Decided(
                position=position,
                source=(header["sample"]["source"] if measured else header["source"]) or "(unread)",
                answer_type=header["sample"]["answer_type"] if measured else None,
                statistics=statistics_of(header) if measured else None,
                outcome=outcome,
                reason=reason,
                num_tokens=sum(attempt["num_tokens"] for attempt in header["attempts"]) if measured else 0,
            )


def _rejected_rows(journal: Journal, progress: Progress) -> list[dict[str, Any]]:
    listed = []
    for position in sorted(progress.selection.rejected)[:MAX_LISTED]:
        header = journal.read(progress.offsets[position]).header
        listed.append({key: header[key] for key in ("row_number", "id", "reason", "message")})
    return listed


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
