"""The words of a command line to a configuration; one sentence, by the full key, for each word that is wrong."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from areal.api.cli_args import parse_cli_args, to_structured_cfg
from areal.launcher import resolve_links
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from utils import run_manifest

OVERRIDE = re.compile(r"(?:\+\+|\+|~)?([A-Za-z_][\w.]*)=")


def read(argv: list[str], schema: type) -> tuple[Any, list[str]]:
    """(configuration as `schema`, overrides that every process needs besides).

    The overrides name checkpoints in place of the earlier runs that `argv` names.

    Raises ValueError, a line for each: unreadable file, unknown key, wrong type, value left open, an earlier run that
    has no checkpoint to start from.
    """
    path = config_file(argv)
    known = keys(schema)
    unknown = [key for key in _overridden(argv) if _is_unknown(key, known)]
    if unknown:
        raise ValueError("\n".join(_unknown_key(key, known, path) for key in unknown))
    try:
        resolve_links()
        raw, _ = parse_cli_args(argv)
        left_open = sorted(_left_open(OmegaConf.to_container(raw)), key=lambda key: (key.count("."), key))
        if left_open:
            raise ValueError(
                "\n".join(
                    f"{key}=???: a value must be given, in {path} or as {key}=VALUE" for key in left_open
                )
            )
        overrides = run_manifest.hand_over(raw)
        return OmegaConf.to_object(to_structured_cfg(raw, schema)), overrides
    except OverrideParseException as error:
        raise ValueError(
            f"{error.override!r} cannot be read: {error.message.splitlines()[0]}; text with marks wants quotes, "
            "for example 'key=\"a, b\"'"
        ) from error
    except ConfigKeyError as error:
        raise ValueError(_unknown_key(error.full_key, known, path)) from error
    except OmegaConfBaseException as error:
        raise ValueError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    except ValueError:
        raise
    except Exception as error:  # hydra's own classes share no useful parent; the first line names the key
        raise ValueError(_override_problem(str(error).splitlines()[0], argv, path)) from error


def config_file(argv: list[str]) -> Path:
    """The value of `--config`. Raises ValueError where there is none, or no such file."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if name == "--config":
            path = Path(value or following)
            if not path.is_file():
                raise ValueError(f"--config {path} does not exist (working directory: {Path.cwd()})")
            if path.suffix != ".yaml":
                raise ValueError(
                    f"--config {path}: wanted a file FILE.yaml, such as configs/digits_cpu_stage1.yaml"
                )
            relative = os.path.relpath(path)
            return path if relative.startswith("..") else Path(relative)
    raise ValueError("no --config FILE was given")


def keys(schema: type, prefix: str = "") -> set[str]:
    """Every dotted key of a configuration class, those of sections that are null by default too."""
    hints = get_type_hints(schema)
    found = set()
    for field in fields(schema):
        key = prefix + field.name
        found.add(key)
        for part in (hints[field.name], *get_args(hints[field.name])):
            if is_dataclass(part):
                found |= keys(part, f"{key}.")
    return found


def nearest(key: str, known: set[str]) -> str | None:
    """The key that was probably meant.

    >>> known = {"actor.path", "actor.optimizer.lr", "actor.optimizer.eps", "loss.eps_clip"}
    >>> [nearest(key, known) for key in ("actor.lr", "actor.optimizer.lrr", "los.eps_clip", "actor.zzz")]
    ['actor.optimizer.lr', 'actor.optimizer.lr', 'loss.eps_clip', None]
    """
    parent, _, name = key.rpartition(".")
    below = [other for other in known if other.startswith(f"{parent}.") and other.endswith(f".{name}")]
    beside = [other for other in known if other.rpartition(".")[0] == parent]
    same_name = [other for other in known if other.rpartition(".")[2] == name]
    for candidates, cutoff in ((below, 0.0), (beside, 0.8), (same_name, 0.0), (known, 0.6)):
        near = difflib.get_close_matches(key, sorted(candidates), 1, cutoff=cutoff)
        if near:
            return near[0]
    return None


def _overridden(argv: list[str]) -> Iterator[str]:
    for word in argv:
        match = OVERRIDE.match(word)
        if match:
            yield match[1]


def _is_unknown(key: str, known: set[str]) -> bool:
    """False too for what lies below a key that holds a free mapping."""
    if key in known:
        return False
    while "." in key:
        key = key.rpartition(".")[0]
        if key in known:
            return any(other.startswith(f"{key}.") for other in known)
    return True


def _left_open(node: Any, prefix: str = "") -> list[str]:
    """Dotted keys whose value is ???; values that only refer to them are not named again."""
    if isinstance(node, dict):
        return [
            key for name, value in node.items() for key in _left_open(value, f"{prefix}.{name}".lstrip("."))
        ]
    return [prefix] if node == "???" else []


def _override_problem(text: str, argv: list[str], path: Path) -> str:
    override = re.search(r"Could not override '([^']+)'", text)
    if override is None:
        return f"{path}: {text}"
    word = next(word for word in argv if word.startswith(f"{override[1]}="))
    return f"{override[1]}, or an entry of it, is not in {path}; on the command line write '+{word}'"


def _unknown_key(key: str, known: set[str], path: Path) -> str:
    near = nearest(key, known)
    hint = f"; did you mean {near}?" if near else ""
    return f"{key} is not a key of this configuration{hint} ({path})"
