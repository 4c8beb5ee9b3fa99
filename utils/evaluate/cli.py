"""`python -m utils.evaluate`: lmms-eval before and after; `python -m utils.evaluate.offline`: our own data.

    python -m utils.evaluate list                          # the benchmarks of the recipe's table
    python -m utils.evaluate --model CHECKPOINT --mode thinking --output DIR --tasks mmmu_val docvqa vstar
    python -m utils.evaluate --model CHECKPOINT --mode fast --output DIR --data data/digits/stage1/heldout.parquet
    python -m utils.evaluate compare BEFORE AFTER [AFTER]  # folders of such runs
    python -m utils.evaluate serve --model DIR/model       # the interface that DIR/command.sh asks, to run it by hand

The second and third form prepare a folder (`prepare`), start an SGLang server and lmms-eval (`make evaluation-env`),
and print the points. `--mode fast` asks for the answer alone, `--mode thinking` for reasoning first, in the words of
training (dataset/prompts.py). `--tasks` takes names of `list` and any other task of lmms-eval that has a file of its
name, `--data` curated parquet. `--backend transformers` runs lmms-eval's chat model llava_onevision1_5 instead, one
question after the other. Either way the model is this project's, not the modeling code of a published checkpoint.

`compare` says of every gain how sure it is, and applies the forgetting gate: DocVQA, CharXiv and VL-RewardBench are
known to fall in thinking mode. The exit status is 1 when one of them loses more than `--gate` points beyond noise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from utils import run_manifest
from utils.command_line import Parser, check_model, check_output
from utils.evaluate import benchmarks, compare, prepare, results
from utils.evaluate.offline import trained_prompts

PROG = "python -m utils.evaluate"


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    commands = {"compare": _compare_command, "list": _list_command, "serve": _serve_command}
    name = argv[0] if argv else ""
    try:
        return commands[name](argv[1:]) if name in commands else _run_command(argv)
    except (FileNotFoundError, ValueError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run_command(argv: list[str]) -> int:
    args = _run_arguments(argv)
    prompts = trained_prompts(args.model, args.layout)
    model = run_manifest.checkpoint_of(args.model)
    check_model(model)
    check_output(args.output)
    _check_judge(args)
    options = prepare.Options(args.backend, args.concurrency, args.device, args.max_new_tokens, args.limit)
    names = prepare.write_run(
        model, args.tasks, args.data, args.mode, args.output.absolute(), prompts=prompts, options=options
    )
    print(f"wrote {args.output}/command.sh and {len(names)} task files; prompt layout: {prompts.layout}")
    if args.write_only:
        return 0
    from dataset.curate.engine import EngineDead
    from dataset.curate.server import ServerFailed, ServerOptions
    from utils.evaluate import run

    variables = run.judge_environment(args.judge, args.judge_model)
    variables["PYTHON"] = str(run.environment_python())
    if args.data_root is not None:
        variables["DATA_ROOT"] = str(args.data_root.absolute())
    server = ServerOptions(
        model_path=str(args.output.absolute() / "model"),
        device=args.device,
        log_dir=str(args.output / "logs"),
        context_length=args.context_length,
        extra_arguments=("--tp-size", str(args.gpus), *args.server_argument),
    )
    print(f"model: {_implementation(args.backend)}", flush=True)
    try:
        asyncio.run(
            run.run(
                args.output.absolute(),
                names,
                options,
                server=server,
                addresses=args.server_addresses,
                variables=variables,
            )
        )
    except (run.EvaluationFailed, ServerFailed, EngineDead) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    print(points(args.output))
    return 0


def _implementation(backend: str) -> str:
    host = "SGLang" if backend == "server" else "transformers"
    return f"this project's LLaVA-OneVision-1.5 for {host}, not the modeling code of a published checkpoint"


def _run_arguments(argv: list[str]) -> argparse.Namespace:
    from dataset.prompts import LAYOUTS

    parser = _parser()
    add = parser.add_argument
    add("--model", required=True, help="checkpoint folder, or the folder of a run")
    add("--tasks", nargs="+", default=[], help="benchmarks of `list`, or tasks that lmms-eval has a file for")
    add(
        "--data",
        nargs="+",
        default=[],
        help="curated parquet files or folders, asked and scored as in training",
    )
    add("--mode", required=True, choices=prepare.MODES)
    add("--layout", choices=LAYOUTS, help="of prompts (default: the run's, else recipe)")
    add("--output", required=True, type=Path)
    add(
        "--backend",
        choices=prepare.BACKENDS,
        default="server",
        help="SGLang, many at a time; or transformers",
    )
    add("--device", choices=["cpu", "cuda"], default="cuda")
    add("--gpus", type=int, default=1, help="tensor parallel size of the server")
    add("--server-addresses", nargs="*", default=[], metavar="HOST:PORT", help="servers that run already")
    add(
        "--server-argument", action="append", default=[], help="passed on to SGLang as it is; may be repeated"
    )
    add("--context-length", type=int, help="of a server started here")
    add("--concurrency", type=int, default=64, help="questions at the server at a time")
    add("--max-new-tokens", type=int, help=f"instead of {prepare.MAX_NEW_TOKENS}")
    add("--limit", type=int, help="documents per task, from the first; for trying things out")
    add(
        "--data-root",
        type=Path,
        help="folder with data sets in folders named as on the Hub; used before the Hub",
    )
    add(
        "--judge",
        metavar="URL",
        help="base URL of a model that reads answers for tasks which ask one (.../v1)",
    )
    add("--judge-model", metavar="NAME", help="what it is called there")
    add("--write-only", action="store_true", help="prepare the folder; do not run anything")
    args = parser.parse_args(argv)
    if not args.tasks and not args.data:
        parser.error("name what to measure: --tasks, --data or both")
    return args


def _check_judge(args: argparse.Namespace) -> None:
    import os

    asking = [
        task for task in args.tasks if task in benchmarks.BENCHMARKS and benchmarks.BENCHMARKS[task].judge
    ]
    if asking and not (args.judge or os.environ.get("OPENAI_API_KEY") or args.write_only):
        raise ValueError(f"{', '.join(asking)} may ask a judge: --judge URL, or OPENAI_API_KEY for OpenAI's")


def points(folder: Path) -> str:
    """A line per task: the points of its metric, with its number of samples."""
    lines = []
    for name, measured in sorted(results.read(folder).items()):
        metrics = (
            measured.metrics if measured.main is None else {measured.main: measured.metrics[measured.main]}
        )
        for metric, value in metrics.items():
            lines.append(f"{name:<28}{metric:<36}{value:>7.1f}  of {measured.num_samples} samples")
    return "\n".join(lines)


def _compare_command(argv: list[str]) -> int:
    parser = _parser()
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path, nargs="+")
    parser.add_argument(
        "--gate", type=float, default=compare.GATE_POINTS, help="points that a gated benchmark may lose"
    )
    parser.add_argument(
        "--output", type=Path, help="for comparison.md, .png, .json (default: the last AFTER)"
    )
    args = parser.parse_args(argv)
    columns = compare.read_columns(args.before, args.after)
    output = args.output or args.after[-1]
    check_output(output)
    output.mkdir(parents=True, exist_ok=True)
    is_forgotten = False
    for name, changes in columns.items():
        if len(columns) > 1:
            print(f"{name}:")
        print(compare.table(changes, args.gate))
        print("\n".join(compare.verdict(changes, args.gate)))
        is_forgotten |= bool(compare.forgotten(changes, args.gate))
    label = compare.labels_of([args.before], [{}])[0]
    (output / "comparison.md").write_text(compare.markdown(columns, label, args.gate))
    (output / "comparison.json").write_text(json.dumps(compare.as_record(columns), indent=2) + "\n")
    compare.figure(columns, output / "comparison.png")
    print(f"wrote {output}/comparison.md, comparison.png and comparison.json")
    return 1 if is_forgotten else 0


def _list_command(argv: list[str]) -> int:
    _parser().parse_args(argv)
    print(benchmarks.listing())
    return 0


def _serve_command(argv: list[str]) -> int:
    parser = _parser()
    parser.add_argument("--model", required=True, help="`model` of a prepared folder")
    parser.add_argument("--server-addresses", nargs="+", required=True, metavar="HOST:PORT")
    parser.add_argument("--port", type=int, default=prepare.PORT)
    args = parser.parse_args(argv)
    check_model(args.model)
    asyncio.run(_serve(args))
    return 0


async def _serve(args: argparse.Namespace) -> None:
    from utils.evaluate.gateway import Gateway

    gateway = Gateway(args.model, args.server_addresses)
    try:
        print(f"BASE_URL={await gateway.start(args.port)}", flush=True)
        await asyncio.Event().wait()
    finally:
        await gateway.close()


def _parser() -> argparse.ArgumentParser:
    return Parser(prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
