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
from areal.launcher import resolve_links
from omegaconf import OmegaConf

from llavaonevision1_5 import sglang_environment

USAGE = (
    "usage: python -m areal.launcher.{} ENTRY.py --config FILE.yaml [--dry-run | --rehearse | --smoke] "
    "[key=value ...]"
)
HELP = """{usage}

  ENTRY.py     the program of every trainer process, trains/grpo.py
  --config     the configuration; every key is explained in configs/base.yaml
  --dry-run    the resolved configuration, the processes, memory and time; starts nothing
  --rehearse   walks through the configuration on this machine's CPU with a reduced model; --ranks 2+2: so many servers
               and trainers (1+1 without)
  --smoke      the same walk on this machine's hardware as configured, with the real model, longest prompts first:
               memory, time and tokens a second, measured
  key=value    overrides a key of the configuration; +key=value adds one that the file does not name

example: python -m areal.launcher.{name} trains/grpo.py --config configs/digits_cpu_stage1.yaml seed=1
exit status: the trainer's; 1 when a server died; 2 for a wrong configuration; 3 where a dry run misses files alone"""


class ConfigurationError(Exception):
    """A mistake of the user's; shown as one message without a traceback, exit status 2."""


def load(argv: list[str], launcher_name: str) -> tuple[Any, list[str]]:
    """Parse, check and prepare. Returns AReaL's `DictConfig` and the arguments for every process of the run. With
    `--dry-run` describes the run and exits with 0, or with 3 where a checkpoint or data are not there yet.

    The entry script may bring a `config.py` beside it with a function `check(argv, planning=...)` that raises
    `ValueError` for a wrong setting; it runs here, so that a typing error costs seconds and not a model load. While
    planning it lets pass what is only missing. Overrides that it returns are appended: what it has looked up (the
    checkpoint of an earlier run) is then the same in every process.

    Raises:
        ConfigurationError: naming the key, the value got and the value wanted.
    """
    if {"-h", "--help"} & set(argv):
        print(HELP.format(usage=USAGE.format(launcher_name), name=launcher_name))
        raise SystemExit(0)
    dry_run, argv = "--dry-run" in argv, [word for word in argv if word != "--dry-run"]
    _refuse_mistakes(argv, launcher_name)
    config_file = Path(argv[argv.index("--config") + 1])

    make_importable(Path.cwd())
    resolve_links()
    try:
        overrides = _run_entry_check(Path(argv[0]), argv, planning=dry_run)
        argv = [*argv, *overrides]
        config, _ = parse_cli_args(argv)
        _check_allocation(config.allocation_mode)
    except ConfigurationError:
        raise
    except Exception as error:  # hydra and omegaconf raise their own classes for a bad key or value
        raise ConfigurationError(f"{config_file}: {str(error).strip()}") from error
    if not dry_run:
        _check_machine(argv, config_file, launcher_name)
    _tell_servers_of_the_model(config)
    if overrides:
        print(f"[launcher] resolved: {' '.join(overrides)}", flush=True)
    if dry_run:
        from areal.launcher.dry_run import describe

        text, status = describe(config, argv, launcher_name)
        print(text)
        raise SystemExit(status)
    prepare_directories(config)
    return config, argv


def rehearsal(argv: list[str]) -> int:
    """Hand over `--rehearse` and `--smoke` to the package `rehearsal` beside the entry script; its exit status.

    Raises ConfigurationError as `load` does.
    """
    words = [word for word in argv if word not in ("--rehearse", "--smoke")]
    if len(argv) - len(words) > 1:
        raise ConfigurationError("--rehearse and --smoke are two things; write one of them")
    if "--ranks" in words and "--rehearse" in argv:
        place = words.index("--ranks")
        words = words[:place] + words[place + 2 :]
    _refuse_mistakes(words, "local")
    make_importable(Path.cwd())
    resolve_links()
    module = _beside(Path(argv[0]), "rehearsal/cli.py")
    if module is None:
        raise ConfigurationError(f"{argv[0]} brings no rehearsal")
    return module.main(argv)


def _refuse_mistakes(argv: list[str], launcher_name: str) -> None:
    mistake = _mistake(argv)
    if mistake is not None:
        raise ConfigurationError(f"{mistake}\n{USAGE.format(launcher_name)}")


def _mistake(argv: list[str]) -> str | None:
    """What is wrong with the words themselves."""
    if not argv or not argv[0].endswith(".py"):
        return (
            f"the first word is {argv[0]!r}, wanted an entry script" if argv else "nothing to run was named"
        )
    if not Path(argv[0]).is_file():
        return f"entry script {argv[0]} does not exist (working directory: {Path.cwd()})"
    options = [word for word in argv if word.startswith("-") and word != "--config"]
    if options:
        return f"unknown option {options[0]}"
    if "--config" not in argv[:-1]:
        return "no --config FILE was given"
    position = argv.index("--config") + 1
    if not Path(argv[position]).is_file():
        return f"--config {argv[position]} does not exist (working directory: {Path.cwd()})"
    words = [
        word for word in argv[1 : position - 1] + argv[position + 1 :] if "=" not in word and word[0] != "~"
    ]
    return f"{words[0]!r} is no override; wanted key=value" if words else None


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


def trial_folder(config) -> Path:
    """Where the run leaves its records; one launch at a time holds it (see `trial_lock.py`)."""
    return Path(config.cluster.fileroot) / config.experiment_name / config.trial_name


def _tell_servers_of_the_model(config) -> None:
    """The variables with which SGLang finds the model, beside those of the configuration, which win."""
    for spec in OmegaConf.select(config, "rollout.scheduling_spec") or []:
        given = spec.get("env_vars") or {}
        OmegaConf.update(spec, "env_vars", {**sglang_environment(), **given}, force_add=True)


def _check_machine(argv: list[str], config_file: Path, launcher_name: str) -> None:
    """What the project's own doctor, where it has one, calls a problem of this configuration on this machine."""
    if importlib.util.find_spec("utils.doctor.report") is None:
        return
    problems = importlib.import_module("utils.doctor.report").problems_here(argv, launcher_name)
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


def _run_entry_check(entry: Path, argv: list[str], *, planning: bool) -> list[str]:
    check = getattr(_beside(entry, "config.py"), "check", None)
    return [] if check is None else check(argv, planning=planning) or []


def _beside(entry: Path, name: str) -> Any:
    """The module of a file that the entry script brings beside it; None without one."""
    path = entry.parent / name
    if not path.is_file():
        return None
    return importlib.import_module(
        ".".join(path.resolve().relative_to(Path.cwd().resolve()).with_suffix("").parts)
    )
