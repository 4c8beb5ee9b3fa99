"""Curate training data: find the samples that a model can solve but does not yet solve reliably.

    python -m dataset.create --model-name ./pretrained/LLaVA-OneVision-1.5-8B-Instruct --rollout-n 10 \\
        --dataset-name unisvg --num-workers 8 --output-dir ./data/stage2 --dataset-size 200

Writes `<output-dir>/<source>-*.parquet` and, under `<output-dir>/curation/<source>/`, the journal, every
generation, the manifest and report.html. docs/curation.md explains the rules and the files.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from dataset.curate.flags import make_parser, settings_from
from dataset.curate.journal import Journal, JournalError
from dataset.curate.pipeline import check_first_row
from dataset.curate.pool import NoWorkersLeft
from dataset.curate.run import curate, resolve_auto
from dataset.sources import SOURCES, SourceError
from reward.types import Unavailable
from utils.command_line import check_model, check_output


def list_sources() -> str:
    """The table of `--list`."""
    head = ("name", "path", "split", "evaluation splits", "answer type", "licence", "note")
    rows = [
        (s.name, s.path or "-", s.split, ",".join(s.eval_splits) or "-", s.answer_type, s.licence, s.note)
        for s in SOURCES.values()
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)
    ]
    return "\n".join(line.rstrip() for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser(__doc__)
    args = parser.parse_args(arguments)
    if args.list:
        print(list_sources())
        return 0
    try:
        settings = settings_from(args, arguments)
        check_output(settings.output_dir, "--output-dir")
        if settings.measure:
            check_first_row(settings)
            check_model(settings.model_name, "--model-name")
            settings = resolve_auto(settings)
    except (SourceError, ValueError, FileNotFoundError, ConnectionError) as error:
        parser.error(str(error))
    try:
        return curate(settings)
    except (SourceError, JournalError, NoWorkersLeft, FileNotFoundError, Unavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        if not isinstance(error, JournalError) and _has_rows(settings.journal_path):
            print("what was measured is safe: continue with --incremental", file=sys.stderr)
        return 1


def _has_rows(journal: Path) -> bool:
    """Whether anything but the settings has been written."""
    return journal.exists() and any(
        record.header["kind"] != "settings" for _, record in Journal(journal, read_only=True).records()
    )


if __name__ == "__main__":
    sys.exit(main())
