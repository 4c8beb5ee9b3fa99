"""Reads a configuration for `python -m utils.doctor` and says in one sentence what is wrong with its text."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from utils import run_manifest


def read_configuration(argv: list[str]) -> tuple[Any, str | None]:
    """(configuration, None) or (None, what is wrong): unreadable file, unknown key, wrong type, value left open, an
    earlier run that has no checkpoint to start from.
    """
    from areal.api.cli_args import parse_cli_args, to_structured_cfg
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

    from trains.config import Config

    path = Path(argv[argv.index("--config") + 1])
    if not path.is_file():
        return None, f"--config {path}: there is no such file (working directory: {Path.cwd()})"
    known = _keys(OmegaConf.to_container(OmegaConf.structured(Config)))
    try:
        raw, _ = parse_cli_args(argv)
        left_open = sorted(_left_open(OmegaConf.to_container(raw)), key=lambda key: (key.count("."), key))
        if left_open:
            return None, f"{left_open[0]}=???: a value must be given, in {path} or as {left_open[0]}=VALUE"
        run_manifest.hand_over(raw)
        return OmegaConf.to_object(to_structured_cfg(raw, Config)), None
    except ConfigKeyError as error:
        return None, _unknown_key(error.full_key, known, path)
    except OmegaConfBaseException as error:
        return None, f"{error.full_key}: {str(error).splitlines()[0]}"
    except Exception as error:  # hydra's own classes share no useful parent; the first line names the key
        return None, _override_problem(str(error).splitlines()[0], known, path)


def _left_open(node: Any, prefix: str = "") -> list[str]:
    """Dotted keys whose value is ???; values that only refer to them are not named again."""
    if isinstance(node, dict):
        return [
            key for name, value in node.items() for key in _left_open(value, f"{prefix}.{name}".lstrip("."))
        ]
    return [prefix] if node == "???" else []


def _override_problem(text: str, known: set[str], path: Path) -> str:
    override = re.search(r"Could not override '([^']+)'", text)
    if override is None:
        return f"{path}: {text}"
    if override[1] in known:
        return f"{override[1]} is not in {path}; on the command line write +{override[1]}=VALUE"
    return _unknown_key(override[1], known, path)


def _keys(tree: Any, prefix: str = "") -> set[str]:
    if not isinstance(tree, dict):
        return set()
    found = set()
    for name, value in tree.items():
        found |= {f"{prefix}{name}"} | _keys(value, f"{prefix}{name}.")
    return found


def _unknown_key(key: str, known: set[str], path: Path) -> str:
    near = difflib.get_close_matches(key, known, 1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{key} is not a key of this configuration{hint} ({path})"
