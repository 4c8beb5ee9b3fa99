"""Writes a script with which bash completes the project's commands, configuration files and keys.

    python -m utils.completion > .venv/completion.bash && source .venv/completion.bash
    python -m areal.launcher.local trains/grpo.py --config configs/lla<TAB> actor.opt<TAB>

The script holds the keys, so that a <TAB> starts no Python; write it again after a change of versions.
"""

import sys

from utils.command_line import Parser

COMMANDS = (
    "areal.launcher.local",
    "areal.launcher.ray",
    "areal.launcher.slurm",
    "dataset.corpus",
    "dataset.create",
    "dataset.digits",
    "dataset.inspect",
    "dataset.mixture_fit",
    "reward",
    "trains.replay",
    "utils.checkpoint",
    "utils.completion",
    "utils.doctor",
    "utils.evaluate",
    "utils.evaluate.offline",
    "utils.summary",
    "utils.viewer",
)
TAKE_KEYS = ("areal.launcher.local", "areal.launcher.ray", "areal.launcher.slurm", "utils.doctor")
LAUNCHER_OPTIONS = ("--config", "--dry-run", "--rehearse", "--smoke", "--help")
SCRIPT = """# Completion of this project's commands for bash; written by python -m utils.completion.
_grpo_commands="{commands}"
_grpo_keys="{keys}"
_grpo_files() {{
    COMPREPLY=($(compgen -f -- "$1"))
    compopt -o filenames
}}
_grpo_complete() {{
    local word previous module="" index
    word=${{COMP_WORDS[COMP_CWORD]}}
    previous=${{COMP_WORDS[COMP_CWORD - 1]}}
    COMPREPLY=()
    compopt +o nospace +o filenames
    for ((index = 1; index < COMP_CWORD; index++)); do
        if [ "${{COMP_WORDS[index]}}" = -m ]; then module=${{COMP_WORDS[index + 1]}}; fi
    done
    if [ "$previous" = -m ]; then
        COMPREPLY=($(compgen -W "$_grpo_commands" -- "$word"))
    elif [ "$previous" = --config ] || [ "$previous" = --reward-config ]; then
        COMPREPLY=($(compgen -W "$(compgen -G 'configs/*.yaml'; compgen -G 'configs/*/*.yaml')" -- "$word"))
        [ ${{#COMPREPLY[@]}} -gt 0 ] || _grpo_files "$word"
    else
        case " {take_keys} " in
        *" $module "*)
            case "$previous$word" in  # bash parts key=value into three words
            *=*) _grpo_files "${{word#*=}}" ;;
            *)
                COMPREPLY=($(compgen -W "{options}" -- "$word") $(compgen -S = -W "$_grpo_keys" -- "$word"))
                [[ "${{COMPREPLY[0]}}" != *= ]] || compopt -o nospace
                [ ${{#COMPREPLY[@]}} -gt 0 ] || _grpo_files "$word" ;;
            esac ;;
        *) _grpo_files "$word" ;;
        esac
    fi
}}
complete -F _grpo_complete python python3
"""


def script() -> str:
    """The bash script."""
    from trains.host.settings import import_alone

    import_alone()
    from trains.arguments import keys
    from trains.config import Config

    known = keys(Config)
    leaves = sorted(key for key in known if not any(other.startswith(f"{key}.") for other in known))
    return SCRIPT.format(
        commands=" ".join(COMMANDS),
        keys=" ".join(leaves),
        take_keys=" ".join(TAKE_KEYS),
        options=" ".join(LAUNCHER_OPTIONS),
    )


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m utils.completion", description=__doc__.splitlines()[0])
    parser.parse_args(argv)
    print(script(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
