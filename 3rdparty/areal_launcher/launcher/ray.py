"""`python -m areal.launcher.ray ENTRY.py --config CONFIG.yaml [key=value ...]` on a Ray cluster that is running.

Delegates to AReaL's Ray launcher with a supervising job class. Exit status: the trainer's own; 1 when a server or a
node died; 2 for a wrong configuration or a cluster that lacks what it wants; 130 after Ctrl-C; 143 after SIGTERM.
"""

from __future__ import annotations

import logging
import sys

from areal.launcher import cluster, preflight, trial_lock


def main(argv: list[str] | None = None) -> int:
    parsed = cluster.parse(sys.argv[1:] if argv is None else argv, "ray")
    if isinstance(parsed, int):
        return parsed
    config, argv = parsed
    import ray
    from areal.infra.launcher import ray as areal_ray
    from areal.launcher import ray_jobs

    cluster.quieten(areal_ray)
    sys.argv = [sys.argv[0], *argv]  # AReaL hands these on to every process
    logging.getLogger("ray._private.worker").setLevel("ERROR")
    try:
        address = ray._private.services.canonicalize_bootstrap_address("auto")
        if not ray_jobs.answers(address):
            raise ConnectionError(f"nobody answers at {address}")
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError) as error:
        print(
            f"[launcher] no Ray cluster: {error}\nstart one with `ray start --head` on the first node and "
            "`ray start --address FIRST:6379` on the others, or name one in RAY_ADDRESS",
            file=sys.stderr,
        )
        return 2
    areal_ray.RAY_LAUNCHER = launcher = ray_jobs.SupervisedRayLauncher(
        config.experiment_name, config.trial_name, config.cluster.fileroot
    )
    areal_ray.wait_llm_server_addrs = cluster.wait_for_servers(lambda: launcher)
    areal_ray.get_placement_group_master_ip_and_port = ray_jobs.master_address
    with ray_jobs.watched_head(launcher, address):
        try:
            with trial_lock.held(preflight.trial_folder(config)):
                status = cluster.supervise(lambda: areal_ray.ray_main(config), lambda: launcher)
        except trial_lock.TrialInUseError as error:
            print(f"[launcher] {error}", file=sys.stderr)
            status = 2
        finally:
            areal_ray.RAY_LAUNCHER = None
        ray.shutdown()
    return status


if __name__ == "__main__":
    sys.exit(main())
