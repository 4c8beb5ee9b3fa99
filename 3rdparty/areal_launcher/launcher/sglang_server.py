"""Starts the SGLang servers of one machine: AReaL's wrapper, bound to one address, and CPU-aware.

Run by the launchers, one process for all servers of the machine. SIGTERM ends the servers too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

from areal.api.cli_args import SGLangConfig, get_py_cmd
from areal.infra.launcher import sglang_server
from areal.infra.platforms import current_platform
from areal.launcher import live, resolve_links

READY_POLL_SECONDS = 0.5


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # lets AReaL's `finally` end the servers
    sglang_server.gethostip = lambda *_: os.environ.get("AREAL_SERVER_HOST", "127.0.0.1")
    sglang_server.SGLangServerWrapper.launch_one_server = _launch_one_server
    if live.folder_here() is not None:
        sglang_server.SGLangServerWrapper._monitor_server_processes = _leave_it_to_the_launcher
    if current_platform.device_type == "cpu":
        if not current_platform.device_control_env_var:
            current_platform.device_control_env_var = "AREAL_CPU_SLOTS"
        _use_cpu_server()
    resolve_links()
    sglang_server.main(sys.argv[1:])


def _launch_one_server(self, cmd, host_ip, server_port, node_rank) -> subprocess.Popen:
    """As AReaL's, but notices a server that dies while starting and does not sleep once it is ready."""
    process = sglang_server.launch_server_cmd(cmd, _server_environment())
    address = f"{host_ip}:{server_port}"
    while not _is_ready(f"http://{address}/health"):
        if process.poll() is not None:
            raise RuntimeError(
                f"SGLang server {address} exited with status {process.returncode} while starting"
            )
        time.sleep(READY_POLL_SECONDS)
    if live.folder_here() is not None:
        noted = {
            "pid": process.pid,
            "address": address,
            "argv": list(cmd),
            "environment": _server_environment(),
        }
        live.write(live.folder_here() / f"server-{server_port}.json", noted)
    if node_rank == 0:
        name = sglang_server.names.gen_servers(self.experiment_name, self.trial_name)
        sglang_server.name_resolve.add_subentry(name, address)
    return process


def _leave_it_to_the_launcher(self, server_addresses) -> None:
    """Stands for AReaL's watch, which ends all servers when one has died; the launcher starts that one again."""
    del server_addresses
    while True:
        for process in self.server_processes:
            process.poll()  # takes the exit status of a dead one
        time.sleep(READY_POLL_SECONDS)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _server_environment() -> dict[str, str]:
    if current_platform.device_type != "cpu":
        return {}
    import sglang_cpu

    return sglang_cpu.environment()


def _use_cpu_server() -> None:
    """Have AReaL build the CPU command line: same settings, `sglang_cpu`'s entry point and flags."""
    import sglang_cpu

    # the data type stays that of the configuration
    cpu_flags = {
        name.replace("-", "_"): value for name, value in sglang_cpu.flags().items() if name != "dtype"
    }
    build_args = SGLangConfig.build_args
    SGLangConfig.build_args = staticmethod(
        lambda *args, **kwargs: {**build_args(*args, **kwargs), **cpu_flags}
    )
    SGLangConfig.build_cmd_from_args = staticmethod(lambda args: get_py_cmd("sglang_cpu.launch_server", args))


if __name__ == "__main__":
    main()
