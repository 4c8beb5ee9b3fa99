"""Checks and preparations shared by the local, Ray and Slurm launchers: one clear message before anything starts."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from areal.api.alloc_mode import _AllocationMode
from areal.api.cli_args import parse_cli_args
from omegaconf import OmegaConf

from llavaonevision1_5 import sglang_environment

USAGE = (
    "usage: python -m areal.launcher.{name} ENTRY.py --config CONFIG.yaml [--dry-run] [key=value ...]\n"
    "example: python -m areal.launcher.{name} trains/grpo.py --config configs/digits_cpu_stage1.yaml seed=1"
)


class ConfigurationError(Exception):
    """A mistake of the user's; shown as one message without a traceback, exit status 2."""


def load(argv: list[str], launcher_name: str) -> tuple[Any, list[str]]:
    """Parse, check and prepare. Returns AReaL's `DictConfig` and the arguments for every process of the run. With
    `--dry-run` describes the run and exits with 0.

    The entry script may bring a `config.py` beside it with a function `check(argv)` that raises `ValueError` for a
    wrong setting; it runs here, so that a typing error costs seconds and not a model load. Overrides that it returns
    are appended: what it has looked up (the checkpoint of an earlier run) is then the same in every process.

    Raises:
        ConfigurationError: naming the key, the value got and the value wanted.
    """
    dry_run, argv = "--dry-run" in argv, [word for word in argv if word != "--dry-run"]
    if len(argv) < 3 or not argv[0].endswith(".py") or "--config" not in argv:
        raise ConfigurationError(USAGE.format(name=launcher_name))
    entry = Path(argv[0])
    if not entry.is_file():
        raise ConfigurationError(f"entry script {entry} does not exist (working directory: {Path.cwd()})")
    config_file = Path(argv[argv.index("--config") + 1])
    if not config_file.is_file():
        raise ConfigurationError(f"--config {config_file} does not exist (working directory: {Path.cwd()})")

    make_importable(Path.cwd())
    try:
        config, _ = parse_cli_args(argv)
        _check_allocation(config.allocation_mode)
        overrides = _run_entry_check(entry, argv)
        if overrides:
            argv = [*argv, *overrides]
            config, _ = parse_cli_args(argv)
    except ConfigurationError:
        raise
    except Exception as error:  # hydra and omegaconf raise their own classes for a bad key or value
        raise ConfigurationError(f"{config_file}: {str(error).strip()}") from error
    if launcher_name == "local":
        _check_machine(argv, config_file)
    _tell_servers_of_the_model(config)
    if overrides:
        print(f"[launcher] resolved: {' '.join(overrides)}", flush=True)
    if dry_run:
        from areal.launcher.dry_run import describe

        print(describe(config, argv, launcher_name))
        raise SystemExit(0)
    prepare_directories(config)
    return config, argv


def make_importable(root: Path) -> None:
    """Put the project's root on the import path of this process and of every process it starts."""
    paths = [str(root), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))


def prepare_directories(config) -> None:
    """AReaL refuses to start when these do not exist."""
    os.makedirs(config.cluster.fileroot, exist_ok=True)
    if config.cluster.name_resolve.type == "nfs":
        os.makedirs(config.cluster.name_resolve.nfs_record_root, exist_ok=True)


def _tell_servers_of_the_model(config) -> None:
    """The variables with which SGLang finds the model, beside those of the configuration, which win."""
    for spec in OmegaConf.select(config, "rollout.scheduling_spec") or []:
        given = spec.get("env_vars") or {}
        OmegaConf.update(spec, "env_vars", {**sglang_environment(), **given}, force_add=True)


def _check_machine(argv: list[str], config_file: Path) -> None:
    """What the project's own doctor, where it has one, calls a problem of this configuration on this machine."""
    if importlib.util.find_spec("utils.doctor.report") is None:
        return
    problems = importlib.import_module("utils.doctor.report").problems_here(argv)
    if problems:
        raise ConfigurationError(f"{config_file}: " + "\n".join(problems))


def _check_allocation(allocation_mode: str) -> None:
    try:
        _AllocationMode.from_str(allocation_mode)
    except Exception as error:  # a lark parse error, a ValueError or a validation error
        first_line = str(error).strip().splitlines()[0]
        raise ConfigurationError(
            f"allocation_mode={allocation_mode!r} is not understood ({first_line}); every part needs its backend, "
            "for example allocation_mode=sglang:d4+fsdp:d4"
        ) from error


def _run_entry_check(entry: Path, argv: list[str]) -> list[str]:
    beside = entry.with_name("config.py")
    if not beside.is_file():
        return []
    parts = beside.resolve().relative_to(Path.cwd().resolve()).with_suffix("").parts
    module = importlib.import_module(".".join(parts))
    check = getattr(module, "check", None)
    return [] if check is None else check(argv) or []
