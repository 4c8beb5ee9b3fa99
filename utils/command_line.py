"""What the commands have in common: short usage errors, and wrong places that are found before anything starts."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are the error and one line; options are written out."""

    def __init__(self, **options: Any):
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\nusage: {self.prog} --help shows all options\n")


def is_hub_name(path: str) -> bool:
    """Whether a path that is not there may be a name on the Hub: `owner/name`, and no folder here is called `owner`."""
    owner, _, name = path.partition("/")
    is_local = (
        path.startswith((".", "/", "~")) or os.path.isdir(owner) or owner in ("data", "pretrained", "runs")
    )
    return bool(name) and "/" not in name and not is_local


def check_model(path: str, flag: str = "--model") -> None:
    """Raises FileNotFoundError for a local path that holds no checkpoint; names on the Hub pass."""
    if not (Path(path) / "config.json").is_file() and (Path(path).exists() or not is_hub_name(path)):
        raise FileNotFoundError(
            f"{flag} {path}: there is no checkpoint (config.json) in that folder (working directory: {Path.cwd()})"
        )


def check_output(path: str | os.PathLike, flag: str = "--output") -> None:
    """Raises ValueError unless a folder `path` is there, or can be made, and written to."""
    place = unwritable(path)
    if place is not None:
        raise ValueError(f"{flag} {path}: {place} cannot be written to; name a folder that can")


def unwritable(path: str | os.PathLike) -> Path | None:
    """What keeps the folder `path` from being made or written to; None where nothing does."""
    place = Path(path).absolute()
    while not place.exists() and not place.is_symlink():
        place = place.parent
    return None if place.is_dir() and os.access(place, os.W_OK | os.X_OK) else place
