"""From one run to the next: `run.json`, the manifest of a run, names the checkpoint that the run ended with.

`actor.path` and `ref.path` of a configuration may name the folder of a finished run (`runs/EXPERIMENT/TRIAL`) or its
`run.json` instead of a checkpoint, and so may the tools that take one. A launch resolves them once, before anything
starts, and hands the answer to every process as overrides: servers and trainer cannot see different weights.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

MANIFEST = "run.json"  # written by trains/report.py
KEYS = ("actor.path", "ref.path")  # sglang.model_path follows actor.path in base.yaml
PLAIN_VALUE = re.compile(r"[\w./@+-]+")  # needs no quotes in an override


def hand_over(config: Any) -> list[str]:
    """Put checkpoints in place of the runs that `config` names; returns the same as overrides, empty without any.

    `config` is OmegaConf's, so that keys which follow `actor.path` change with it. Raises ValueError with the key, as
    `checkpoint_of` does.
    """
    from omegaconf import OmegaConf

    overrides = []
    for key in KEYS:
        path = OmegaConf.select(config, key)
        if path is None:
            continue
        try:
            checkpoint = checkpoint_of(str(path))
        except ValueError as error:
            raise ValueError(f"{key}={path!r}: {error}") from error
        if checkpoint != str(path):
            OmegaConf.update(config, key, checkpoint)
            overrides.append(f"++{key}={_quoted(checkpoint)}")
    return overrides


def checkpoint_of(path: str | os.PathLike) -> str:
    """The checkpoint of the run whose folder or manifest `path` is; any other path comes back as it is.

    Raises ValueError, with what to do: no such manifest, no manifest of a run, a run that has not finished (and the
    step it reached), a checkpoint that is gone.
    """
    folder = Path(path)
    manifest = folder if folder.name == MANIFEST else folder / MANIFEST
    if (folder / "config.json").is_file() or not (manifest.is_file() or folder == manifest):
        return str(path)
    run = _read(manifest)
    if not run["finished"]:
        raise ValueError(
            f"{manifest} says that this run has not finished ({_reached(manifest, run)}); wait for it, start it "
            "again (with recover.mode=on it continues), or name a checkpoint that it has saved"
        )
    # A run may have been moved with its checkpoint inside, and another may be where it was.
    for place in (manifest.parent / Path(run["checkpoint"]).name, Path(run["checkpoint"])):
        if (place / "config.json").is_file():
            return str(place)
    raise ValueError(
        f"{manifest} names the checkpoint {run['checkpoint']}, which is gone: there is no config.json in it; put it "
        "back, train the run again or name another checkpoint"
    )


def prompts_of(path: str | os.PathLike) -> dict[str, Any] | None:
    """The prompt settings that the run at `path` was trained with: its folder, its manifest or a checkpoint in its
    folder. None where no run is known. Raises ValueError for a manifest that cannot be read.
    """
    folder = Path(path)
    for place in (folder, folder.parent):
        manifest = place if place.name == MANIFEST else place / MANIFEST
        if manifest.is_file():
            return _read(manifest).get("prompts")
    return None


def _read(manifest: Path) -> dict[str, Any]:
    if not manifest.is_file():
        raise ValueError(f"there is no {manifest}; that run has to be trained first")
    try:
        run = json.loads(manifest.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{manifest} cannot be read: {error}") from error
    if not isinstance(run, dict) or not {"finished", "checkpoint"} <= run.keys():
        raise ValueError(
            f"{manifest} is not the manifest of a training run: finished and checkpoint are wanted"
        )
    return run


def _reached(manifest: Path, run: dict[str, Any]) -> str:
    records = manifest.with_name("metrics.jsonl")
    for line in reversed(records.read_text().splitlines() if records.is_file() else []):
        try:
            return f"step {json.loads(line)['step']} of {run.get('total_steps', '?')} is the last in {records.name}"
        except json.JSONDecodeError:
            continue  # the last line may be half written
    return f"no step in {records.name}"


def _quoted(value: str) -> str:
    return value if PLAIN_VALUE.fullmatch(value) else "'" + value.replace("'", r"\'") + "'"
