"""SGLang's server on a CPU: `python -m sglang_cpu.launch_server --model-path CHECKPOINT [SGLang's options]`.

The options of `sglang_cpu.flags()` are defaults here: what the command line says wins.
"""

import os

import sglang_cpu
from sglang_cpu import stand_ins, tuning

# The statements below are at module level on purpose. SGLang spawns its scheduler and its detokenizer; a
# spawned process imports this module again (as __mp_main__) before anything else, and needs them as well.
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
    import sys

    from sglang.launch_server import run_server
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    server_args = prepare_server_args(arguments_with_defaults(sys.argv[1:]))
    try:
        run_server(server_args)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


if __name__ == "__main__":
    main()
