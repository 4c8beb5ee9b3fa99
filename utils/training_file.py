"""Sections of a training configuration, read without AReaL, for commands that must agree with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


def read_sections(path: str | Path, names: Sequence[str]) -> dict[str, Any]:
    """Sections (or single keys) of a file over those of the files that it names under `defaults`.

    FileNotFoundError: there is none. ValueError: it is not a configuration.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such configuration (working directory: {Path.cwd()})")
    try:
        config = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: wanted a configuration such as configs/base.yaml")
    bases = [name.partition("@")[0] for name in config.get("defaults", []) if name != "_self_"]
    merged: dict[str, Any] = {}
    for part in [*(read_sections(path.parent / f"{name}.yaml", names) for name in bases), config]:
        for name in names:
            if part.get(name) is not None:
                merged[name] = _over(merged.get(name), part[name])
    return merged


def _over(base: Any, value: Any) -> Any:
    """As Hydra merges: mappings key by key, anything else is replaced."""
    if not (isinstance(base, dict) and isinstance(value, dict)):
        return value
    return base | {name: _over(base.get(name), part) for name, part in value.items()}
