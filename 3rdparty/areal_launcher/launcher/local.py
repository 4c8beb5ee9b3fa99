"""`python -m areal.launcher.local ENTRY.py --config CONFIG.yaml [key=value ...]` on one machine.

Delegates to AReaL's local launcher with a supervising job class. Exit status: the trainer's own; 1 when a server
died; 2 for a wrong configuration; 130 after Ctrl-C; 143 after SIGTERM.
"""

from __future__ import annotations

import shlex
import signal
import sys

from areal.infra.launcher import local as areal_local
from areal.infra.platforms import current_platform
from areal.infra.utils import launcher as areal_launcher_utils
from areal.infra.utils.launcher import JobException
from areal.launcher import preflight, supervisor
from areal.utils import fs, name_resolve


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    try:
        if {"--rehearse", "--smoke"} & set(argv):
            return preflight.rehearsal(argv)
        config, argv = preflight.load(argv, "local")
    except preflight.ConfigurationError as error:
        print(f"[launcher] {error}", file=sys.stderr)
        return 2

    if not current_platform.device_control_env_var:
        # AReaL writes `NAME=devices` before each command; on CPU its name is empty.
        current_platform.device_control_env_var = "AREAL_CPU_SLOTS"
    for module in (areal_local, areal_launcher_utils, name_resolve, fs):
        module.logger.setLevel("ERROR")  # the console is for the trainer's progress and for what went wrong
    areal_local.LocalLauncher = supervisor.SupervisedLauncher
    areal_local.wait_llm_server_addrs = supervisor.wait_for_servers
    sys.argv = [sys.argv[0], *map(shlex.quote, argv)]  # AReaL pastes sys.argv into its command strings
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

    status = 0
    try:
        areal_local.local_main(config)
        print("[launcher] the trainer finished", flush=True)
    except JobException:
        launcher = supervisor.SupervisedLauncher.active
        print(f"[launcher] {launcher.failure}", file=sys.stderr, flush=True)
        status = launcher.status
    except (KeyboardInterrupt, _Terminated) as error:
        status = 130 if isinstance(error, KeyboardInterrupt) else 143
        print(
            f"[launcher] {'interrupted' if status == 130 else 'terminated'}: stopping every job",
            file=sys.stderr,
        )
    finally:
        if supervisor.SupervisedLauncher.active is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave processes behind
            supervisor.SupervisedLauncher.active.stop_all()
            supervisor.SupervisedLauncher.active = None
    return status


class _Terminated(Exception):
    pass


def _terminated(signum, frame) -> None:
    raise _Terminated


if __name__ == "__main__":
    sys.exit(main())
