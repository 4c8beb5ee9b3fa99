"""What a data source is: where its rows live, which columns they must have, how one row becomes a Sample.

A source never opens an image: it hands on the encoded bytes, and the one decoder of `dataset.images` judges them.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.images import MAX_IMAGE_BYTES
from dataset.sources.reading import Location, Row, read_rows
from utils.files import read_named_file
from utils.sample import IMAGE_MARK, Sample

__all__ = ["BadRow", "Context", "Location", "Row", "Source", "SourceError"]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class SourceError(ValueError):
    """The data set as a whole cannot be used (columns, split, files): ends the run, names what was wanted."""


class BadRow(ValueError):
    """One row cannot become a sample. It is skipped, counted under `reason` and listed."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Context:
    """What `to_sample` may need beside the row: the id that the sample will have, and where image files lie."""

    sample_id: str
    image_root: Path | None = None  # folder that relative image paths start from, and that none may leave


@dataclass(frozen=True, slots=True)
class Source:
    """One data set. `to_sample(row, context)` returns a Sample or raises ``BadRow``; it runs on the workers."""

    name: str
    path: str  # name on the Hub; "" when the rows come with the project or must be given by --dataset-path
    split: str
    columns: tuple[str, ...]  # that every row must have
    problem_type: str
    answer_type: str  # or "by row"
    licence: str
    to_sample: Callable[[Row, Context], Sample]
    eval_splits: tuple[str, ...] = ()  # splits on which results are reported: refused for training data
    config: str | None = None  # the Hub configuration (subset)
    data_files: tuple[str, ...] = ()  # files within the repository; default: all of the split
    load: Callable[[Location], Iterator[Row]] = read_rows
    note: str = ""


def check_columns(source: Source, row: Mapping[str, Any], path: str) -> None:
    """Raises ``SourceError`` when a required column is missing from the first row, listing what the file has."""
    missing = [name for name in source.columns if name not in row]
    if missing:
        raise SourceError(
            f"source {source.name!r}: {path} lacks the column(s) {', '.join(missing)}; "
            f"wanted {', '.join(source.columns)}, got {', '.join(sorted(map(str, row)))}. "
            f"For other column names use --dataset-name generic with a column map."
        )


def make_sample(
    context: Context,
    *,
    source: str,
    images: Sequence[dict[str, Any]],
    problem: str,
    answer: str | Sequence[str],
    problem_type: str,
    answer_type: str,
    spec: dict[str, Any] | None = None,
) -> Sample:
    """A Sample with image marks in front of a problem that has none. Raises ``BadRow`` for empty or unequal parts."""
    answers = tuple(
        str(a).strip() for a in ([answer] if isinstance(answer, str) else answer) if a is not None
    )
    answers = tuple(dict.fromkeys(a for a in answers if a))
    if not answers:
        raise BadRow("empty-answer", f"{context.sample_id}: no reference answer")
    problem = (problem or "").strip()
    if not problem.replace(IMAGE_MARK, "").strip():
        raise BadRow("empty-problem", f"{context.sample_id}: the question is empty")
    num_marks = problem.count(IMAGE_MARK)
    if num_marks == 0:
        problem = IMAGE_MARK * len(images) + problem
    elif num_marks != len(images):
        raise BadRow("image-marks", f"{context.sample_id}: {num_marks} image marks but {len(images)} images")
    return Sample(
        id=context.sample_id,
        images=tuple(images),
        problem=problem,
        answer=answers,
        problem_type=problem_type,
        answer_type=answer_type,
        source=source,
        spec=spec,
    )


def image_record(value: Any, context: Context) -> dict[str, Any]:
    """The encoded image of a cell: bytes, a ``{"bytes", "path"}`` record, base64 text or a path below the image root.

    Raises ``BadRow("missing-image")`` when there is nothing to read.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes | bytearray) and value:
        return {"bytes": bytes(value), "path": None}
    if isinstance(value, str) and value:
        return {"bytes": _read_image(value, context), "path": None}
    raise BadRow("missing-image", f"{context.sample_id}: no image (got {type(value).__name__})")


def _read_image(text: str, context: Context) -> bytes:
    if len(text) > 512 or text.startswith("data:"):
        try:
            return base64.b64decode(
                text.split(",", 1)[-1] if text.startswith("data:") else text, validate=True
            )
        except binascii.Error as error:
            raise BadRow(
                "missing-image", f"{context.sample_id}: image text is not base64: {error}"
            ) from error
    if context.image_root is None:
        raise BadRow("missing-image", f"{context.sample_id}: {text}: a file, but no --image-root was given")
    path = context.image_root / text
    try:
        return read_named_file(path, MAX_IMAGE_BYTES, context.image_root)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadRow(
            "missing-image", f"{context.sample_id}: {path}: {reason}; images belong below --image-root"
        ) from error


def with_options(question: str, options: Sequence[str]) -> str:
    """The question with its options on lines of their own: `A. first`, `B. second`, ..."""
    return "\n".join([question.strip(), *(f"{LETTERS[i]}. {option}" for i, option in enumerate(options))])


def letter_of(answer: str, options: Sequence[str], context: Context) -> str:
    """The letter of a reference given as a letter, a zero-based index or the option's text. Raises ``BadRow``."""
    text = str(answer).strip().strip("()").rstrip(".")
    if len(text) == 1 and text.upper() in LETTERS[: len(options)]:
        return text.upper()
    matches = [i for i, option in enumerate(options) if str(option).strip() == str(answer).strip()]
    if len(matches) == 1:
        return LETTERS[matches[0]]
    if text.isdigit() and int(text) < len(options):
        return LETTERS[int(text)]
    raise BadRow("bad-reference", f"{context.sample_id}: {answer!r} is none of {len(options)} options")


_OPTION = re.compile(r"(?m)(?:^|\s)\(?([A-H])[.):]\s*(.+?)(?=\s+\(?[A-H][.):]\s|\s*$)")


def options_in(question: str) -> dict[str, str]:
    """Lettered options written into a question (`A. left B. right`, `(A) left`), consecutive from A; else empty."""
    found = {match[1]: match[2].strip() for match in _OPTION.finditer(question)}
    letters = list(found)
    return found if len(letters) >= 2 and letters == list(LETTERS[: len(letters)]) else {}


def is_number(text: str) -> bool:
    """Whether a reference is one plain number: digits, at most one point, an optional sign, thousands commas."""
    return re.fullmatch(r"[-+]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?", text.strip()) is not None
