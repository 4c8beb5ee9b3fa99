"""`python -m utils.checkpoint`: prepare, train, export, verify, from the command line's side.

tests/model/test_checkpoint.py holds the tests of layout and contents.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from utils.checkpoint import cli as checkpoint
from utils.checkpoint.compare import compare_weights


@pytest.fixture(scope="module")
def folders(published_checkpoint, tmp_path_factory):
    """published, prepared, trained by two steps, exported."""
    root = tmp_path_factory.mktemp("folders")
    published = Path(shutil.copytree(published_checkpoint, root / "published"))
    assert checkpoint.main(["prepare", str(published), str(root / "prepared")]) == 0
    model = AutoModelForImageTextToText.from_pretrained(root / "prepared", trust_remote_code=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(2):
        model(torch.tensor([[65, 66, 67, 68]])).logits.log_softmax(-1)[0, -1, 70].neg().backward()
        optimizer.step()
    model.save_pretrained(root / "trained")
    command = ["export", str(root / "trained"), str(root / "exported"), "--original", str(published)]
    assert checkpoint.main(command) == 0
    return root


def verify(*arguments):
    return checkpoint.main(["verify", "--new-tokens", "8", *map(str, arguments)])


def test_a_prepared_folder_answers_as_the_published_one(folders, capsys):
    assert verify(folders / "published", folders / "prepared") == 0
    out = capsys.readouterr().out
    assert out.count("greedy text equal") == 3
    assert "the same model" in out


def test_an_exported_folder_answers_as_the_trained_one(folders, capsys):
    shutil.copytree(folders / "exported", folders / "copy")
    (folders / "copy" / "preprocessor_config.json").write_bytes(
        (folders / "published" / "preprocessor_config.json").read_bytes()
    )
    assert verify(folders / "exported", folders / "copy") == 0
    config = json.loads((folders / "exported" / "config.json").read_text())
    assert config["text_config"]["rope_theta"] == 10_000.0, "the published code reads this key"
    assert "auto_map" not in config
    capsys.readouterr()


def test_training_shows_as_another_model(folders, capsys):
    assert verify(folders / "published", folders / "exported") == 1
    assert "NOT the same model" in capsys.readouterr().out


def test_the_rotary_base_matters(folders, tmp_path, capsys):
    """What `export` is for: a lost rope_theta changes log-probabilities, and verify sees it."""
    shutil.copytree(folders / "exported", tmp_path / "lost")
    config = json.loads((tmp_path / "lost" / "config.json").read_text())
    config["text_config"]["rope_theta"] = 1e6
    (tmp_path / "lost" / "config.json").write_text(json.dumps(config))
    assert verify(folders / "exported", tmp_path / "lost") == 1
    capsys.readouterr()


def test_a_mistake_is_one_line_and_a_status(folders, capsys):
    assert verify(folders / "absent") == 1
    assert checkpoint.main(["prepare", str(folders / "published"), str(folders / "prepared")]) == 1
    err = capsys.readouterr().err
    assert "absent" in err
    assert "is not empty" in err
    assert "Traceback" not in err


def test_a_difference_of_dtype_alone_is_said(folders, tmp_path, capsys):
    shutil.copytree(folders / "exported", tmp_path / "rounded")
    weights = load_file(folders / "exported" / "model.safetensors")
    rounded = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    save_file(rounded, tmp_path / "rounded" / "model.safetensors")
    assert "differ only in dtype (float32 against bfloat16)" in compare_weights(
        folders / "exported", tmp_path / "rounded"
    )
    rounded["model.norm.weight"] = rounded["model.norm.weight"] + 1
    save_file(rounded, tmp_path / "rounded" / "model.safetensors")
    assert compare_weights(folders / "exported", tmp_path / "rounded") == (
        "1 weights differ, first model.norm.weight"
    )
    assert compare_weights(folders / "exported", folders / "exported") == "the weights are equal"


def test_the_published_code_is_named_where_it_comes_along(folders, tmp_path, capsys):
    published = folders / "published"
    assert verify(published) == 0
    assert "drops class tokens at the wrong places from the second image on" in capsys.readouterr().out
    command = ["export", str(folders / "trained"), str(tmp_path / "out"), "--original", str(published)]
    assert checkpoint.main(command) == 0
    assert "drops class tokens" in capsys.readouterr().out
    assert verify(folders / "prepared") == 0
    assert "class tokens" not in capsys.readouterr().out, "a prepared folder runs this project's code"
