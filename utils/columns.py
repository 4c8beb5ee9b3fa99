"""Rows as other people wrote them, turned into the columns of utils/sample.py: names, constants, words, shapes.

The published data says `normal` and `default` for the prompt types, `spatial-reasoning` for a problem type; a data set
of one's own has other column names and lacks some columns. Both become curated rows here, wherever rows are read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.sample import IMAGE_MARK, ROW_FIELDS, SPATIAL_PROBLEM_TYPE, json_text

PROMPT_TYPE_WORDS = {"normal": "answer", "default": "think"}  # of the published data -> ours
PROBLEM_TYPE_WORDS = {"spatial-reasoning": SPATIAL_PROBLEM_TYPE}
CONSTANTS = ("answer_type", "problem_type", "source", "prompt_type", "spec")  # may be the same for all rows
NEEDED = ("problem", "answer", "answer_type")


def parse_columns(words: Sequence[str]) -> dict[str, str]:
    """Of a command line: ``["problem=question", "answer_type=number"]`` -> a mapping. Raises ``ValueError``."""
    pairs = dict(word.partition("=")[::2] for word in words)
    for field, value in pairs.items():
        if not value:
            raise ValueError(f"--columns: got {field!r}, wanted FIELD=COLUMN or FIELD=CONSTANT")
    return pairs


def columns_faults(columns: Mapping[str, str], available: Sequence[str]) -> list[str]:
    """What is wrong with a mapping for a file that has these columns; an empty list when it serves."""
    faults = []
    for field, value in columns.items():
        if field not in ROW_FIELDS:
            faults.append(f"columns.{field}: there is no such field; wanted one of {', '.join(ROW_FIELDS)}")
        elif value not in available and field not in CONSTANTS:
            faults.append(f"columns.{field}: the data has no column {value!r}; it has {', '.join(available)}")
    for field in NEEDED:
        if field not in columns and field not in available:
            faults.append(f"columns.{field}: missing, and the data has no column of that name")
    return faults


def stored_names(columns: Mapping[str, str], available: Sequence[str]) -> list[str]:
    """The columns of a file that curated rows are made of."""
    wanted = {*ROW_FIELDS, "image_sizes", *columns.values()}
    return [name for name in available if name in wanted]


def curated(
    row: Mapping[str, Any], columns: Mapping[str, str], *, name: str, number: int, folder: Path | None = None
) -> dict[str, Any]:
    """The row under our names and words. With `columns`, cells of other shapes are adapted as well.

    A value of `columns` is the name of a column, or else a constant. Then `id` may be absent (``name/000012``, from
    `number`), and so may `source` (`name`), `problem_type`, `images`, and `prompt_type` (`answer`); an answer may be a
    number or a boolean, images may be one image, a path or bytes, and a problem without marks gets them in front.
    Relative image paths start from `folder`, that of the data file. Wrong cells are left to `row_problems`.
    """
    if columns:
        row = _renamed(row, columns, name, number)
    row = dict(row)
    row["prompt_type"] = _word(row.get("prompt_type"), PROMPT_TYPE_WORDS)
    row["problem_type"] = _word(row.get("problem_type"), PROBLEM_TYPE_WORDS)
    if folder is not None and row.get("images"):
        row["images"] = [_located(image, folder) for image in row["images"]]
    return row


def _renamed(row: Mapping[str, Any], columns: Mapping[str, str], name: str, number: int) -> dict[str, Any]:
    absent = {"id": f"{name}/{number:06d}", "source": name, "problem_type": "", "prompt_type": "answer"}
    made = {}
    for field in ROW_FIELDS:
        column = columns.get(field, field)
        made[field] = row[column] if column in row else columns.get(field, absent.get(field))
    for field in ("id", "problem", "answer_type", "problem_type", "source", "prompt_type"):
        made[field] = None if made[field] is None else json_text(made[field])
    images, answer = made["images"], made["answer"]
    made["images"] = list(images) if isinstance(images, list | tuple) else [images] if images else []
    answers = answer if isinstance(answer, list | tuple) else [answer]
    made["answer"] = [None if one is None else json_text(one) for one in answers]
    if made["problem"] is not None and IMAGE_MARK not in made["problem"]:
        made["problem"] = IMAGE_MARK * len(made["images"]) + made["problem"]
    if "image_sizes" in row and "images" not in columns:
        made["image_sizes"] = row["image_sizes"]
    return made


def _word(value: Any, words: Mapping[str, str]) -> Any:
    return words.get(value, value) if isinstance(value, str) else value


def _located(image: Any, folder: Path) -> Any:
    """A stored image whose path, where it has nothing else, starts from the folder of its data file."""
    path = image.get("path") if isinstance(image, Mapping) and not image.get("bytes") else image
    if not isinstance(path, str) or Path(path).is_absolute() or not (folder / path).exists():
        return image
    return {"bytes": None, "path": str(folder / path)}
