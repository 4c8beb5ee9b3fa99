"""The data sources of the recipe. To add one: write a file with a `SOURCE`, add one line to `NAMES`."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from dataset.sources import generic
from dataset.sources.base import BadRow, Context, Location, Row, Source, SourceError, check_columns

__all__ = [
    "SOURCES",
    "BadRow",
    "Context",
    "Location",
    "Row",
    "Source",
    "SourceError",
    "check_columns",
    "get_source",
]

NAMES = (
    "virl39k",
    "ref_l4",
    "vigorl_sa",
    "vigorl_sat",
    "vigorl_turns",
    "pixmo_count",
    "webcode2m",
    "unisvg",
    "infovqa",
    "ai2d",
    "mathvision",
    "mmmu",
    "docvqa",
    "ocrbench",
    "mmstar",
    "treebench",
    "codeforces",
    "digits",
    "rotation",
    "jigsaw",
    "crop_position",
    "generic",
)
SOURCES: dict[str, Source] = {name: import_module(f"dataset.sources.{name}").SOURCE for name in NAMES}


def get_source(name: str, column_map: Mapping[str, Any] | None = None) -> Source:
    """The source called `name` (`Ref-L4` and `ref_l4` are the same). Raises ``SourceError`` listing the names."""
    key = name.lower().replace("-", "_")
    if key not in SOURCES:
        raise SourceError(f"--dataset-name {name!r} is unknown, wanted one of {', '.join(SOURCES)}")
    if key == "generic":
        return generic.make_source(column_map)
    if column_map is not None:
        raise SourceError(f"--column-map belongs to --dataset-name generic, not to {name!r}")
    return SOURCES[key]
