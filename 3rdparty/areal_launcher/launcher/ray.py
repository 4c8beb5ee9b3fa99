"""`python -m areal.launcher.ray ENTRY.py --config CONFIG.yaml [key=value ...]`: AReaL's launcher after our checks."""

from __future__ import annotations

import sys

from areal.launcher import preflight


def main() -> int:
    try:
        _, argv = preflight.load(sys.argv[1:], "ray")
    except preflight.ConfigurationError as error:
        print(f"[launcher] {error}", file=sys.stderr)
        return 2
    from areal.infra.launcher.ray import main as areal_main

    sys.argv = [sys.argv[0], *argv]  # AReaL hands these on to every process
    areal_main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
