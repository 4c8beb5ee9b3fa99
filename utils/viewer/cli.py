"""python -m utils.viewer RUN [RUN ...] [--output FOLDER] [--follow] [--steps 812,820-830]

Writes pages that show one run, or several over each other and the first two side by side: curves, advice, every
rollout with its image, boxes, drawing, reward and trace. They open from the disk, without a server or a network.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from utils.command_line import Parser

FOLLOW_SECONDS = 10.0


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m utils.viewer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, e.g. runs/digits-stage1/demo")
    parser.add_argument(
        "--output", type=Path, help="folder for the pages; viewer/ in the first run's by default"
    )
    parser.add_argument(
        "--follow", action="store_true", help="write again as the runs go on, until they have finished"
    )
    parser.add_argument(
        "--steps", type=steps_of, default=(), help="steps that get a page in any case: 812,820-830"
    )
    arguments = parser.parse_args(argv)
    from utils.viewer.site import Site  # takes a second

    start = time.perf_counter()
    site = Site(arguments.output or arguments.runs[0] / "viewer", arguments.steps)
    try:
        runs = site.write(arguments.runs, arguments.follow)
        print(f"viewer: {site.output / 'index.html'} ({time.perf_counter() - start:.1f} s)", flush=True)
        while arguments.follow and not all(run.is_finished for run in runs):
            time.sleep(FOLLOW_SECONDS)
            runs = site.write(arguments.runs, arguments.follow)
    except (ValueError, OSError) as error:
        print(f"viewer: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def steps_of(text: str) -> tuple[int, ...]:
    """`812,820-822` as (812, 820, 821, 822). Raises ArgumentTypeError for anything else."""
    steps: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.strip().isdigit() or not (last or first).strip().isdigit():
            raise argparse.ArgumentTypeError(f"got {part!r}, wanted steps like 812,820-830")
        steps += range(int(first), int(last or first) + 1)
    return tuple(steps)
