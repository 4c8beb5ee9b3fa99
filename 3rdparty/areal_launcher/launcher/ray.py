"""`python -m areal.launcher.ray ENTRY.py --config CONFIG.yaml [key=value ...]`: AReaL's launcher after our checks."""

from __future__ import annotations

import sys

from areal.launcher import preflight


def main() -> int:
    try:
        config, argv = preflight.load(sys.argv[1:], "ray")
    except preflight.ConfigurationError as error:
        print(f"[launcher] {error}", file=sys.stderr)
        return 2
    import ray
    from areal.infra.launcher.ray import ray_main

    sys.argv = [sys.argv[0], *argv]  # AReaL hands these on to every process
    ray.init()
    ray_main(config)
    return 0


if __name__ == "__main__":
    sys.exit(main())
