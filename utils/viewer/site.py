"""The pages of one or several runs in a folder, written again only where their records have changed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.advice import advise
from utils.advice_rules import RULES
from utils.viewer import curves, pages
from utils.viewer.groups import by_sample, groups_of
from utils.viewer.reading import RunFolder

MAX_STEP_PAGES = 160  # of a run, unless more are asked for: an hour of reading and a few megabytes
MAX_SAMPLES = 60  # with a history of their own
MAX_HISTORY = 12  # steps in one
SHOWN = 4  # rollouts of a group in a history or a comparison
REFRESH_SECONDS = 15
METRICS = ("entropy", "gap_mean", "grad_norm", "loss")


class Site:
    """Args: output: folder of the pages. wanted_steps: steps that get a page in any case."""

    def __init__(self, output: Path, wanted_steps: Sequence[int] = ()):
        self.output = output
        self.wanted_steps = frozenset(wanted_steps)
        self._written: dict[Path, Any] = {}  # what each page was made from
        self._groups: dict[tuple[Path, int], tuple[Any, list, list]] = {}

    def write(self, folders: Sequence[Path], follow: bool = False) -> list[RunFolder]:
        """All pages; returns the runs as they were read. Raises ValueError for a folder without records."""
        runs = [RunFolder(folder) for folder in folders]
        pages.write_assets(self.output)
        slugs = _unique([pages.slug(run.name) for run in runs])
        views = [self._write_run(run, slug) for run, slug in zip(runs, slugs, strict=True)]
        refresh = REFRESH_SECONDS if follow and not all(run.is_finished for run in runs) else None
        if len(runs) > 1:
            self._write_comparison(runs[:2], slugs)
        index = pages.render(
            "index.html",
            title=" and ".join(run.name for run in runs),
            root="",
            refresh=refresh,
            runs=views,
            compare=len(runs) > 1,
            figures=curves.figures(runs),
            num_rules=len(RULES),
        )
        pages.write(self.output / "index.html", index)
        self._groups.clear()
        return runs

    def _write_run(self, run: RunFolder, slug: str) -> dict[str, Any]:
        advice = advise(run.steps, run.evaluations, run.manifest.get("settings") or {})
        steps = self._steps_with_pages(run, [item.step for item in advice])
        by_step = {record["step"]: record for record in run.steps}
        shown = []
        for step in steps:
            before, after = (pages.nearest(steps, step, side) for side in (True, False))
            path = self.output / slug / _file(step)
            made_from = (_stamp(run, step), before, after)
            if self._written.get(path) != made_from:
                self._write_step(run, step, path, by_step.get(step, {}), (before, after))
                self._written[path] = made_from
            shown.append({"step": step, "file": path.name, "reward": by_step.get(step, {}).get("reward")})
        self._write_samples(run, slug, steps)
        return {
            "name": run.name,
            "slug": slug,
            "state": _state(run),
            "faults": [f"{run.num_broken} lines of its records could not be read."] if run.num_broken else [],
            "advice": [_shown_advice(item) for item in advice],
            "command": run.manifest.get("command"),
            "pages": shown,
            "num_left_out": len(run.shards) - len(steps),
        }

    def _steps_with_pages(self, run: RunFolder, marked: Sequence[int]) -> list[int]:
        steps = sorted(run.shards)
        if len(steps) <= MAX_STEP_PAGES:
            return steps
        stride = -(-len(steps) // (MAX_STEP_PAGES - len(marked) - 10))
        kept = {*steps[::stride], *steps[-10:], *marked, *self.wanted_steps}
        return [step for step in steps if step in kept]

    def _load(self, run: RunFolder, step: int, page: Path) -> tuple[list[dict], list[str]]:
        """Groups of a step with addresses for `page`'s folder, and faults."""
        key, stamp = (page.parent, step), _stamp(run, step)
        if key not in self._groups or self._groups[key][0] != stamp:
            rows, faults = run.rows(step)
            self._groups[key] = (stamp, groups_of(rows, run.folder, pages.linker(page)), faults)
        return self._groups[key][1:]

    def _write_step(self, run: RunFolder, step: int, path: Path, record: dict, beside: tuple) -> None:
        before, after = beside
        groups, faults = self._load(run, step, path)
        rewards = [group["reward"] for group in groups]

        def build(limit: int) -> str:
            for group in groups:
                group["packed"] = pages.packed(pages.render("group.html", group=group, limit=limit))
            return pages.render(
                "step.html",
                title=f"{run.name}, step {step}",
                root="../",
                refresh=None,
                groups=groups,
                faults=faults,
                limit=limit,
                reward=sum(rewards) / len(rewards) if rewards else None,
                numbers=[(name, record[name]) for name in METRICS if name in record],
                before=before and _file(before),
                after=after and _file(after),
            )

        pages.write(path, pages.within_limit(build))

    def _write_samples(self, run: RunFolder, slug: str, with_pages: Sequence[int]) -> None:
        path = self.output / slug / "samples.html"
        made_from = tuple(_stamp(run, step) for step in with_pages)
        if self._written.get(path) == made_from:
            return
        seen: dict[str, list[int]] = defaultdict(list)
        for record in run.steps:
            for sample in dict.fromkeys(record.get("sample_ids") or ()):
                if record["step"] in run.shards:
                    seen[sample].append(record["step"])
        often = [
            sample
            for sample, count in Counter({s: len(v) for s, v in seen.items()}).most_common()
            if count > 1
        ]
        chosen = often[:MAX_SAMPLES]
        # steps that have a page first: their rollouts are read anyway, and can be reached from here
        steps_of = {
            s: sorted(sorted(seen[s], key=lambda n: n not in with_pages)[:MAX_HISTORY]) for s in chosen
        }
        histories: dict[str, list[dict]] = {sample: [] for sample in chosen}
        for step in sorted({step for steps in steps_of.values() for step in steps}):
            for sample, groups in by_sample(self._load(run, step, path)[0]).items():
                if step in steps_of.get(sample, ()):
                    histories[sample].append(groups[0])
        samples = [_history(sample, groups) for sample, groups in histories.items() if len(groups) > 1]

        def build(limit: int) -> str:
            for sample in samples:
                markup = pages.render("history.html", groups=sample["groups"], limit=limit, shown=SHOWN)
                sample["packed"] = pages.packed(markup)
            return pages.render(
                "samples.html",
                title=f"{run.name}: samples",
                root="../",
                refresh=None,
                samples=samples,
                num_samples=len(often),
            )

        pages.write(path, pages.within_limit(build))
        self._written[path] = made_from

    def _write_comparison(self, runs: Sequence[RunFolder], slugs: Sequence[str]) -> None:
        del slugs
        path = self.output / "compare.html"
        last: list[dict[str, int]] = [
            {
                s: record["step"]
                for record in run.steps
                for s in record.get("sample_ids") or ()
                if record["step"] in run.shards
            }
            for run in runs
        ]
        common = [sample for sample in last[0] if sample in last[1]]
        chosen = common[-MAX_SAMPLES:]
        found: list[dict[str, dict]] = [{}, {}]
        for i, run in enumerate(runs):
            for step in sorted({last[i][sample] for sample in chosen}):
                wanted = {sample for sample in chosen if last[i][sample] == step}
                rows = [row for row in run.rows(step)[0] if row["sample_id"] in wanted]
                groups = groups_of(rows, run.folder, pages.linker(path))
                found[i] |= {sample: members[0] for sample, members in by_sample(groups).items()}
        pairs = [
            (sample, [found[0][sample], found[1][sample]])
            for sample in chosen
            if all(sample in f for f in found)
        ]
        samples = [
            {"id": sample, "groups": pair, "difference": pair[1]["reward"] - pair[0]["reward"]}
            for sample, pair in pairs
        ]
        names = [run.name for run in runs]

        def build(limit: int) -> str:
            for sample in samples:
                markup = pages.render(
                    "pair.html", groups=sample["groups"], names=names, limit=limit, shown=SHOWN
                )
                sample["packed"] = pages.packed(markup)
            return pages.render(
                "compare.html",
                title=" beside ".join(names),
                root="",
                refresh=None,
                runs=[{"name": name} for name in names],
                numbers=_numbers(runs),
                settings=_differing(runs),
                unknown=", ".join(run.name for run in runs if not run.config) or "both were read",
                samples=samples,
                num_samples=len(common),
            )

        pages.write(path, pages.within_limit(build))


