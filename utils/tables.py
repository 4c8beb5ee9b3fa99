"""Where rows are stored: paths with shares, the files behind them, and their rows under our names, one at a time."""

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.columns import columns_faults, curated
from utils.command_line import is_hub_name
from utils.files import parquet_rows

KINDS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
}  # suffix -> reader of `datasets`
SHARE = re.compile(r"\[\s*(\d+(?:\.\d+)?)\s*%\s*\]$")


def split_paths(path: str | os.PathLike | Sequence[str]) -> list[tuple[str, float]]:
    """(path, share of its rows) pairs of ``"a,b[10%]"`` or of a list of such: [("a", 1.0), ("b", 0.1)].

    Raises ``ValueError`` for an empty path or a share that is not above 0 and at most 100 %.
    """
    items = [path] if isinstance(path, str | os.PathLike) else path
    found = []
    for item in map(str, items):
        for part in [item] if os.path.exists(item) else item.split(","):
            match = None if os.path.exists(part) else SHARE.search(part.strip())
            share = float(match[1]) / 100 if match else 1.0
            name = SHARE.sub("", part.strip()).strip() if match else part.strip()
            if not name or not 0 < share <= 1:
                raise ValueError(f"data path: got {part!r} in {item!r}, wanted PATH or PATH[10%], above 0 %")
            found.append((name, share))
    return found


def data_files(path: str) -> list[Path]:
    """The data files of a file, a folder (searched recursively) or a glob; none for the name of a data set on the Hub.

    Raises ``FileNotFoundError`` for a local path without any.
    """
    if os.path.isdir(path):
        found = sorted(file for kind in KINDS if kind != ".json" for file in Path(path).rglob(f"*{kind}"))
    elif any(mark in path for mark in "*?["):
        found = [Path(file) for file in sorted(glob.glob(path, recursive=True))]
    elif os.path.isfile(path):
        found = [Path(path)]
    elif path.endswith(tuple(KINDS)) or not is_hub_name(path):
        found = []
    else:
        return []  # on the Hub
    if not found:
        raise FileNotFoundError(
            f"no data at {path!r}: wanted files of {', '.join(KINDS)} or a folder of them"
        )
    if unknown := [file for file in found if file.suffix not in KINDS]:
        raise FileNotFoundError(f"{unknown[0]}: wanted files of {', '.join(KINDS)}")
    return found


def load_table(files: Sequence[Path | str], split: str = "train") -> Any:
    """Anything that `datasets` reads, as its memory-mapped Arrow table: files of one kind, or one name on the Hub.

    Raises ``FileNotFoundError`` for a name that the Hub has not, ``ValueError`` for files that are not what they say.
    """
    import datasets

    datasets.disable_progress_bars()  # they would stand before what a command has to say
    if isinstance(files[0], Path):
        kind, names = KINDS[files[0].suffix], [str(file) for file in files]
        level = datasets.logging.get_verbosity()
        datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what goes wrong is raised
        try:
            return datasets.load_dataset(kind, data_files=names, split="train").with_format("arrow")
        except datasets.exceptions.DatasetGenerationError as error:
            place = names[0] if len(names) == 1 else f"one of {len(names)} files in {files[0].parent}"
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise ValueError(f"{place} cannot be read as {files[0].suffix}: {reason}") from error
        finally:
            datasets.logging.set_verbosity(level)
    try:
        return datasets.load_dataset(files[0], split=split).with_format("arrow")
    except (ConnectionError, datasets.exceptions.DatasetNotFoundError) as error:
        raise FileNotFoundError(
            f"no data at {files[0]!r}: no folder of that name here, and on the Hub {error}"
        ) from error


def table_rows(path: str, columns: Mapping[str, str], wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows under our names of all data that `path` names (see `split_paths`; shares are not applied), of the fields
    `wanted`.

    Raises ``FileNotFoundError`` or ``ValueError`` naming a column that is missing or a file that cannot be read.
    """
    for name, _ in split_paths(path):
        files = data_files(name)
        for file in files or [name]:
            yield from _rows_of(file, columns, wanted)


def _rows_of(file: Path | str, columns: Mapping[str, str], wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    names = {*(columns.get(field, field) for field in wanted)}
    if isinstance(file, Path) and file.suffix == ".parquet":
        rows: Any = parquet_rows(file, sorted(names))
    else:
        table = load_table([file])
        if not names & set(table.column_names):
            raise ValueError(
                f"{file}: has none of the columns {', '.join(sorted(names))}; it has {', '.join(table.column_names)}. "
                "Name its columns: --columns problem=... answer=..."
            )
        kept = table.select_columns([name for name in table.column_names if name in names])
        rows = (row for batch in kept.iter(batch_size=512) for row in batch.to_pylist())
    stem, mapped = Path(file).stem, {field: name for field, name in columns.items() if field in wanted}
    for number, row in enumerate(rows):
        if number == 0 and columns and (faults := columns_faults(mapped, list(row))):
            raise ValueError(f"{file}: " + "; ".join(faults))
        yield curated(row, columns, name=stem, number=number)
