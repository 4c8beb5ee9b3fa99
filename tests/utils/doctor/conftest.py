"""Checkpoint folders of every size, and the arguments with which a shipped configuration finds all it wants."""

import json

import pytest

from tests.utils.doctor.machines import ROOT

SIZES = {"8b": (4096, 12288), "4b": (2560, 9728)}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory, tiny_checkpoint):
    """Folders with the config.json of each size and an empty weights file: the doctor reads no weights."""
    root = tmp_path_factory.mktemp("sizes")
    common = {"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    configs = {
        name: {
            "model_type": "llavaonevision1_5",
            "auto_map": {},
            "text_config": {**common, "hidden_size": hidden, "intermediate_size": ffn, "vocab_size": 151936},
            "vision_config": {},
        }
        for name, (hidden, ffn) in SIZES.items()
    }
    configs["3b"] = {
        "model_type": "qwen2_5_vl", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
        "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420},
    }  # fmt: skip
    for name, config in configs.items():
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps(config))
        (root / name / "generation_config.json").write_text(json.dumps({"eos_token_id": [151645, 151643]}))
        (root / name / "model.safetensors").write_bytes(b"")
    return {**{name: root / name for name in configs}, "cpu": tiny_checkpoint}


@pytest.fixture
def arguments(checkpoints, tmp_path, monkeypatch):
    """arguments(stem, *overrides): the doctor's arguments for a shipped file, its paths replaced by ones that exist."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    data = tmp_path / "data"
    data.mkdir()
    (data / "00000.parquet").touch()

    def build(stem, *overrides):
        size = next(name for name in checkpoints if name in stem)
        words = ["--config", str(ROOT / "configs" / f"{stem}.yaml"), f"actor.path={checkpoints[size]}"]
        words += [f"train_dataset.path={data}", f"cluster.fileroot={tmp_path}/runs"]
        if "stage2" in stem:
            words.append(f"train_dataset.mixture=[{{path: {data}, weight: 1.0}}]")
        if "digits" in stem or "zoom" in stem:
            words.append(f"valid_dataset.path={data}")
        return [*words, *overrides]

    return build