def _file(step: int) -> str:
    return f"step-{step:06d}.html"


def _stamp(run: RunFolder, step: int) -> tuple:
    stats = []
    for path in run.shards.get(step, ()):
        try:
            stats.append((path.name, path.stat().st_mtime_ns))
        except OSError:  # forgotten meanwhile
            continue
    return tuple(stats)


def _state(run: RunFolder) -> str:
    done = run.steps[-1]["step"] if run.steps else 0
    total = run.manifest.get("total_steps")
    of_total = f" of {total}" if total else ""
    if run.is_finished:
        return f"Finished after step {done}{of_total}."
    return f"Under way or cut off: the last record is step {done}{of_total}."


def _shown_advice(item: Any) -> dict[str, str]:
    steps = str(item.step) if item.last == item.step else f"{item.step} to {item.last}"
    return {
        "title": item.name,
        "steps": steps,
        "text": item.text,
        "reason": item.reason,
        "change": item.change,
    }


def _history(sample: str, groups: Sequence[dict]) -> dict[str, Any]:
    first = groups[0]
    return {
        "id": sample,
        "source": first["source"],
        "answer_type": first["answer_type"],
        "images": first["images"],
        "groups": groups,
        "change": groups[-1]["reward"] - first["reward"],
    }


def _numbers(runs: Sequence[RunFolder]) -> list[tuple[str, list[Any]]]:
    names = {
        "steps": lambda run: run.steps[-1]["step"] if run.steps else None,
        "held-out accuracy, first": lambda run: _accuracy(run.evaluations[:1]),
        "held-out accuracy, last": lambda run: _accuracy(run.evaluations[-1:]),
        "reward, mean of the last 10 steps": lambda run: _mean(run, "reward"),
        "entropy, likewise": lambda run: _mean(run, "entropy"),
        "versions behind, likewise": lambda run: _mean(run, "gap_mean"),
        "tokens of an answer, likewise": lambda run: _mean(run, "length_mean"),
        "tokens a second, likewise": lambda run: _mean(run, "tokens_per_second"),
    }
    return [(name, [read(run) for run in runs]) for name, read in names.items()]


def _accuracy(evaluations: Sequence[dict]) -> float | None:
    return evaluations[0].get("overall", {}).get("accuracy") if evaluations else None


def _mean(run: RunFolder, name: str) -> float | None:
    values = [record[name] for record in run.steps[-10:] if isinstance(record.get(name), int | float)]
    return sum(values) / len(values) if values else None


def _differing(runs: Sequence[RunFolder]) -> list[tuple[str, list[str]]]:
    if not all(run.config for run in runs):
        return []
    keys = sorted({key for run in runs for key in run.config})
    values = [(key, [str(run.config.get(key, "-")) for run in runs]) for key in keys]
    return [(key, found) for key, found in values if len(set(found)) > 1]


def _unique(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{i + 1}-{name}" for i, name in enumerate(names)]
