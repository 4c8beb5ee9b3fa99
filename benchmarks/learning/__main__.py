"""Does it learn, and would it learn from nothing? The demo with five seeds, each with a control.

    python -m benchmarks.learning headline                 # about an hour on two idle cores
    python -m benchmarks.learning ablations                # one change at a time, 30 steps, 3 seeds
    python -m benchmarks.learning choose --rate 2.5e-5 --rate 4e-5
    python -m benchmarks.learning report                   # from what has finished
    python -m benchmarks.learning report --results benchmarks/learning/results    # from the runs in the repository

A control is the same run with `loss.shuffle_rewards`: it learns from the same rewards, dealt out at random within each
batch. Every run that has finished is kept below `--output` and not started again, so a benchmark that was cut off goes
on where it was. Learning rates are chosen on the validation split (`choose`), which is neither trained nor reported on.
Results: `benchmarks/learning.json` and `docs/figures/learning.png`; status 1 when a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from benchmarks.learning import report as reports
from benchmarks.learning import trials
from benchmarks.learning.runs import commit, machine, run


def main(argv: list[str] | None = None) -> int:
    arguments = _arguments(argv)
    wanted = {
        "headline": trials.headline,
        "ablations": trials.ablations,
        "choose": lambda: trials.choices(arguments.rate, arguments.seed or trials.ABLATION_SEEDS),
        "report": list,
    }[arguments.what]()
    if arguments.seed:
        wanted = [trial for trial in wanted if trial.seed in arguments.seed]
    for number, trial in enumerate(wanted, 1):
        try:
            result = run(trial, arguments.output.resolve(), arguments.results.resolve())
        except (RuntimeError, ValueError) as error:
            print(f"learning: {error}", file=sys.stderr)
            return 1
        first, last = (result["evaluations"][i]["accuracy"]["overall"] for i in (0, -1))
        what = f"{number}/{len(wanted)} {trial.stage} {trial.name}"
        print(f"{what}: {first:.1%} -> {last:.1%} ({result['minutes']:.1f} min)", flush=True)
    results = [json.loads(path.read_text()) for path in sorted(arguments.results.glob("*.json"))]
    report = summarise(results, sys.argv[1:] if argv is None else argv)
    reports.write(report, arguments.json)
    reports.draw([result for result in results if result["group"] == "headline"], arguments.figure)
    print(reports.describe(report))
    return 0 if all(part.get("holds", True) for part in report["headline"].values()) else 1


def summarise(results: list[dict], argv: list[str]) -> dict:
    """Everything that goes into the JSON file."""
    by_group = {
        group: [result for result in results if result["group"] == group]
        for group in ("headline", "ablation", "choice")
    }
    return {
        "command": "python -m benchmarks.learning " + shlex.join(argv),
        "machine": machine(),
        "commit": commit(),
        "headline": reports.headline(by_group["headline"]),
        "ablations": reports.ablations(by_group["ablation"]),
        "choice": reports.choice(by_group["choice"]),
    }


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("headline", "ablations", "choose", "report"))
    parser.add_argument(
        "--output", type=Path, default=Path("runs/learning"), help="runs (default: %(default)s)"
    )
    parser.add_argument(
        "--results", type=Path, help="of finished runs, one file each (default: results in --output)"
    )
    parser.add_argument("--seed", type=int, action="append", help="these alone; may be repeated")
    parser.add_argument(
        "--rate", action="append", default=[], help="learning rate of `choose`; may be repeated"
    )
    parser.add_argument("--json", type=Path, default=Path("benchmarks/learning.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/learning.png"))
    arguments = parser.parse_args(argv)
    if arguments.what == "choose" and not arguments.rate:
        parser.error("choose needs at least one --rate")
    arguments.results = arguments.results or arguments.output / "results"
    return arguments


if __name__ == "__main__":
    sys.exit(main())
