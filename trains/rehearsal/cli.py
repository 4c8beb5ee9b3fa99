"""`--rehearse`: `python -m areal.launcher.local ENTRY --config FILE --rehearse [--ranks 2+2] [key=value ...]`.

Exit status: 0 where the configuration is ready, 1 where something was found, 2 for a wrong command line.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

from trains.arguments import config_file, read
from trains.config import Config
from trains.rehearsal import data, model, smoke, walk
from trains.rehearsal.changes import NUM_STEPS, changes
from trains.rehearsal.report import Page
from utils.command_line import unwritable
from utils.doctor import report as doctor
from utils.doctor.machine import Machine

FOLDER = "rehearsal"  # below cluster.fileroot
RANKS = re.compile(r"([1-9]\d?)\+([1-9]\d?)")
NO_LIMIT = 2**60  # bytes: the machine of the estimate is another one


def main(argv: list[str]) -> int:
    """`argv`: the entry script, `--config FILE`, and what stands behind. `--smoke` is trains/rehearsal/smoke.py."""
    if "--smoke" in argv:
        return smoke.main(argv)
    argv, ranks = _ranks([word for word in argv if word != "--rehearse"])
    if ranks is None:
        print("[rehearsal] --ranks wants SERVERS+TRAINERS, for example 2+2", file=sys.stderr)
        return 2
    started = time.monotonic()
    page = Page(str(config_file(argv)))
    _rehearse(argv, ranks, page)
    page.facts["minutes"] = round((time.monotonic() - started) / 60, 1)
    path = page.write()
    print(page.text())
    print("" if path is None else f"[rehearsal] as JSON: {path}")
    return 1 if page.problems else 0


def _rehearse(argv: list[str], ranks: tuple[int, int], page: Page) -> None:
    """Fill `page`; returns early where going on would only repeat what was found."""
    diagnosis = doctor.examine(argv, Machine(free_disk_bytes=NO_LIMIT))
    missing_model = [text for text in diagnosis.missing if text.startswith(("actor.path", "ref.path"))]
    page.problems += diagnosis.problems + [text for text in diagnosis.missing if text not in missing_model]
    page.remarks += diagnosis.remarks
    try:
        config, _ = read(argv, Config)
    except ValueError:  # the diagnosis holds it
        return
    root = Path(config.cluster.fileroot) / FOLDER
    if unwritable(root) is None:
        page.directory = root / config.experiment_name / config.trial_name
    if page.problems:
        return
    walk.forget(root, config.experiment_name, config.trial_name)

    start, what, is_built_in = _model(argv, config, root, page)
    if start is None:
        return
    page.facts["model"] = what
    made = changes(
        config,
        root=root,
        model=start,
        end_token=model.end_token(start),
        ranks=ranks,
        is_built_in=is_built_in,
    )
    page.changes(made)
    overrides = [change.override for change in made]
    rehearsed, _ = read([*argv, *overrides], Config)
    page.estimate(diagnosis.plan)

    from areal.utils.hf_utils import load_hf_processor_and_tokenizer

    processor, _ = load_hf_processor_and_tokenizer(str(start))
    if not _are_data_usable(page, config, rehearsed, processor, is_built_in=is_built_in):
        return

    run = page.directory
    for last in (NUM_STEPS, NUM_STEPS + 1):
        is_resume = last > NUM_STEPS
        print(f"[rehearsal] {'resumed: step' if is_resume else 'steps 1 to'} {last}", flush=True)
        status, lines = walk.launch([*argv, *overrides, f"++total_train_steps={last}"])
        if status:
            page.problems.append(
                f"the {'resumed ' if is_resume else ''}run ended with status {status}: {walk.cause(lines)}"
            )
            return
        begin = NUM_STEPS if is_resume else 0
        if not any(f": steps {begin + 1} to {last}, " in line for line in lines):
            page.problems.append(f"the run did not begin behind step {begin}: recovery was not taken up")
            return
    page.facts["steps"], problems = walk.check_steps(run, rehearsed, list(range(1, NUM_STEPS + 2)))
    page.problems += problems
    sound = {(row["source"], row["answer_type"]) for row in page.facts["audit"] if not row["failures"]}
    page.facts["references"], problems = walk.check_references(run, sound)
    page.problems += problems
    page.facts["evaluation"] = walk.records(run, "evaluations.jsonl")
    page.facts["written"], problems = walk.written(root, config)
    page.problems += problems
    page.facts["written"]["export"], problems = walk.export(run, start, run / "exported")
    page.problems += problems


def _are_data_usable(page: Page, config: Any, rehearsed: Any, processor: Any, *, is_built_in: bool) -> bool:
    """Note rows, lengths and rewards; whether a run on them can tell more."""
    page.facts["data"], problems = data.examine(rehearsed, processor)
    page.facts["lengths"] = data.lengths(page.facts["data"], is_bytes=is_built_in)
    page.problems += problems
    if problems:
        return False
    page.facts["audit"], problems = data.audit_rewards(config)
    page.problems += problems
    return not any(row["is_dead"] for row in page.facts["audit"])


def _model(argv: list[str], config: Any, root: Path, page: Page) -> tuple[Path | None, str, bool]:
    """(checkpoint to rehearse with, what it is, whether it is the built-in one).

    In this order: the checkpoint of a rehearsed earlier stage, the configured folder, the built-in model.
    """
    configured, target = Path(config.actor.path), root / "models" / config.experiment_name
    try:
        earlier = Path(read([*argv, f"++cluster.fileroot={root}"], Config)[0].actor.path)
    except ValueError as error:
        page.problems.append(f"rehearse the earlier stage first: {error}")
        return None, "", False
    if earlier != configured and (earlier / "config.json").is_file():
        configured = earlier
    if not (configured / "config.json").is_file():
        what = model.built_in(str(configured), target, config.seed, config.train_dataset.max_pixels)
        return target, f"{configured} is not there; {what}", True
    if model.is_small(configured):
        return configured, f"{configured} as it is: it is small enough", False
    try:
        return target, model.reduce(configured, target, config.seed), False
    except (OSError, ValueError, KeyError) as error:
        page.problems.append(f"actor.path={str(configured)!r} cannot be reduced: {error}")
        return None, "", False


def _ranks(argv: list[str]) -> tuple[list[str], tuple[int, int] | None]:
    """`argv` without `--ranks S+T`, and (S, T); (1, 1) without it, None where it cannot be read."""
    if "--ranks" not in argv:
        return argv, (1, 1)
    place = argv.index("--ranks")
    match = RANKS.fullmatch(argv[place + 1]) if place + 1 < len(argv) else None
    return argv[:place] + argv[place + 2 :], (int(match[1]), int(match[2])) if match else None
