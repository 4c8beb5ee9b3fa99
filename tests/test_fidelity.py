"""docs/fidelity.md says of both stages' 8B configurations what they hold."""

import re
from pathlib import Path

import pytest
from areal.api.cli_args import parse_cli_args, to_structured_cfg
from omegaconf import OmegaConf

from trains.config import Config
from trains.limits import value_of

PAGE = (Path(__file__).parents[1] / "docs" / "fidelity.md").read_text()
ROWS = [line.split("|")[1:-1] for line in PAGE.splitlines() if re.match(r"\| .*\| `[a-z_.]+` \|", line)]


@pytest.fixture(scope="module", params=["stage1", "stage2"])
def config(request):
    raw, _ = parse_cli_args(["--config", f"configs/llavaov15-8b_{request.param}_grpo.yaml"])
    return OmegaConf.to_object(to_structured_cfg(raw, Config))


def test_the_page_has_its_rows():
    assert len(ROWS) >= 35


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2].strip(" `"))
def test_ours_is_what_the_page_says(row, config):
    key, ours = row[2].strip(" `"), row[3].strip()
    value = value_of(config, key)
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    assert shown == ours
