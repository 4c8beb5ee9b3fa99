"""AReaL's saver of checkpoints for people, without its look at an engine that is not used here."""

from __future__ import annotations

from typing import Any

from areal.api import FinetuneSpec
from areal.api.cli_args import SaverConfig
from areal.utils.saver import Saver as ArealSaver

from trains.host.frequencies import Frequency


class Saver(ArealSaver):
    """AReaL imports its Archon engine to ask whether it is in use; that needs triton, which no CPU has."""

    def __init__(self, config: SaverConfig, ft_spec: FinetuneSpec):
        super().__init__(config, ft_spec)
        self.freq_ctl = Frequency.of(config)

    def _should_use_async(self, engine: Any) -> bool:
        del engine
        return False
