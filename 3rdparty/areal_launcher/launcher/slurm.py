"""`python -m areal.launcher.slurm ENTRY.py --config CONFIG.yaml [key=value ...]`: AReaL's, after our checks."""

from __future__ import annotations

import sys

from areal.launcher import preflight


def main() -> int:
    try:
        config, argv = preflight.load(sys.argv[1:], "slurm")
    except preflight.ConfigurationError as error:
        print(f"[launcher] {error}", file=sys.stderr)
        return 2
    from areal.infra.launcher.slurm import slurm_main

    sys.argv = [sys.argv[0], *argv]  # AReaL hands these on to every process
    slurm_main(config)
    return 0


if __name__ == "__main__":
    sys.exit(main())
