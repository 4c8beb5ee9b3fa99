"""The Ray cluster that curation runs on: join or start one, and give each worker a node, folder and environment."""

import os
import re
import socket
import sys
from typing import Any

from dataset.curate.worker import Worker, WorkerPlan

OBJECT_STORE_BYTES = 512 << 20  # rows on their way to actors; everything else stays where it is
# Variables that belong to a node and not to the run; workers get every other one of this process.
OF_THE_NODE = re.compile(
    r"CUDA_VISIBLE_DEVICES|HOSTNAME|TMPDIR|TEMP|TMP|DISPLAY|PWD|OLDPWD|SHLVL|TERM|_"
    r"|(RAY|SLURM|SSH|XDG|DBUS)_.*"
)


class NodeWorker(Worker):
    """A worker on whatever node Ray puts it, in the folder and with the variables of the command."""

    def __init__(
        self, plan: WorkerPlan, name: str, address: str | None, folder: str, variables: dict[str, str]
    ) -> None:
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"this node has no folder {folder}; every node must see the same files")
        os.environ.update(variables)
        os.chdir(folder)  # paths of the command line may be relative
        super().__init__(plan, name, address)


def start_ray(address: str | None) -> None:
    """Join the Ray cluster at `address`, in RAY_ADDRESS, or that `ray start` has started here; else start one for this
    run alone.

    Raises ConnectionError when there is none at the address.
    """
    import ray

    if ray.is_initialized():
        return
    # Actors without GPUs keep the host's view.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    shown: dict[str, Any] = {"log_to_driver": True, "logging_level": "warning"}
    given = address or os.environ.get("RAY_ADDRESS")
    found = ray._private.services.canonicalize_bootstrap_address(given)
    if found is None or (not given and not _answers(found)):  # Ray remembers clusters that are gone
        ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **shown)
        return
    if not _answers(found):
        raise ConnectionError(f"no Ray cluster answers at {found}")
    ray.init(address=found, **shown)
    where = ray.get_runtime_context().gcs_address
    print(f"joined the Ray cluster at {where}: {len(node_ids())} node(s)", file=sys.stderr)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def node_ids() -> list[str]:
    """Living nodes of the cluster, this process's own first."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    return sorted((node["NodeID"] for node in ray.nodes() if node["Alive"]), key=lambda found: found != own)


def placement(index: int, num_gpus: float) -> Any:
    """Where Ray is to put worker `index`: by its GPUs, spread; without any, in turn over the nodes."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if num_gpus:
        return "SPREAD"
    nodes = node_ids()
    return NodeAffinitySchedulingStrategy(nodes[index % len(nodes)], soft=True)


def carried_variables() -> dict[str, str]:
    """Of this process's environment, what workers on other nodes get."""
    return {name: value for name, value in os.environ.items() if not OF_THE_NODE.fullmatch(name)}
