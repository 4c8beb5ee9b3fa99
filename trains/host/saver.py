"""AReaL's saver of checkpoints for people, without its look at an engine that is not used here."""

from __future__ import annotations

from typing import Any

from areal.utils.saver import Saver as ArealSaver


class Saver(ArealSaver):
    """AReaL imports its Archon engine to ask whether it is in use; that needs triton, which no CPU has."""

    def _should_use_async(self, engine: Any) -> bool:
        del engine
        return False
