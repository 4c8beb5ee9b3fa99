"""Ray on this machine for as long as a test needs it: nodes that are processes, with ports and folders of their own.

Nodes have loopback addresses from 127.0.0.2 on and one made-up GPU each. `ray stop` ends every Ray of a machine; here
each node is ended by its process group.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import ray

READY_SECONDS = 180
ALIVE = 0  # Ray's number for it
GPUS, CPUS, MEMORY = 1, 2, 6 << 30


class Raylets:
    """A head and more nodes; `address` is what RAY_ADDRESS wants."""

    def __init__(self, folder: Path, port: int, head: str = "127.0.0.2"):
        self.folder, self.port, self.head = folder, port, head
        self.nodes: dict[str, subprocess.Popen] = {}
        self.address = f"{head}:{port}"

    def add(self, host: str, working_directory: Path) -> None:
        """Start the node `host`, the head if it is the first, from a working directory of its own."""
        role = ["--address", self.address]
        if not self.nodes:
            role = ["--head", "--port", str(self.port), "--temp-dir", str(self.folder)]
            role += ["--include-dashboard", "false", "--disable-usage-stats"]
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *role, "--node-ip-address", host,
            "--num-gpus", str(GPUS), "--num-cpus", str(CPUS), "--memory", str(MEMORY),
            "--object-store-memory", str(100 << 20), "--min-worker-port", "0", "--max-worker-port", "0",
        ]  # fmt: skip
        variables = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        variables |= {"RAY_raylet_start_wait_time_s": "120", "RAY_DISABLE_IMPORT_WARNING": "1"}
        variables["CUDA_VISIBLE_DEVICES"] = "0"
        with (self.folder.parent / f"{self.folder.name}-{host}.log").open("ab") as output:
            self.nodes[host] = subprocess.Popen(
                command,
                cwd=working_directory,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, count: int) -> None:
        """Until the cluster has `count` living nodes."""
        deadline = time.monotonic() + READY_SECONDS
        while self.num_alive() < count:
            if time.monotonic() > deadline:
                logs = "".join(
                    path.read_text()[-1500:] for path in self.folder.parent.glob(f"{self.folder.name}-*.log")
                )
                raise RuntimeError(f"{count} nodes did not come up within {READY_SECONDS} s\n{logs}")
            time.sleep(0.5)

    def num_alive(self) -> int:
        """Living nodes as the head sees them; 0 while it does not answer."""
        from ray._raylet import GcsClient

        try:
            socket.create_connection((self.head, self.port), timeout=1).close()
            nodes = GcsClient(address=self.address).get_all_node_info(timeout=5)
        except (OSError, RuntimeError, ray.exceptions.RaySystemError):
            return 0
        return sum(node.state == ALIVE for node in nodes.values())

    def state(self, what: str) -> str:
        """What the cluster says of what is `free` or of its `groups`; empty without an answer."""
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", STATE, self.address, what],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout

    def is_given_back(self) -> bool:
        """Whether no placement group is left and every GPU and CPU is free."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            rows = [line.split() for line in self.state("free").splitlines()]
            if (
                rows
                and all(free == total for _, free, total in rows)
                and self.state("groups").strip() == "[]"
            ):
                return True
        return False

    def raylet(self, host: str) -> psutil.Process:
        """The raylet of a node."""
        for process in psutil.Process(self.nodes[host].pid).children(recursive=True):
            if process.name() == "raylet":
                return process
        raise RuntimeError(f"{host} has no raylet")

    def host_of(self, pid: int) -> str | None:
        """The node that a process stands below."""
        above = {process.pid for process in psutil.Process(pid).parents()}
        return next((host for host in self.nodes if self.raylet(host).pid in above), None)

    def kill(self, host: str) -> None:
        """`kill -9` of a node's raylet; what belongs to it must go by itself."""
        self.raylet(host).kill()

    def remove(self, host: str) -> None:
        """End a node and everything that stands below it."""
        process = self.nodes.pop(host)
        below = _descendants(process.pid)
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sign)
            except ProcessLookupError:
                break
            try:
                process.wait(15)
                break
            except subprocess.TimeoutExpired:
                continue
        for child in below:
            if child.is_running():
                child.kill()

    def close(self) -> None:
        for host in reversed(list(self.nodes)):
            self.remove(host)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


STATE = """
import sys, ray, logging
logging.getLogger("ray").setLevel("ERROR")
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
if sys.argv[2] == "free":
    for name in ("CPU", "GPU"):
        print(name, ray.available_resources().get(name, 0), ray.cluster_resources().get(name, 0))
else:
    print([g["name"] for g in ray.util.placement_group_table().values() if g["state"] != "REMOVED"])
"""
