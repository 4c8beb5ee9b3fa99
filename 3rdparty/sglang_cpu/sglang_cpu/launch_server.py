"""SGLang's server on a CPU: `python -m sglang_cpu.launch_server --model-path CHECKPOINT [SGLang's options]`.

The options of `sglang_cpu.flags()` are defaults here: what the command line says wins.
"""

import ctypes
import os
import signal
import sys

import sglang_cpu
from sglang_cpu import stand_ins, tuning

PR_SET_PDEATHSIG = 1
SERVER_PID = "SGLANG_CPU_SERVER_PID"


def _is_alive(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            state = file.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in {"Z", "X"}  # killed, but not yet waited for by whoever started it


def end_with_server() -> None:
    """In a child of the server: have the kernel kill it with its parent; end at once if the server has died.

    SGLang asks for the same, but only after seconds of imports: a server killed during its start would leave
    its children behind for good.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if not _is_alive(os.environ[SERVER_PID]):
        os._exit(1)


# The statements below are at module level on purpose. SGLang spawns its scheduler and its detokenizer; a
# spawned process imports this module again (as __mp_main__) before anything else, and needs them as well.
if __name__ == "__mp_main__" and sys.platform == "linux":
    end_with_server()
for _name, _value in sglang_cpu.environment().items():
    os.environ.setdefault(_name, _value)
stand_ins.install()
tuning.apply()


def arguments_with_defaults(arguments: list[str]) -> list[str]:
    """The CPU flags that `arguments` does not set itself, followed by `arguments`."""
    given = {argument.split("=", 1)[0].lstrip("-") for argument in arguments if argument.startswith("--")}
    defaults = {name: value for name, value in sglang_cpu.flags().items() if name not in given}
    return sglang_cpu.command_line(defaults) + arguments


def main() -> None:
    from sglang.launch_server import run_server
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    os.environ[SERVER_PID] = str(os.getpid())
    server_args = prepare_server_args(arguments_with_defaults(sys.argv[1:]))
    try:
        run_server(server_args)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


if __name__ == "__main__":
    main()
