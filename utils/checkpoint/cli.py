"""Published checkpoints in, published checkpoints out, and a proof that two folders hold the same model.

    python -m utils.checkpoint prepare SRC DST                  a folder that trains here; weights are linked
    python -m utils.checkpoint export SRC DST --original ORIG   trained weights with the original configuration and code
    python -m utils.checkpoint verify A [B]                     layout of A; with B, the same answers from both

`prepare` checks names and shapes of all weights, the 588 columns of a patch, special tokens and chat template, and
writes the shims that make the folder load on transformers 5. `export` undoes that: transformers 5 saves
`rope_parameters` where the published code reads `rope_theta`, so the original `config.json` is put back, and the result
loads wherever the published checkpoint does. `verify A B` compares greedy text and log-probabilities on the CPU. Both
take the folder of a finished run (`runs/EXPERIMENT/TRIAL`) in place of its checkpoint, and both know Qwen-VL: what is
checked there is that transformers finds every weight. Qwen-VL needs no `prepare`.
"""

from __future__ import annotations

import argparse
import sys

from utils.command_line import Parser
from utils.run_manifest import checkpoint_of


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m utils.checkpoint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="make a folder that trains here")
    prepare.add_argument("source")
    prepare.add_argument("target")
    export = commands.add_parser("export", help="make a folder that loads everywhere else")
    export.add_argument("trained")
    export.add_argument("target")
    export.add_argument(
        "--original", required=True, help="the published checkpoint that training started from"
    )
    verify = commands.add_parser("verify", help="check one folder, or compare two")
    verify.add_argument("first")
    verify.add_argument("second", nargs="?")
    verify.add_argument("--new-tokens", type=int, default=32, help="length of the greedy answers")
    verify.add_argument(
        "--tolerance", type=float, default=0.0, help="largest difference of log-probabilities, in nats"
    )
    arguments = parser.parse_args(argv)
    try:
        return _COMMANDS[arguments.command](arguments)
    except (OSError, ValueError) as error:
        print(f"checkpoint: {error}", file=sys.stderr)
        return 1


def _prepare(arguments: argparse.Namespace) -> int:
    from llavaonevision1_5 import checkpoint
    from utils.checkpoint import qwen

    if qwen.is_qwen(arguments.source):
        raise ValueError(
            f"{arguments.source} is a Qwen-VL model, which trains as it is published; let actor.path name that folder"
        )
    print(
        f"prepared {checkpoint.prepare(arguments.source, arguments.target)}; weights are links to {arguments.source}"
    )
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from llavaonevision1_5 import checkpoint

    trained = checkpoint_of(arguments.trained)
    folder = checkpoint.export(trained, arguments.target, original=arguments.original)
    print(f"exported {trained} to {folder}")
    if checkpoint.has_published_code(folder):
        print(f"note: {folder}: {checkpoint.CLASS_TOKEN_FAULT}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from llavaonevision1_5 import checkpoint
    from utils.checkpoint import qwen

    folders = [checkpoint_of(path) for path in (arguments.first, arguments.second) if path is not None]
    for folder in folders:
        if qwen.is_qwen(folder):
            qwen.verify(folder)
            print(f"{folder}: transformers finds every weight; special tokens and chat template are right")
            continue
        checkpoint.verify(folder)
        print(f"{folder}: layout, patches, special tokens and chat template are right")
        if checkpoint.has_published_code(folder):
            print(f"note: {folder}: {checkpoint.CLASS_TOKEN_FAULT}")
    if arguments.second is None:
        return 0
    from utils.checkpoint.compare import compare, compare_weights

    print(compare_weights(*folders))
    rows = compare(*folders, new_tokens=arguments.new_tokens)
    for row in rows:
        print(
            f"{row.prompt:<12} log-probabilities of {row.num_tokens} tokens differ by up to {row.max_difference:.2e}; "
            f"greedy text {'equal' if row.same_text else 'DIFFERENT'}"
        )
    is_same = all(row.same_text and row.max_difference <= arguments.tolerance for row in rows)
    print("the same model" if is_same else f"NOT the same model (tolerance {arguments.tolerance:g} nats)")
    return 0 if is_same else 1


_COMMANDS = {"prepare": _prepare, "export": _export, "verify": _verify}
