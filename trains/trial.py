"""A trial's folder at the start of a run: whose it is, and what becomes of the records that lie there.

A run that begins anew loses nothing of an earlier one: its records and its final checkpoint go to `earlier/N`, or, with
`trial.overwrite: true`, are deleted. A run that is continued keeps its records up to the step it goes on from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from utils import records
from utils.run_manifest import MANIFEST

RECORDS = ("metrics.jsonl", "evaluations.jsonl", "rollouts.jsonl")  # one line per step or evaluation
EARLIER = "earlier"
STAYS = (EARLIER, "images")  # beside locks and other hidden files


def begin_anew(folder: Path, *, may_continue: bool, overwrite: bool) -> str | None:
    """Make room for a run without a checkpoint to continue from; what to tell of it, None for an empty folder.

    An unfinished run that `may_continue`, whose first checkpoint was never written, is this one: its steps are done
    again and their records dropped.
    """
    found = list(_contents(folder))
    if not any(path.name in (MANIFEST, *RECORDS) for path in found):
        return None
    if may_continue and not _is_finished(folder / MANIFEST):
        continue_from(folder, -1)
        return None
    if overwrite:
        for path in found:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        return f"the earlier run in {folder} was deleted (trial.overwrite=true)"
    numbers = [int(path.name) for path in (folder / EARLIER).glob("[0-9]*") if path.name.isdigit()]
    target = folder / EARLIER / str(max(numbers, default=0) + 1)
    target.mkdir(parents=True)
    for path in found:
        path.rename(target / path.name)
    return f"the earlier run in {folder} was moved to {target}"


def continue_from(folder: Path, step: int) -> None:
    """Drop the records of steps behind `step`, which are done again."""
    for name in RECORDS:
        records.keep(folder / name, lambda record: record["step"] <= step)


def _contents(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and path.name not in STAYS:
            yield path


def _is_finished(manifest: Path) -> bool:
    try:
        return bool(json.loads(manifest.read_text())["finished"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
