"""AReaL's way with loggers, and around it."""

from __future__ import annotations

import logging
import sys


def let_be_heard(logger: logging.Logger) -> None:
    """Show a logger's lines to people. AReaL replaces the root of all loggers whenever it makes one of its own, which
    leaves those made before without a handler.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("[grpo] data: %(message)s"))
    logger.handlers = [handler]
    logger.propagate = False
    logger.disabled = False
    logger.setLevel(logging.INFO)
