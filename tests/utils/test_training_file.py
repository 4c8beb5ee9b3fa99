"""Sections of a configuration are what the launcher reads of it, without AReaL."""

from pathlib import Path

import pytest
from areal.api.cli_args import parse_cli_args
from omegaconf import OmegaConf

from utils.training_file import read_sections

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_nested_sections_are_merged_key_by_key_as_the_launcher_does(tmp_path):
    (tmp_path / "low.yaml").write_text(
        "seed: 1\ntrain_dataset: {path: a, columns: {problem: q, answer: a}}\nlist: [1, 2]\n"
    )
    (tmp_path / "high.yaml").write_text(
        "defaults: [low, _self_]\ntrain_dataset: {columns: {answer: b}}\nlist: [3]\nallocation_mode: x\n"
    )
    names = ("seed", "train_dataset", "list")
    found = read_sections(tmp_path / "high.yaml", names)
    assert found == {
        "seed": 1,
        "train_dataset": {"path": "a", "columns": {"problem": "q", "answer": "b"}},
        "list": [3],
    }
    launched, _ = parse_cli_args(["--config", str(tmp_path / "high.yaml")])
    assert {name: OmegaConf.to_container(launched)[name] for name in names} == found


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*grpo.yaml")), ids=lambda file: file.stem)
def test_a_shipped_file_reads_the_same(file):
    launched, _ = parse_cli_args(["--config", str(file)])
    known = OmegaConf.to_container(launched, resolve=False)
    for name, section in read_sections(file, ("train_dataset", "prompts", "reward")).items():
        assert section == known[name]
