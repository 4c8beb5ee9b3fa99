"""prepare -> (train) -> export: the published layout in, the published layout out, nothing changed on the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from llavaonevision1_5 import checkpoint as checkpoints
from llavaonevision1_5 import shims, tiny


@pytest.fixture
def published(published_checkpoint, tmp_path):
    """A copy of the published checkpoint that a test may spoil; its weights are those of `checkpoint`."""
    return Path(shutil.copytree(published_checkpoint, tmp_path / "published"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_prepare_makes_a_folder_that_loads_and_leaves_the_source_alone(
    published, model, prompts, processor, tmp_path
):
    before = contents(published)
    folder = checkpoints.prepare(published, tmp_path / "prepared")
    assert contents(published) == before
    assert (folder / "model.safetensors").is_symlink()
    again = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True).eval()
    prompt = prompts[1]
    ids = torch.tensor([prompt.ids])
    with torch.no_grad():
        assert torch.equal(again(ids, **prompt.pixels).logits, model(ids, **prompt.pixels).logits)
    assert type(AutoProcessor.from_pretrained(folder, trust_remote_code=True)) is type(processor)


def test_code_of_others_is_refused(published, tmp_path, monkeypatch):
    """A folder may lead to its own files; a prepared one leads to ours, as long as nobody changes them."""
    assert shims.check_code(published)  # it leads nowhere
    config = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps({**config, "auto_map": shims.AUTO_MAP}))
    with pytest.raises(ValueError, match=r"prepare.*TRUST_CHECKPOINT_CODE=1"):
        shims.check_code(published)
    folder = checkpoints.prepare(published, tmp_path / "prepared")
    assert shims.check_code(folder)
    shim = folder / "configuration_llavaonevision1_5.py"
    shim.write_text(shim.read_text() + "import os\n")
    with pytest.raises(ValueError, match="configuration_llavaonevision1_5"):
        shims.check_code(folder)
    with pytest.raises(ValueError, match="some/name"):
        shims.check_code("some/name")
    monkeypatch.setenv("TRUST_CHECKPOINT_CODE", "1")
    assert shims.check_code(folder)
    assert shims.check_code("some/name")


def test_export_restores_everything_but_the_weights(published, prompts, tmp_path):
    folder = checkpoints.prepare(published, tmp_path / "prepared")
    model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
    prompt = prompts[1]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        model(torch.tensor([prompt.ids]), **prompt.pixels).logits.log_softmax(-1)[0, -1, 65].neg().backward()
        optimizer.step()
    model.save_pretrained(tmp_path / "trained")
    exported = checkpoints.export(tmp_path / "trained", tmp_path / "exported", original=published)

    before, after = contents(published), contents(exported)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {"model.safetensors"}
    old, new = (load_file(f / "model.safetensors") for f in (published, exported))
    assert old.keys() == new.keys()
    assert not torch.equal(old["lm_head.weight"], new["lm_head.weight"])
    for name, tensor in model.state_dict().items():
        assert torch.equal(new[name], tensor), name


def change_json(folder, name, **changes):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def drop_layer(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] += 1
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda f: change_json(f, "config.json", model_type="qwen3_vl"),
            r"model_type 'qwen3_vl', wanted 'llava",
        ),
        (drop_layer, r"missing weight model\.layers\.4\.(.|\n)*and 3 more"),
        (
            lambda f: change_json(f, "preprocessor_config.json", temporal_patch_size=2),
            r"temporal_patch_size 2, wanted 1",
        ),
        (lambda f: change_json(f, "preprocessor_config.json", patch_size=16), r"patch_size 16, wanted 14"),
        (
            lambda f: change_json(f, "config.json", image_token_id=77),
            r"<\|image_pad\|> at id 261, .*image_token_id is 77",
        ),
        (lambda f: (f / "chat_template.jinja").write_text("{{ messages }}"), r"writes no <\|image_pad\|>"),
    ],
)
def test_prepare_names_what_is_wrong(published, tmp_path, spoil, message):
    spoil(published)
    with pytest.raises(ValueError, match=message):
        checkpoints.prepare(published, tmp_path / "prepared")


def test_export_of_another_model_is_refused(published, checkpoint, tmp_path):
    other = tmp_path / "other"
    tiny.build_tiny_checkpoint(other, config=tiny.build_config(hidden_size=64))
    with pytest.raises(
        ValueError, match=r"weight lm_head\.weight has shape \[264, 64\], wanted \[264, 128\]"
    ):
        checkpoints.export(other, tmp_path / "exported", original=published)
    assert not (tmp_path / "exported").exists()


def test_folders_are_never_overwritten(published, tmp_path):
    checkpoints.prepare(published, tmp_path / "prepared")
    with pytest.raises(FileExistsError, match="is not empty"):
        checkpoints.prepare(published, tmp_path / "prepared")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent/config\.json is missing"):
        checkpoints.prepare(tmp_path / "absent", tmp_path / "prepared")
    with pytest.raises(FileNotFoundError, match=r"no \*\.safetensors"):
        checkpoints.tensor_shapes(tmp_path)
