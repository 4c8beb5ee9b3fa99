"""What is written of a run holds no secret: not in its configuration, its manifest or its dry run."""

import os
from pathlib import Path

import pytest

from trains import config as trains_config
from utils.masking import MASK, masked, masked_arguments

ROOT = Path(__file__).resolve().parents[2]
SECRET = "s3cr3t-value"


@pytest.mark.parametrize(
    "name",
    [
        "api_key",
        "wandb_api_key",
        "hf_token",
        "HF_TOKEN",
        "password",
        "clientSecret",
        "apikey",
        "credentials",
        "token",
    ],
)
def test_secrets_are_masked_by_name(name):
    assert masked({"a": [{name: SECRET}]}) == {"a": [{name: MASK}]}
    assert masked_arguments([f"+a.b.{name}={SECRET}", f"--{name}", SECRET, f"--{name}={SECRET}"]) == [
        f"+a.b.{name}={MASK}",
        f"--{name}",
        MASK,
        f"--{name}={MASK}",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stop_token_ids", [1, 2]), ("max_new_tokens", 8), ("level", "token"), ("skip_tokenizer_init", True),
        ("api_key_variable", "JUDGE_KEY"), ("api_key", ""), ("api_key", None), ("pad_token", 3), ("tokens", "a"),
        ("keys", "a"), ("monkey", "a"),
    ],
)  # fmt: skip
def test_other_values_stay(name, value):
    assert masked({name: value}) == {name: value}
    left = MASK if name in {"api_key", "pad_token"} else "word"
    assert masked_arguments([f"{name}=word"]) == [f"{name}={left}"]


def test_passwords_in_addresses():
    assert masked({"url": f"https://me:{SECRET}@host/x"}) == {"url": f"https://{MASK}@host/x"}
    assert masked_arguments([f"url=http://{SECRET}@h"]) == [f"url=http://{MASK}@h"]


def test_saved_configuration(tmp_path, monkeypatch):
    """`config.yaml` of a run; W&B's and SwanLab's keys leave the configuration, which both of them publish."""
    monkeypatch.chdir(ROOT)
    for name in ("WANDB_API_KEY", "SWANLAB_API_KEY"):
        monkeypatch.setenv(name, "")
    overrides = [
        f"+stats_logger.wandb.wandb_api_key={SECRET}", f"+stats_logger.swanlab.api_key={SECRET}",
        f"+rollout.admin_api_key={SECRET}", f"cluster.fileroot={tmp_path}",
        f"++cluster.name_resolve.nfs_record_root={tmp_path}",
    ]  # fmt: skip
    monkeypatch.setattr(trains_config, "validate", lambda config: None)
    config = trains_config.load(["--config", "configs/digits_cpu_stage1.yaml", *overrides])
    saved = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any("admin_api_key" in text for text in saved)
    assert not any(SECRET in text for text in saved)
    assert config.rollout.admin_api_key == SECRET
    assert config.stats_logger.wandb.wandb_api_key == config.stats_logger.swanlab.api_key == ""
    assert os.environ["WANDB_API_KEY"] == os.environ["SWANLAB_API_KEY"] == SECRET
