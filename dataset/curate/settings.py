"""All settings of one curation run, checked; and the part of them that a journal must agree with."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dataset.curate.conversations import AgentPlan
from dataset.curate.filters import Filters
from dataset.curate.guards import Exclusion
from dataset.curate.rules import KeepRule
from dataset.encode import DEFAULT_MAX_PIXELS
from dataset.prompts import PromptConfig
from dataset.sources.base import Location, Source
from reward.settings import DEFAULT_SETTINGS, RewardSettings


@dataclass(frozen=True, slots=True)
class Settings:
    """One run of `python -m dataset.create`. Defaults live here; the command line shows them."""

    source: Source
    location: Location
    output_dir: Path
    model_name: str
    rule: KeepRule
    num_attempts: int = 10
    num_workers: int = 1
    dataset_size: int | None = None  # samples to keep
    max_samples: int | None = None  # source rows to look at
    shard_size: int = 1000  # rows per parquet file
    max_tokens: int = 4096
    temperature: float = 1.0
    seed: int = 219
    sampling: str = "auto"  # auto, seeded, grouped
    prompt_type: str | None = None
    prompts: PromptConfig = field(default_factory=PromptConfig)
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_prompt_tokens: int = 8192
    solved_threshold: float | None = None
    max_per_class: int | None = None
    balance_by: str = "answer"
    shuffle_buffer: int = 0
    filters: Filters = field(default_factory=Filters)
    exclusion: Exclusion = field(default_factory=Exclusion)
    incremental: bool = False
    measure: bool = True  # False: only select and write what the journal holds
    device: str = "auto"
    executor: str = "auto"  # auto, ray, local
    ray_address: str | None = None
    gpus_per_worker: float = 1.0
    server_addresses: tuple[str, ...] = ()
    server_arguments: tuple[str, ...] = ()
    concurrency: int = 32  # rows in flight per worker
    request_timeout_seconds: float = 1800.0
    rewards: RewardSettings = DEFAULT_SETTINGS
    agent: AgentPlan | None = None  # attempts are conversations with tools
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, low in (
            ("num_attempts", 1),
            ("num_workers", 1),
            ("shard_size", 1),
            ("max_tokens", 1),
            ("concurrency", 1),
            ("shuffle_buffer", 0),
            ("max_prompt_tokens", 1),
        ):
            _at_least(name, getattr(self, name), low)
        for name in ("dataset_size", "max_samples", "max_per_class"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        if not self.temperature >= 0:
            raise ValueError(f"temperature: got {self.temperature}, wanted a number >= 0")
        if self.solved_threshold is not None and not 0 < self.solved_threshold <= 1:
            raise ValueError(f"solved_threshold: got {self.solved_threshold}, wanted a number in (0, 1]")

    @property
    def work_dir(self) -> Path:
        """Where everything but the shards goes: `<output>/curation/<source>`."""
        return self.output_dir / "curation" / self.source.name

    @property
    def journal_path(self) -> Path:
        """The journal of this run."""
        return self.work_dir / "journal.bin"

    def measurement(self) -> dict[str, Any]:
        """What decides the measurements, as plain data: a journal may be continued only under the same."""
        return {
            "source": self.source.name,
            "dataset_path": self.location.path,
            "dataset_split": self.location.split,
            "dataset_config": self.location.config,
            "data_files": list(self.location.data_files),
            "model": self.model_name,
            "model_fingerprint": model_fingerprint(self.model_name),
            "rollout_n": self.num_attempts,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "sampling": self.sampling,
            "prompt_type": self.prompt_type,
            "prompts": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(self.prompts).items()
                if value is not None
            },
            "max_pixels": self.max_pixels,
            "max_prompt_tokens": self.max_prompt_tokens,
            "solved_threshold": self.solved_threshold,
            "shuffle_buffer": self.shuffle_buffer,
            "filters": _plain(self.filters),
            "rewards": self.rewards.to_dict(),
            **({"agent": json.loads(json.dumps(asdict(self.agent)))} if self.agent is not None else {}),
            "exclusion": exclusion_fingerprint(self.exclusion),
        }

    def selection(self) -> dict[str, Any]:
        """What decides the selection among measured samples; may change between runs over one journal."""
        return {
            **asdict(self.rule),
            "dataset_size": self.dataset_size,
            "max_samples": self.max_samples,
            "max_per_class": self.max_per_class,
            "balance_by": self.balance_by,
            "shard_size": self.shard_size,
        }


def model_fingerprint(model_name: str) -> str:
    """A hash of a local checkpoint's file names, sizes and configuration; the name itself for one on the Hub.

    Weights are told apart by size only: reading 16 GB to start a run is not worth it.
    """
    folder = Path(model_name)
    if not folder.is_dir():
        return f"name:{model_name}"
    digest = hashlib.sha256()
    for name in sorted(os.listdir(folder)):
        file = folder / name
        if file.is_file() and not name.startswith("."):
            digest.update(f"{name}:{file.stat().st_size};".encode())
            if name in ("config.json", "preprocessor_config.json", "model.safetensors.index.json"):
                digest.update(file.read_bytes())
    return f"sha256:{digest.hexdigest()[:32]}"


def exclusion_fingerprint(exclusion: Exclusion) -> str:
    """A hash of an exclusion list, so that a resumed run must have the same."""
    content = f"{sorted(exclusion.image_hashes)}{sorted(exclusion.questions)}"
    content += f"{exclusion.max_distance}{exclusion.images_alone}"
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _plain(filters: Filters) -> dict[str, Any]:
    values = {item.name: getattr(filters, item.name) for item in fields(filters)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _at_least(name: str, value: float, low: float) -> None:
    if value < low:
        raise ValueError(f"{name}: got {value}, wanted at least {low}")
