"""`python -m utils.checkpoint` on folders of Qwen-VL: verify and export work, prepare has nothing to do and says so."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from trains.rehearsal.tiny_qwen import build_checkpoint
from utils.checkpoint import cli as checkpoint
from utils.checkpoint.compare import compare_weights


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """published: its tied output layer once; trained: the same, moved, and twice, as FSDP writes it."""
    root = tmp_path_factory.mktemp("qwen")
    published = build_checkpoint("qwen2_5_vl", root / "published")
    shutil.copytree(published, root / "trained")
    weights = load_file(published / "model.safetensors")
    name = next(name for name in weights if name.endswith("embed_tokens.weight"))
    weights["lm_head.weight"] = weights[name].clone()
    moved = next(name for name in weights if name.endswith("layers.1.mlp.down_proj.weight"))
    weights[moved][3] += 0.5
    save_file(weights, root / "trained" / "model.safetensors", metadata={"format": "pt"})
    return root


def verify(*folders):
    return checkpoint.main(["verify", "--new-tokens", "4", *map(str, folders)])


def changed(folders, tmp_path, change):
    """A copy of the published folder whose weights went through `change`."""
    folder = shutil.copytree(folders / "published", tmp_path / "changed")
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_published_folder_is_right_and_needs_no_prepare(folders, tmp_path, capsys):
    assert verify(folders / "published") == 0
    assert "transformers finds every weight" in capsys.readouterr().out
    assert checkpoint.main(["prepare", str(folders / "published"), str(tmp_path / "new")]) == 1
    assert "trains as it is published; let actor.path name that folder" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_exported_folder_answers_as_the_trained_one(folders, tmp_path, capsys):
    words = ["export", str(folders / "trained"), str(tmp_path / "out")]
    assert checkpoint.main([*words, "--original", str(folders / "published")]) == 0
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")
    assert verify(folders / "trained", tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "the weights are equal" in out
    assert out.count("greedy text equal") == 3
    assert verify(folders / "trained", folders / "published") == 1
    assert "NOT the same model" in capsys.readouterr().out


def test_an_output_layer_of_its_own_is_a_difference(folders, tmp_path):
    def untie(weights):
        name = next(name for name in weights if name.endswith("embed_tokens.weight"))
        weights["lm_head.weight"] = torch.zeros(weights[name].shape)

    folder = changed(folders, tmp_path, untie)
    assert compare_weights(folder, folders / "published") == "1 weights differ, first lm_head.weight"


@pytest.mark.parametrize("fault", ["missing", "unexpected", "mismatched"])
def test_weights_that_do_not_fit_are_named(fault, folders, tmp_path, capsys):
    def change(weights):
        name = next(name for name in weights if name.endswith("layers.0.mlp.up_proj.weight"))
        if fault == "unexpected":
            weights["extra.weight"] = torch.zeros(2)
        elif fault == "missing":
            del weights[name]
        else:
            weights[name] = torch.zeros(3, 3)

    assert verify(changed(folders, tmp_path, change)) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("is not a Qwen-VL checkpoint that can be used:")
    assert f"{fault} weights: 1, first " in second
    assert ("extra.weight" if fault == "unexpected" else "layers.0.mlp.up_proj.weight") in second


def test_special_tokens_and_broken_files_are_named(folders, tmp_path, capsys):
    folder = shutil.copytree(folders / "published", tmp_path / "tokens")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"image_token_id": 7}))
    assert verify(folder) == 1
    assert "config.json's image_token_id is 7" in capsys.readouterr().err
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert verify(folder) == 1
    assert "git-lfs pointer" in capsys.readouterr().err
