"""What is wrong with the files that a configuration names: checkpoints, data, and where the run writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llavaonevision1_5.shards import read_json
from llavaonevision1_5.shims import check_code
from utils.command_line import unwritable
from utils.tables import data_files, split_paths

PLACEHOLDER = re.compile(r"<[^>]+>|/path/to|path_to|your[-_]|TODO|CHANGE[-_ ]?ME|xxx", re.IGNORECASE)


class Missing(str):
    """A problem that ends when a checkpoint or data arrive; a run can be planned without them."""


def check_files(config: Any) -> Iterator[str]:
    """Checkpoints and data are there and can be read, and the run can write."""
    models = {"actor.path": config.actor.path}
    if config.loss.kl_coefficient > 0:
        if config.ref.path is None:
            yield (
                f"ref.path=null with loss.kl_coefficient={config.loss.kl_coefficient}: name the checkpoint that the "
                "policy is pulled towards, for example ${actor.path}"
            )
        models["ref.path"] = config.ref.path
    if config.loss.estimator == "gae":
        if config.critic.path is None:
            yield "critic.path=null with loss.estimator='gae': name a checkpoint, for example ${actor.path}"
        models["critic.path"] = config.critic.path
    for key, path in models.items():
        if path is not None and not PLACEHOLDER.search(path):
            yield from _check_checkpoint(config, key, path)
    sources = [("train_dataset.path", config.train_dataset.path)] if not config.train_dataset.mixture else []
    for index, part in enumerate(config.train_dataset.mixture):
        key = f"train_dataset.mixture[{index}]"
        if not part.get("path"):
            yield f"{key}={dict(part)!r}: wanted a path, for example {{path: ./data/stage1-normal, weight: 1.0}}"
            continue
        weight = part.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            yield f"{key}.weight={weight!r}: wanted a number above 0"
        sources.append((f"{key}.path", part["path"]))
    if config.valid_dataset is not None:
        sources.append(("valid_dataset.path", config.valid_dataset.path))
    for key, path in sources:
        yield from _check_data(key, path)
    yield from _check_writable("cluster.fileroot", config.cluster.fileroot)


def check_own_folder(config: Any) -> Iterator[str]:
    """Nothing that a run starts from may lie where it writes."""
    models = {"actor.path": config.actor.path, "ref.path": config.ref.path}
    own = (Path(config.cluster.fileroot) / config.experiment_name / config.trial_name).resolve()
    for key, path in models.items():
        if path is not None and own in (place := Path(path).resolve(), *place.parents):
            yield (
                f"{key}={path!r} lies in this run's own folder, which it would write over; write trial_name=NAME or "
                "another experiment_name"
            )


def _check_checkpoint(config: Any, key: str, path: str) -> Iterator[str]:
    model = Path(path)
    if not (model / "config.json").is_file():
        is_run = Path(config.cluster.fileroot) in model.parents
        yield Missing(
            f"{key}={path!r}: there is no checkpoint (config.json) and no manifest of a run (run.json) in that "
            "folder" + ("; that run has to be trained first" if is_run else "")
        )
        return
    try:
        settings = read_json(model / "config.json")
    except ValueError as error:
        yield f"{key}={path!r}: {error}"
        return
    if not (list(model.glob("*.safetensors")) or list(model.glob("*.bin"))):
        yield Missing(f"{key}={path!r}: the folder holds no weights (*.safetensors)")
    try:
        check_code(model)  # AReaL and the servers load with trust_remote_code
    except ValueError as error:
        yield f"{key}: {error}"
    if not isinstance(settings.get("model_type"), str):
        yield (
            f"{key}={path!r}: config.json gives no model_type, so it is no checkpoint's, or incomplete; put the "
            "published config.json there"
        )
        return
    text_config = settings.get("text_config")
    longest = (text_config if isinstance(text_config, dict) else settings).get("max_position_embeddings")
    limit = config.sglang.context_length
    if limit is not None and longest is not None and limit > longest:
        yield (
            f"sglang.context_length={limit} is above the {longest} positions of {key}={path!r}: the server would "
            f"not start; write at most {longest}"
        )


def _check_data(key: str, path: Any) -> Iterator[str]:
    try:
        for part, _ in split_paths(path):
            data_files(part)
    except FileNotFoundError as error:
        text = str(error)
        if text.startswith("no data at"):
            text = f"does not exist or holds no data (working directory: {Path.cwd()})"
        yield Missing(f"{key}={path!r} {text}")
    except ValueError as error:
        yield f"{key}: {error}"


def _check_writable(key: str, folder: str) -> Iterator[str]:
    place = unwritable(folder)
    if place is not None:
        yield f"{key}={folder!r}: {place} cannot be written to; name a folder that can"
