"""Shim files: complete, repeatable, and never written through a link into somebody else's checkpoint."""

from __future__ import annotations

import json

from llavaonevision1_5 import shims


def published_folder(folder):
    """The JSON files of a published checkpoint, as far as they matter here."""
    folder.mkdir()
    remote = {"AutoConfig": "configuration_llavaonevision1_5.Llavaonevision1_5Config"}
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llavaonevision1_5", "auto_map": remote, "kept": 1})
    )
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
        )
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"processor_class": "Qwen2_5_VLProcessor", "kept": 2})
    )
    (folder / "modeling_llavaonevision1_5.py").write_text(
        "raise ImportError('does not run on transformers 5')\n"
    )
    return folder


def test_a_published_folder_is_pointed_at_this_package(tmp_path):
    folder = published_folder(tmp_path / "model")
    shims.write(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"] == shims.AUTO_MAP
    assert config["kept"] == 1
    assert json.loads((folder / "preprocessor_config.json").read_text())["processor_class"] == shims.PROCESSOR
    assert json.loads((folder / "tokenizer_config.json").read_text()) == {
        "processor_class": shims.PROCESSOR,
        "kept": 2,
    }
    assert "llavaonevision1_5.modeling" in (folder / "modeling_llavaonevision1_5.py").read_text()
    for reference in shims.AUTO_MAP.values():
        module, _, name = reference.partition(".")
        assert name in (folder / f"{module}.py").read_text()


def test_a_second_call_writes_nothing(tmp_path):
    folder = published_folder(tmp_path / "model")
    shims.write(folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    shims.write(folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_links_are_replaced_not_followed(tmp_path):
    original = published_folder(tmp_path / "original")
    untouched = {path.name: path.read_text() for path in original.iterdir()}
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in original.iterdir():
        (linked / path.name).symlink_to(path)
    shims.write(linked)
    assert {path.name: path.read_text() for path in original.iterdir()} == untouched
    assert json.loads((linked / "config.json").read_text())["auto_map"] == shims.AUTO_MAP
