"""Recovery from a crash: AReaL's checkpoints, taking effect all at once, with what the loop needs besides.

`recover.mode=on` saves weights, optimizer, data position, ring buffer and counters every `recover.freq_steps`; the
launcher starts the trainer again, or a person repeats the command, and the run goes on behind that step: same version,
same learning rate, undelivered prompts first, no burst of stale work.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch.distributed as dist
from areal.api import FinetuneSpec, WeightUpdateMeta
from areal.api.cli_args import RecoverConfig
from areal.utils.recover import RecoverHandler

from dataset.loader import LeftOut
from trains.host.frequencies import Frequency
from trains.host.rollout import BoundedRollout
from utils.entropy_control import EntropyCoefficient

SLOTS = ("recover_a", "recover_b")


class Recovery(RecoverHandler):
    """AReaL's handler writes over the last checkpoint, file after file: a crash meanwhile would mix two steps.

    Here two slots take turns, and a symbolic link, replaced in one operation, says which of them counts.
    """

    def __init__(self, config: RecoverConfig, ft_spec: FinetuneSpec):
        super().__init__(config, ft_spec)
        self.link = self.link_of(config)
        self._info = self.link
        self.critic: Any = None  # saved beside the actor, where there is one
        self.freq_ctl = Frequency.of(config)

    def _engines(self, slot: str, actor: Any) -> dict[str, Any]:
        return {slot: actor} | ({} if self.critic is None else {f"{slot}_critic": self.critic})

    @staticmethod
    def link_of(config: RecoverConfig) -> Path:
        """The link that is there once there is a checkpoint to continue from."""
        return Path(
            RecoverHandler.recover_info_path(config.experiment_name, config.trial_name, config.fileroot)
        )

    @property
    def slot(self) -> str | None:
        """Where the last whole checkpoint is; None before there is one."""
        return os.readlink(self.link).removesuffix("_info") if self.link.is_symlink() else None

    def recover_info_path(self, *names: str) -> str:
        """Where AReaL's `dump` writes and its `load` reads."""
        return str(self._info)

    def dump(self, engine, step_info, *args, is_last: bool = False, **kwargs) -> None:
        """As AReaL's; the earlier checkpoint counts until this one is whole. After the last step there is always one,
        so that more steps can follow later.
        """
        self.freq_ctl.is_due_now = is_last
        slot = SLOTS[1] if self.slot == SLOTS[0] else SLOTS[0]
        self._info = self.link.with_name(f"{slot}_info")
        super().dump(self._engines(slot, engine), step_info, *args, **kwargs)
        is_dumped = self.last_step_info is step_info
        if is_dumped and (not dist.is_initialized() or dist.get_rank() == 0):
            new = self.link.with_name(".recover_info_new")
            new.unlink(missing_ok=True)
            new.symlink_to(self._info.name)
            os.replace(new, self.link)
        self._info = self.link

    def load(self, engine, *args, **kwargs):
        """As AReaL's, from the slot that counts.

        Raises RuntimeError for a checkpoint that cannot be read; AReaL logs the reason and would begin anew, over the
        records of the run that was to be continued.
        """
        slot = self.slot
        if slot is None or self.config.mode in ("off", "disabled"):
            return None
        info = super().load(self._engines(slot, engine), *args, **kwargs, inference_engine_update_from=slot)
        if info is None:
            raise RuntimeError(
                f"{self.link} cannot be continued from: it was written by another number of trainer ranks, or is "
                "damaged (the log above says which). Restore it, delete it to begin anew, or write recover.mode: off"
            )
        return info


class ResumableData:
    """The data loader, the rollout client and the entropy coefficient as one object with the state that is saved.

    Prompts are stored by their place in the data: their images would be gathered and written at every checkpoint.
    """

    def __init__(
        self, dataloader: Any, rollout: BoundedRollout, coefficient: EntropyCoefficient | None = None
    ):
        self.dataloader = dataloader
        self.rollout = rollout
        self.coefficient = coefficient

    def state_dict(self) -> dict[str, Any]:
        state = self.rollout.state_dict()
        places = [row["place"] for row in state["undelivered"]]
        parts = {"dataloader": self.dataloader.state_dict(), "buffer": {**state, "undelivered": places}}
        return parts if self.coefficient is None else {**parts, "entropy": self.coefficient.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.dataloader.load_state_dict(state["dataloader"])
        rows = [self.dataloader.dataset[tuple(place)] for place in state["buffer"]["undelivered"]]
        readable = [row for row in rows if not isinstance(row, LeftOut)]
        self.rollout.load_state_dict({**state["buffer"], "undelivered": readable})
        if self.coefficient is not None and "entropy" in state:
            self.coefficient.state = tuple(state["entropy"])


def resume(
    recovery: Recovery,
    actor: Any,
    rollout: BoundedRollout,
    *,
    saver: Any,
    evaluator: Any,
    stats_logger: Any,
    dataloader: Any,
    weight_meta: WeightUpdateMeta,
) -> int:
    """Continue behind the last checkpoint; the step to begin with, 0 if there is none.

    Raises RuntimeError, see `Recovery.load`.
    """
    info = recovery.load(
        actor,
        saver,
        evaluator,
        stats_logger,
        ResumableData(dataloader, rollout, actor.entropy_coefficient),
        inference_engine=rollout,
        weight_update_meta=weight_meta,
    )
    if info is None:
        return 0
    step = info.last_step_info.global_step + 1
    rollout.recover(step)
    for engine in filter(None, (actor, getattr(recovery, "critic", None))):
        scheduler = engine.lr_scheduler  # AReaL saves the optimizer without it
        scheduler.last_epoch = step - 1
        scheduler.step()
    return step
