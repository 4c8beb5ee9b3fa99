"""Any data set: parquet, JSONL, JSON, TSV or the Hub, with a column map in YAML (`--column-map map.yaml`).

    name: my_set                 # goes into ids and the `source` column
    path: data/my_set            # file, folder or Hub name; --dataset-path overrides it
    split: train
    eval_splits: [test]          # refused without --allow-eval-split
    columns:                     # our field: their column
      problem: question          # required; may hold <image> marks
      answer: answers            # required; text, number or list
      images: image              # optional; one column or a list of columns
      options: choices           # optional; list, written below the question as A. B. C.
      spec: reward_spec          # optional; JSON reward specification per row
      answer_type: kind          # instead of the constant below
      problem_type: subject      # instead of the constant below
    answer_type: multiple-choice # one constant, or translated from the column by answer_types
    answer_types: {mcq: multiple-choice, free: ocrtext}
    problem_type: general
    spec: {}                     # optional; reward specification of every row

Without a column map the rows must be curated rows already (the schema that this tool writes).
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dataset.sources.base import (
    BadRow,
    Context,
    Row,
    Source,
    SourceError,
    image_record,
    letter_of,
    make_sample,
)
from dataset.sources.base import with_options as add_options
from reward.registry import ANSWER_TYPES
from utils.sample import ROW_FIELDS, Sample, parse_spec

FIELDS = ("problem", "answer", "images", "options", "spec", "answer_type", "problem_type")
KEYS = (
    "name",
    "path",
    "split",
    "config",
    "data_files",
    "eval_splits",
    "columns",
    "answer_type",
    "answer_types",
    "problem_type",
    "spec",
    "licence",
)


def read_column_map(path: str | Path) -> dict[str, Any]:
    """The checked column map. Raises ``SourceError`` naming the key, the value got and the values wanted."""
    import yaml

    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SourceError(f"--column-map {path}: {error}") from error
    if not isinstance(loaded, dict):
        raise SourceError(f"--column-map {path}: got {type(loaded).__name__}, wanted a mapping")
    for key in loaded:
        if key not in KEYS:
            raise SourceError(f"--column-map {path}: unknown key {key!r}, wanted one of {', '.join(KEYS)}")
    columns = loaded.get("columns") or {}
    for field in columns:
        if field not in FIELDS:
            raise SourceError(
                f"--column-map {path}: columns.{field} is unknown, wanted one of {', '.join(FIELDS)}"
            )
    for field in ("problem", "answer"):
        if not columns.get(field):
            raise SourceError(f"--column-map {path}: columns.{field} is missing")
    kinds = (
        [loaded["answer_type"]]
        if "answer_type" in loaded
        else list((loaded.get("answer_types") or {}).values())
    )
    if not kinds and "answer_type" not in columns:
        raise SourceError(f"--column-map {path}: give answer_type or columns.answer_type")
    for kind in kinds:
        if kind not in ANSWER_TYPES:
            raise SourceError(
                f"--column-map {path}: answer_type {kind!r}, wanted one of {', '.join(ANSWER_TYPES)}"
            )
    return loaded


def make_source(column_map: Mapping[str, Any] | None) -> Source:
    """The source of a column map; None: rows in the curated schema."""
    if column_map is None:
        return SOURCE
    columns = column_map["columns"]
    names = [name for value in columns.values() for name in ([value] if isinstance(value, str) else value)]
    return Source(
        name=str(column_map.get("name") or "generic"),
        path=str(column_map.get("path") or ""),
        split=str(column_map.get("split") or "train"),
        config=column_map.get("config"),
        data_files=tuple(column_map.get("data_files") or ()),
        columns=tuple(dict.fromkeys(names)),
        problem_type=str(column_map.get("problem_type") or "by row"),
        answer_type=str(column_map.get("answer_type") or "by row"),
        licence=str(column_map.get("licence") or "as the data set says"),
        to_sample=partial(mapped_sample, column_map=column_map),
        eval_splits=tuple(column_map.get("eval_splits") or ("validation", "val", "test", "testmini")),
    )


def mapped_sample(row: Row, context: Context, *, column_map: Mapping[str, Any]) -> Sample:
    """A Sample through the column map."""
    columns = column_map["columns"]
    answer_type = column_map.get("answer_type")
    if answer_type is None:
        published = str(row[columns["answer_type"]])
        answer_type = (column_map.get("answer_types") or {}).get(published, published)
        if answer_type not in ANSWER_TYPES:
            raise BadRow(
                "unknown-type", f"{context.sample_id}: answer type {published!r} is not in answer_types"
            )
    problem, answer = str(row[columns["problem"]] or ""), row[columns["answer"]]
    spec: dict[str, Any] = dict(column_map.get("spec") or {})
    if columns.get("spec"):
        spec |= parse_spec(row[columns["spec"]], context.sample_id) or {}
    if columns.get("options") and row[columns["options"]]:
        options = [str(option) for option in row[columns["options"]]]
        problem, answer = add_options(problem, options), letter_of(str(answer), options, context)
        spec = {**spec, "params": {"options": options, **spec.get("params", {})}}
    problem_type = (
        row[columns["problem_type"]] if "problem_type" in columns else column_map.get("problem_type")
    )
    return make_sample(
        context,
        source=str(column_map.get("name") or "generic"),
        images=[image_record(value, context) for value in _images(row, columns.get("images"))],
        problem=problem,
        answer=[str(a) for a in answer]
        if isinstance(answer, list | tuple)
        else [str(answer)]
        if answer is not None
        else [],
        problem_type=str(problem_type or "general"),
        answer_type=answer_type,
        spec=spec or None,
    )


def curated_sample(row: Row, context: Context) -> Sample:
    """A row in the curated schema; image paths are read, so that new shards hold their pixels."""
    sample = Sample.from_row(row)
    return make_sample(
        Context(sample.id, context.image_root),
        source=sample.source,
        images=[image_record(image, context) for image in sample.images],
        problem=sample.problem,
        answer=sample.answer,
        problem_type=sample.problem_type,
        answer_type=sample.answer_type,
        spec=sample.spec,
    ).with_prompt_type(sample.prompt_type)


def _images(row: Row, columns: str | list[str] | None) -> list[Any]:
    names = [columns] if isinstance(columns, str) else columns or []
    values: list[Any] = []
    for name in names:
        value = row[name]
        values += value if isinstance(value, list | tuple) else [value] if value is not None else []
    return values


SOURCE = Source(
    name="generic",
    path="",
    split="train",
    columns=tuple(name for name in ROW_FIELDS if name != "spec"),
    problem_type="by row",
    answer_type="by row",
    licence="as the data set says",
    to_sample=curated_sample,
    eval_splits=("validation", "val", "test", "testmini", "heldout"),
    note="curated rows, or any rows with --column-map",
)
