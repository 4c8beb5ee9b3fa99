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
from areal.launcher import preflight, supervisor, trial_lock
from areal.utils import fs, name_resolve
from omegaconf import OmegaConf


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    try:
        if {"--rehearse", "--smoke"} & set(argv):
            return preflight.rehearsal(argv)
        config, argv = preflight.load(argv, "local")
        with trial_lock.held(preflight.trial_folder(config)):
            return _launch(config, argv)
    except (preflight.ConfigurationError, trial_lock.TrialInUseError) as error:
        print(f"[launcher] {error}", file=sys.stderr)
        return 2


def _launch(config, argv: list[str]) -> int:
    if not current_platform.device_control_env_var:
        # AReaL writes `NAME=devices` before each command; on CPU its name is empty.
        current_platform.device_control_env_var = "AREAL_CPU_SLOTS"
    for module in (areal_local, areal_launcher_utils, name_resolve, fs):
        module.logger.setLevel("ERROR")  # the console is for the trainer's progress and for what went wrong
    areal_local.RECOVER_TIME_INTERVAL = 1.0  # everything has ended when `stop_all` returns
    areal_local.LocalLauncher = supervisor.SupervisedLauncher
    supervisor.SupervisedLauncher.max_server_restarts = OmegaConf.select(
        config, "launcher.max_server_restarts", default=0
    )
    supervisor.SupervisedLauncher.hang_floor_seconds = OmegaConf.select(
        config, "launcher.hang_floor_seconds", default=None
    )
    areal_local.wait_llm_server_addrs = supervisor.wait_for_servers
    sys.argv = [sys.argv[0], *map(shlex.quote, argv)]  # AReaL pastes sys.argv into its command strings
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

    status = 0
    try:
        areal_local.local_main(config)
        print("[launcher] the trainer finished", flush=True)
    except JobException:
        status = supervisor.SupervisedLauncher.active.status  # why was said when it happened
    except (KeyboardInterrupt, _Terminated) as error:
        status = 130 if isinstance(error, KeyboardInterrupt) else 143
        print(
            f"[launcher] {'interrupted' if status == 130 else 'terminated'}: stopping every job",
            file=sys.stderr,
        )
    finally:
        if supervisor.SupervisedLauncher.active is not None:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave processes behind
            supervisor.SupervisedLauncher.active.stop_all()
            supervisor.SupervisedLauncher.active = None
    return status


class _Terminated(Exception):
    pass


def _terminated(signum, frame) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # everything is being stopped: a second one changes nothing
    raise _Terminated


if __name__ == "__main__":
    sys.exit(main())
