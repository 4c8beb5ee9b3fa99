"""Rehearse every configuration of `configs/` on data in the published layout: `make rehearse`.

    python -m trains.rehearsal.all [--output runs/rehearsal-all] [--workers 2] [NAME ...]

Stage 2 starts from the checkpoint that the rehearsed stage 1 ended with. One line for each file, its log beside the
data; exit status 1 unless all are ready. A file that no line of `CHAINS` names is refused by a test.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dataset.digits import write_digits
from dataset.zoom_digits import write_zoom_digits
from trains.rehearsal.published import write_published
from utils.command_line import Parser, check_output

ENTRY = "trains/grpo.py"
# Files of one line are rehearsed one after the other, lines beside each other.
CHAINS = (
    ("llavaov15-8b_stage1_grpo", "llavaov15-8b_stage2_grpo"),
    ("llavaov15-4b_stage1_grpo", "llavaov15-4b_stage2_grpo"),
    ("digits_cpu_stage1", "digits_cpu_stage2"),
    ("zoom_cpu",),
    ("llavaov15-4b_1x80gb_grpo",),
    ("llavaov15-4b_1x24gb_grpo",),
    ("llavaov15-8b_2nodes_ray_grpo",),
    ("llavaov15-8b_2nodes_slurm_grpo",),
    ("qwen25vl-3b_stage1_grpo",),
)


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m trains.rehearsal.all", description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="files of configs/ without .yaml (default: all)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/rehearsal-all"), help="default: %(default)s"
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="rehearsals at one time (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    unknown = set(arguments.names) - {name for chain in CHAINS for name in chain}
    if unknown:
        known = ", ".join(name for chain in CHAINS for name in chain)
        parser.error(f"{', '.join(sorted(unknown))}: wanted names of {known}")
    try:
        check_output(arguments.output)
    except ValueError as error:
        parser.error(str(error))
    write_data(arguments.output)
    wanted = arguments.names or [name for chain in CHAINS for name in chain]
    # read here: hydra keeps its state in globals, which threads would share
    words = {name: arguments_for(name, arguments.output) for name in wanted}
    chains = [kept for chain in CHAINS if (kept := {name: words[name] for name in chain if name in words})]
    started = time.monotonic()
    with ThreadPoolExecutor(arguments.workers) as pool:
        failed = [
            name for names in pool.map(lambda chain: _walk(chain, arguments.output), chains) for name in names
        ]
    minutes = (time.monotonic() - started) / 60
    print(f"{len(wanted) - len(failed)} of {len(wanted)} configurations are ready ({minutes:.1f} min)")
    return 1 if failed else 0


def write_data(output: Path) -> None:
    """The data of every shipped configuration below `output`/data, as their paths name it below ./data."""
    shutil.rmtree(output, ignore_errors=True)
    write_published(output / "data/stage1-normal", "normal")
    write_published(output / "data/stage2-long", "default")
    write_digits(output / "data/digits")
    write_zoom_digits(output / "data/zoom_digits")


def arguments_for(name: str, output: Path) -> list[str]:
    """The words behind the launcher that take configuration `name` to the data and folders of `output`."""
    from trains.arguments import read
    from trains.config import Config

    words = [ENTRY, "--config", f"configs/{name}.yaml"]
    config, _ = read(words, Config)
    moved = [
        f"cluster.fileroot={output}",
        f"++train_dataset.path={_moved(config.train_dataset.path, output)}",
    ]
    if config.train_dataset.mixture:
        parts = [
            f"{{path:'{_moved(part['path'], output)}',weight:{part['weight']}}}"
            for part in config.train_dataset.mixture
        ]
        moved.append(f"++train_dataset.mixture=[{','.join(parts)}]")
    if config.valid_dataset is not None:
        moved.append(f"++valid_dataset.path={_moved(config.valid_dataset.path, output)}")
    return [*words, *moved]


def _moved(path: Any, output: Path) -> Path:
    return output / Path(path)


def _walk(chain: dict[str, list[str]], output: Path) -> list[str]:
    """Rehearse the files of a chain; those that are not ready."""
    failed = []
    for name, arguments in chain.items():
        words = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "areal.launcher.local",
            *arguments,
            "--rehearse",
        ]
        log, started = output / f"{name}.log", time.monotonic()
        with log.open("w") as file:
            status = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        verdict = "NOT READY" if status else "ready"
        print(f"{verdict:<9} {name}, {time.monotonic() - started:.0f} s: {log}", flush=True)
        if status:
            lines = log.read_text().splitlines()
            print("\n".join([line for line in lines if line.startswith("PROBLEM")] or lines[-5:]), flush=True)
            failed.append(name)
    return failed


if __name__ == "__main__":
    sys.exit(main())
