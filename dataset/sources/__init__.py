"""The data sources of the recipe. To add one: write a file with a `SOURCE`, add one line to `SOURCES`."""

from collections.abc import Mapping
from typing import Any

from dataset.sources import (
    ai2d,
    codeforces,
    digits,
    docvqa,
    generic,
    infovqa,
    mathvision,
    mmmu,
    mmstar,
    ocrbench,
    pixmo_count,
    ref_l4,
    treebench,
    unisvg,
    vigorl_sa,
    vigorl_sat,
    virl39k,
    webcode2m,
)
from dataset.sources.base import BadRow, Context, Location, Row, Source, SourceError, check_columns

SOURCES: dict[str, Source] = {
    "virl39k": virl39k.SOURCE,
    "ref_l4": ref_l4.SOURCE,
    "vigorl_sa": vigorl_sa.SOURCE,
    "vigorl_sat": vigorl_sat.SOURCE,
    "pixmo_count": pixmo_count.SOURCE,
    "webcode2m": webcode2m.SOURCE,
    "unisvg": unisvg.SOURCE,
    "infovqa": infovqa.SOURCE,
    "ai2d": ai2d.SOURCE,
    "mathvision": mathvision.SOURCE,
    "mmmu": mmmu.SOURCE,
    "docvqa": docvqa.SOURCE,
    "ocrbench": ocrbench.SOURCE,
    "mmstar": mmstar.SOURCE,
    "treebench": treebench.SOURCE,
    "codeforces": codeforces.SOURCE,
    "digits": digits.SOURCE,
    "generic": generic.SOURCE,
}

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
