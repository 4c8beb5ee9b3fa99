"""Launch commands that keep AReaL 1.0.x's short names: `python -m areal.launcher.{local,ray,slurm}`.

AReaL ships its launchers under `areal.infra.launcher`. These modules check the configuration before anything
starts, then delegate; the local one also supervises (see `supervisor.py`).
"""

from __future__ import annotations

import os


def resolve_links() -> None:
    """Let AReaL find configurations from where its own file really lies.

    `parse_cli_args` hands hydra the file's path relative to its own module, and hydra resolves links before it goes up
    from there: with a virtual environment behind a link that led to another checkout.
    """
    from areal.api import cli_args

    cli_args.__file__ = os.path.realpath(cli_args.__file__)
