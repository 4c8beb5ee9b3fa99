"""The curated row on disk: its columns, how a shard is written, and what is wrong with a foreign one.

Shards are parquet with small row groups, so that one shuffled row costs one small read and never a whole
file. `image_sizes` is written beside the images: lengths can then be counted without touching an image byte.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataset.agent.registry import check_names
from dataset.images import ImageError, upright_size
from reward.registry import ANSWER_TYPES
from reward.score import check_reference
from utils.files import replacing
from utils.sample import IMAGE_MARK, PROMPT_TYPES, parse_spec

ROWS_PER_GROUP = 32
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
REQUIRED_COLUMNS = {
    "id": pa.string(),
    "images": pa.list_(IMAGE_TYPE),
    "problem": pa.string(),
    "answer": pa.list_(pa.string()),
    "problem_type": pa.string(),
    "answer_type": pa.string(),
    "source": pa.string(),
    "prompt_type": pa.string(),
}
OPTIONAL_COLUMNS = {
    "spec": pa.string(),  # JSON object with the reward specification, or null
    "image_sizes": pa.list_(pa.list_(pa.int32())),  # upright (width, height) per image
}
MEDIA_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
NULLABLE = frozenset({"spec", "image_sizes", "images"})


class SchemaError(ValueError):
    """A data file is not a curated shard; the message says which file, column, row and value."""


def columns_problems(schema: pa.Schema) -> list[str]:
    """What is wrong with the columns of a table; an empty list when they fit. Extra columns are welcome."""
    problems, missing = [], [name for name in REQUIRED_COLUMNS if name not in schema.names]
    if len(missing) >= len(REQUIRED_COLUMNS) - 2:  # data of another layout, where a list says nothing
        return [
            f"columns {', '.join(missing)} are missing; the data has {', '.join(schema.names)}. Name its columns: "
            "--columns problem=... answer=... (train_dataset.columns in a configuration)"
        ]
    for name, wanted in REQUIRED_COLUMNS.items():
        if name in missing:
            problems.append(
                f"column {name!r} is missing; wanted {wanted}, file has {', '.join(schema.names)}"
            )
    for name, wanted in {**REQUIRED_COLUMNS, **OPTIONAL_COLUMNS}.items():
        if name in schema.names and not _compatible(schema.field(name).type, wanted):
            problems.append(f"column {name!r}: got {schema.field(name).type}, wanted {wanted}")
    return problems


def row_problems(row: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the values of one row (images are counted, not opened); nothing when it is sound.

    `images` may be the list itself or, where only lengths were read, the list of `image_sizes`.
    """
    for name in REQUIRED_COLUMNS:
        if row.get(name) is None and name not in NULLABLE:
            yield f"column {name!r}: null"
            return
    for name in ("id", "problem", "source"):
        if not row[name].strip():
            yield f"column {name!r}: empty"
            return
    if not row["answer"] or any(answer is None or not answer.strip() for answer in row["answer"]):
        yield f"column 'answer': got {row['answer']!r}, wanted at least one non-empty string"
        return
    if row["prompt_type"] not in PROMPT_TYPES:
        yield f"column 'prompt_type': got {row['prompt_type']!r}, wanted one of {', '.join(PROMPT_TYPES)}"
        return
    images = row.get("images")
    num_images = len(images) if images is not None else 0
    if row["problem"].count(IMAGE_MARK) != num_images:
        num_marks = row["problem"].count(IMAGE_MARK)
        yield f"column 'problem': {num_marks} {IMAGE_MARK} marks but {num_images} images"
    try:
        spec = parse_spec(row.get("spec")) or {}
        check_names(spec.get("tools", ()))
    except ValueError as error:
        yield f"column 'spec': {error}"
        return
    if row["answer_type"] not in ANSWER_TYPES and "verifier" not in spec:
        yield f"column 'answer_type': got {row['answer_type']!r}, wanted one of {', '.join(ANSWER_TYPES)}"
        return
    if written := [token for token in MEDIA_TOKENS if token in row["problem"]]:
        yield f"column 'problem': holds {written[0]}, which the model would read as an image; wanted {IMAGE_MARK}"
    try:
        check_reference(row["answer"], row["answer_type"], row["prompt_type"], spec)
    except ValueError as error:
        yield reference_problem(error)


def reference_problem(error: ValueError) -> str:
    """What a verifier says of a reference or spec, with the column that it is about."""
    column = "spec" if str(error).startswith("spec") else "answer"
    return f"column {column!r}: {str(error).removeprefix('answer: ')}"


def rows_to_table(
    rows: Sequence[Mapping[str, Any]], extra: Mapping[str, pa.DataType] | None = None
) -> pa.Table:
    """A table with the curated schema from plain rows, `image_sizes` filled in; `extra` names further
    columns.

    Raises ``SchemaError`` for a bad row, naming its position, id, column and value.
    """
    columns = {**REQUIRED_COLUMNS, **OPTIONAL_COLUMNS, **(extra or {})}
    data: dict[str, list] = {name: [] for name in columns}
    for position, row in enumerate(rows):
        for problem in row_problems(row):
            raise SchemaError(f"row {position} (id {row.get('id')!r}): {problem}")
        for name in columns:
            data[name].append(_cell(name, row))
    arrays = []
    for name, kind in columns.items():
        try:
            arrays.append(pa.array(data[name], type=kind))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise SchemaError(f"column {name!r}: values do not fit {kind}: {error}") from error
    return pa.table(arrays, names=list(columns))


def write_shard(
    path: str | os.PathLike,
    rows: Iterable[Mapping[str, Any]],
    extra: Mapping[str, pa.DataType] | None = None,
) -> int:
    """Write rows as one parquet shard, whole or not at all; returns the number of
    rows.

    The same rows give the same bytes.
    """
    table = rows_to_table(list(rows), extra)
    with replacing(path) as sink:
        pq.write_table(table, sink, row_group_size=ROWS_PER_GROUP, compression="zstd")
    return table.num_rows


def _cell(name: str, row: Mapping[str, Any]) -> Any:
    value = row.get(name)
    if name == "images":
        return [_image_record(image) for image in value or ()]
    if name == "image_sizes" and value is None:
        return [_image_size(image, row["id"]) for image in row["images"] or ()]
    return list(value) if isinstance(value, tuple) else value


def _image_record(image: Any) -> dict[str, Any]:
    if isinstance(image, Mapping):
        return {"bytes": image.get("bytes"), "path": image.get("path")}
    if isinstance(image, bytes):
        return {"bytes": image, "path": None}
    if isinstance(image, str):
        return {"bytes": None, "path": image}
    raise SchemaError(
        f"column 'images': got {type(image).__name__}, wanted encoded bytes, a path or a record"
    )


def _image_size(image: Any, sample_id: str) -> list[int]:
    try:
        return list(upright_size(image, sample_id))
    except ImageError as error:
        raise SchemaError(f"column 'images': {error}") from error


def _compatible(got: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_dictionary(got):
        got = got.value_type
    if pa.types.is_null(got):  # a column without a single value
        return True
    if pa.types.is_list(wanted):
        is_list = pa.types.is_list(got) or pa.types.is_large_list(got) or pa.types.is_fixed_size_list(got)
        return is_list and _compatible(got.value_type, wanted.value_type)
    if pa.types.is_struct(wanted):
        fields = {field.name: field.type for field in got} if pa.types.is_struct(got) else {}
        return all(field.name in fields and _compatible(fields[field.name], field.type) for field in wanted)
    if pa.types.is_integer(wanted):
        return pa.types.is_integer(got)
    large = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
    return got in (wanted, large.get(wanted))
