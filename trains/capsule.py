"""A step in a capsule: all that went into an update, kept so that `python -m trains.replay` can compute it again.

`capsules/step-000012/` in the run's folder holds

- `capsule.json`: why it was kept, step, version, minibatch, and the numbers that the step recorded;
- `config.yaml`: the configuration, secrets masked;
- `batch-rank0.pt`, ...: the groups of each trainer rank as the update got them, and the random state;
- `state/`: weights and optimizer before the update, each rank its shard (a PyTorch distributed checkpoint).

`actor.capsule: on_failure` keeps the first step in a row whose gradient was not finite: the engine leaves the weights
alone then, so that they are still those of before. `every N` keeps every N-th step besides. `off` keeps none.
"""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from areal.api import SaveLoadMeta

from trains.types import Group
from utils.capsule_option import CONFIG, FACTS, FOLDER, KEPT, STATE, interval
from utils.files import replacing
from utils.masking import masked

RECORDED = ("loss", "grad_norm", "gradient_norms", "num_skipped", "lr", "entropy", "ratio_mean")


class Capsules:
    """Keeps steps of one run; every rank must make the same calls.

    Args:
        config: the whole configuration (`trains.config.Config`).
        actor: the policy.
        directory: the run's folder.
    """

    def __init__(self, config: Any, actor: Any, directory: Path):
        self.config, self.actor, self.folder = config, actor, directory / FOLDER
        self.every = interval(config.actor.capsule)
        self._open: Path | None = None  # the capsule of the step under way
        self._step, self._batch = 0, []
        self._failed_before = False
        self._num_failures = 0
        if self.every is not None:
            actor.on_skipped = self._failed

    def before_update(self, step: int, batch: list[Group]) -> None:
        """To be called with what the update will get; `step` counts from 0, as in the loop."""
        self._step, self._batch, self._open = step + 1, batch, None
        if self.every and (step + 1) % self.every == 0:
            self._keep("every", None)
            self._forget_old()

    def after_step(self, record: dict[str, Any]) -> None:
        """Add what the step recorded to its capsule."""
        failed = bool(record["num_skipped"])
        if self._open is not None and self.actor.rank == 0:
            facts = json.loads((self._open / FACTS).read_text())
            recorded = {name: record[name] for name in RECORDED if name in record}
            self._write_facts({**facts, "recorded": recorded})
            if failed:
                print(
                    f"[grpo] the gradient of step {self._step} was not finite; `python -m trains.replay {self._open}` "
                    "shows where",
                    flush=True,
                )
        self._failed_before, self._open, self._batch = failed, None, []

    def _failed(self, minibatch: int) -> None:
        """Called by the actor where an optimizer step was left out; the weights are those of before it."""
        if self._open is not None or self._failed_before or self._num_failures >= KEPT:
            return
        self._num_failures += 1
        self._keep("the gradient was not finite", minibatch)

    def _keep(self, why: str, minibatch: int | None) -> None:
        actor, self._open = self.actor, self.folder / f"step-{self._step:06d}"
        if actor.rank == 0:
            shutil.rmtree(self._open, ignore_errors=True)
            self._open.mkdir(parents=True)
            (self._open / CONFIG).write_text(yaml.dump(masked(asdict(self.config)), sort_keys=False))
        actor.wait_for_ranks()
        if actor.is_data_parallel_head():
            rank = actor.data_parallel_rank
            with replacing(self._open / f"batch-rank{rank}.pt") as file:
                torch.save({"groups": [plain(group) for group in self._batch], "rng": random_state()}, file)
        actor.save(
            SaveLoadMeta(
                path=str(self._open / STATE),
                weight_format="dcp",
                with_optim=True,
                tokenizer=None,
                processor=None,
                base_model_path=None,
            )
        )
        if actor.rank == 0:
            self._write_facts(
                {
                    "why": why,
                    "step": self._step,
                    "version": self._step - 1,
                    "minibatch": minibatch,
                    "num_ranks": actor.data_parallel_world_size,
                    "entropy_coefficient": list(actor.entropy_coefficient.state),
                    "started_from": self.config.actor.path,
                    "recorded": None,
                }
            )

    def _write_facts(self, facts: dict[str, Any]) -> None:
        with replacing(self._open / FACTS) as file:
            file.write((json.dumps(facts, indent=2) + "\n").encode())

    def _forget_old(self) -> None:
        if self.actor.rank != 0:
            return
        kept = [path for path in sorted(self.folder.glob("step-*")) if _why(path) == "every"]
        for path in kept[:-KEPT]:
            shutil.rmtree(path, ignore_errors=True)


def plain(group: Group) -> dict[str, Any]:
    """A group as tensors and plain data on the CPU, which can be loaded without running anything."""
    info = group["info"][0]
    tensors = {name: value.cpu() for name, value in group.items() if isinstance(value, torch.Tensor)}
    images = [{name: value.cpu() for name, value in image.items()} for image in group["images"]]
    facts = {
        "sample_id": info.sample_id,
        "completions": list(info.completions),
        "lengths": [int(length) for length in info.lengths],
    }
    return {**tensors, "images": images, "facts": facts}


def random_state() -> dict[str, Any]:
    """Of torch on the CPU, and of Python."""
    version, internal, gauss = random.getstate()
    return {"torch": torch.get_rng_state(), "python": [version, list(internal), gauss]}


def _why(path: Path) -> str | None:
    try:
        return json.loads((path / FACTS).read_text())["why"]
    except (OSError, ValueError, KeyError):
        return None
