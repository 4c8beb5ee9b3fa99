"""`python -m tests.mutants`: do the tests notice when the code is wrong?

    make mutants                                  a seeded sample of all files
    python -m tests.mutants --all [FILE ...]      every mutant, by hand: tens of minutes

A mutant is a file with one small change. It survives when every fast test of that file passes. Survivors that are known
stand in docs/mutants.md with the reason; another one makes the exit status 1, as does a listed one that is killed or
gone (of those that this run looked at). A process imports torch and AReaL once and forks for every mutant.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.mutants.examine import ROOT, TARGETS, examine
from tests.mutants.mutate import mutants

PAGE = ROOT / "docs/mutants.md"
LISTED = re.compile(r"^\| `(\S+)` \| `(.+?)` \| (.+?) \|$", re.MULTILINE)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="default: all of " + ", ".join(TARGETS))
    parser.add_argument("--all", action="store_true", help="every mutant, not a sample")
    parser.add_argument("--sample", type=int, default=30, help="mutants per file (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=219)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"
    listed = {(file, name) for file, name, _ in LISTED.findall(PAGE.read_text())}
    jobs, looked_at = [], set()
    for file in args.files or TARGETS:
        found = list(mutants((ROOT / file).read_text()))
        unknown = {name for path, name in listed if path == file} - {mutant.name for mutant in found}
        if unknown:
            raise SystemExit(f"{PAGE.name} lists mutants of {file} that there are not: {sorted(unknown)}")
        # By the name's hash: a change of the file exchanges few members of the sample.
        found.sort(key=lambda mutant: hashlib.sha256(f"{args.seed}{file}{mutant.name}".encode()).digest())
        chosen = found if args.all else found[: args.sample]
        looked_at |= {(file, mutant.name) for mutant in chosen}
        jobs.append((file, chosen))
    jobs.sort(key=lambda job: -len(job[1]))
    survivors = set()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.workers, mp_context=spawn, max_tasks_per_child=1) as pool:
        for file, names, seconds in pool.map(examine, *zip(*jobs, strict=True)):
            survivors |= {(file, name) for name in names}
            size = sum(path == file for path, _ in looked_at)
            print(f"{file}: {size} mutants, {size - len(names)} killed, {seconds:.0f} s", flush=True)
    for file, name in sorted(survivors - listed):
        print(f"SURVIVED {file}: {name}")
    for file, name in sorted((listed & looked_at) - survivors):
        print(f"KILLED, but listed in {PAGE.name}: {file}: {name}")
    return int(survivors != listed & looked_at)


if __name__ == "__main__":
    sys.exit(main())
