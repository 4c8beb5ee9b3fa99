"""Command line: `python -m reward explain`, `python -m reward audit PATH`, `python -m reward bench`."""

import argparse
import json
import sys
from pathlib import Path

from utils.command_line import Parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["bench"]:
        from reward.tools.bench import main as bench

        return bench(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, OSError) as error:
        print(f"python -m reward: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m reward", description=__doc__)
    commands = parser.add_subparsers(required=True)

    explain = commands.add_parser("explain", help="show how one completion comes to its score")
    explain.add_argument(
        "completion", nargs="?", type=Path, help="file with the completion; standard input if absent"
    )
    explain.add_argument("--answer-type", required=True)
    explain.add_argument(
        "--answer", required=True, action="append", help="reference answer; may be given several times"
    )
    explain.add_argument("--problem-type")
    explain.add_argument("--prompt-type", choices=("answer", "think"))
    explain.add_argument("--spec", type=json.loads, help="the sample's spec as JSON")
    explain.add_argument(
        "--trajectory",
        action="store_true",
        help="the file is a conversation with tools: a JSON record of rollouts.jsonl",
    )
    explain.add_argument(
        "--weights",
        type=json.loads,
        default={},
        help='with --trajectory: JSON, {"tool_bonus": 0.5}; section agent',
    )
    explain.set_defaults(run=_explain)

    audit = commands.add_parser("audit", help="check that references pay for themselves and for nothing else")
    audit.add_argument("path", help="file, folder, several with commas, or Hub name, as train_dataset.path")
    audit.add_argument(
        "--columns", nargs="*", default=[], metavar="FIELD=COLUMN", help="names and constants of foreign data"
    )
    audit.add_argument("--sample", type=int, default=64, metavar="N", help="samples per source and type")
    audit.add_argument(
        "--reward-config",
        metavar="YAML",
        help="a training configuration, for its section `reward` and, without --columns, its train_dataset.columns",
    )
    audit.set_defaults(run=_audit)

    commands.add_parser("bench", help="rewards per second and the time of one step, against a plain baseline")
    return parser


def _explain(options: argparse.Namespace) -> int:
    from reward.tools.explain import explain

    completion = options.completion.read_text() if options.completion else sys.stdin.read()
    names = ("problem_type", "prompt_type", "spec")
    if options.trajectory:
        from reward.tools.explain_trajectory import explain_trajectory, read_record

        record = read_record(completion)
        kept = {name: getattr(options, name) for name in names}
        print(explain_trajectory(record, options.answer, options.answer_type, options.weights, **kept))
        return 0
    print(
        explain(
            completion,
            options.answer,
            options.answer_type,
            **{name: getattr(options, name) for name in names},
        )
    )
    return 0


def _audit(options: argparse.Namespace) -> int:
    from reward.settings import DEFAULT_SETTINGS, read_settings
    from reward.tools.audit import audit, table
    from utils.columns import parse_columns
    from utils.training_file import read_sections

    if options.sample < 1:
        raise ValueError(f"--sample: got {options.sample}, wanted at least 1")
    settings = read_settings(options.reward_config) if options.reward_config else DEFAULT_SETTINGS
    columns = parse_columns(options.columns)
    if options.reward_config and not columns:
        data = read_sections(options.reward_config, ("train_dataset",)).get("train_dataset") or {}
        columns = data.get("columns") or {}
    results = audit(options.path, options.sample, columns=columns, settings=settings)
    print(table(results))
    return int(any(result.failures for result in results))


if __name__ == "__main__":
    sys.exit(main())
