"""`python -m areal.launcher.slurm ENTRY.py --config CONFIG.yaml [key=value ...]` where `sbatch` works.

Delegates to AReaL's Slurm launcher with a supervising job class. Exit status: the trainer's own; 1 when a server died
or a job was cancelled, timed out or lost; 2 for a wrong configuration or a job that Slurm refuses; 130 after Ctrl-C;
143 after SIGTERM.
"""

from __future__ import annotations

import shlex
import shutil
import sys

from areal.launcher import cluster, preflight, trial_lock

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol")


def main(argv: list[str] | None = None) -> int:
    parsed = cluster.parse(sys.argv[1:] if argv is None else argv, "slurm")
    if isinstance(parsed, int):
        return parsed
    config, argv = parsed
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        print(f"[launcher] Slurm's {', '.join(missing)} not found: launch from a login node", file=sys.stderr)
        return 2
    from areal.infra.launcher import slurm as areal_slurm
    from areal.infra.utils import slurm as areal_slurm_utils
    from areal.launcher import slurm_jobs

    cluster.quieten(areal_slurm, areal_slurm_utils)
    launcher_class = slurm_jobs.SupervisedSlurmLauncher
    areal_slurm.SlurmLauncher = launcher_class
    areal_slurm.wait_llm_server_addrs = cluster.wait_for_servers(lambda: launcher_class.active)
    sys.argv = [sys.argv[0], *map(shlex.quote, argv)]  # AReaL pastes sys.argv into its command strings
    try:
        with trial_lock.held(preflight.trial_folder(config)):
            return cluster.supervise(lambda: areal_slurm.slurm_main(config), lambda: launcher_class.active)
    except trial_lock.TrialInUseError as error:
        print(f"[launcher] {error}", file=sys.stderr)
        return 2
    finally:
        launcher_class.active = None


if __name__ == "__main__":
    sys.exit(main())
