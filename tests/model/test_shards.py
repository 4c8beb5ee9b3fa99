"""Broken downloads: each fault gives one message that begins with the file, and `prepare` leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from llavaonevision1_5 import checkpoint
from llavaonevision1_5.shards import INDEX, tensors

WEIGHTS = "model.safetensors"


@pytest.fixture
def published(published_checkpoint, tmp_path):
    return Path(shutil.copytree(published_checkpoint, tmp_path / "published"))


@pytest.fixture
def sharded(published):
    """The same weights in two files and an index."""
    weights = load_file(published / WEIGHTS)
    names = sorted(weights)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: weights[name] for name in part}, published / file)
    (published / WEIGHTS).unlink()
    write_index(published, {name: file for file, part in halves.items() for name in part})
    return published


def write_index(folder, placed):
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": placed}))


def change_index(folder, change):
    placed = json.loads((folder / INDEX).read_text())["weight_map"]
    change(placed)
    write_index(folder, placed)


def cut(path, length):
    os.truncate(path, length if length >= 0 else path.stat().st_size + length)


def pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 17000000000\n")


def sizes(folder, **changes):
    settings = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        if value is None:
            del settings["text_config"][name]
        else:
            settings["text_config"][name] = value
    (folder / "config.json").write_text(json.dumps(settings))


FAULTS = [
    (
        lambda f: cut(f / WEIGHTS, -1),
        r"model\.safetensors is truncated: it has \d+ bytes, its header wants \d+",
    ),
    (lambda f: cut(f / WEIGHTS, 100), r"model\.safetensors ends before its header does \(100 bytes\)"),
    (lambda f: cut(f / WEIGHTS, 0), r"model\.safetensors ends before its header does \(0 bytes\)"),
    (lambda f: (f / WEIGHTS).write_bytes(b"\x08" + bytes(7) + b"nonsense"), r"has no safetensors header"),
    (lambda f: (f / WEIGHTS).open("ab").write(b"x"), r"model\.safetensors is too long"),
    (lambda f: pointer(f / WEIGHTS), r"model\.safetensors is a git-lfs pointer"),
    (lambda f: pointer(f / "tokenizer.json"), r"tokenizer\.json is a git-lfs pointer"),
    (lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json is missing"),
    (lambda f: cut(f / "config.json", 40), r"config\.json is not JSON"),
    (lambda f: (f / "config.json").write_text("[]"), r"config\.json holds a list, wanted an object"),
    (lambda f: sizes(f, hidden_size=None), r"config\.json: .*text_config\.hidden_size is None"),
    (lambda f: sizes(f, vocab_size="many"), r"config\.json: .*text_config\.vocab_size is 'many'"),
]
INDEX_FAULTS = [
    (lambda f: (f / "model-2.safetensors").unlink(), r"model-2\.safetensors is missing"),
    (lambda f: change_index(f, lambda placed: placed.popitem()), r"index\.json: .* is not listed"),
    (
        lambda f: change_index(f, lambda p: p.update(foreign="model-1.safetensors")),
        r"foreign is not in model-1",
    ),
    (
        lambda f: change_index(f, lambda p: p.update(foreign="../model-1.safetensors")),
        r"places foreign in '\.\./",
    ),
    (
        lambda f: shutil.copy(f / "model-1.safetensors", f / "copy.safetensors"),
        r"stands in copy\.safetensors too",
    ),
    (lambda f: (f / INDEX).write_text("{}"), r"index\.json has no weight_map"),
]


def refused(folder, target, message):
    before = set(folder.parent.iterdir())
    with pytest.raises((ValueError, OSError), match=message) as error:
        checkpoint.prepare(folder, target)
    assert str(folder) in str(error.value), "the message names the file"
    assert set(folder.parent.iterdir()) == before, "nothing is left behind"


@pytest.mark.parametrize(("spoil", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_a_broken_file_is_named(published, tmp_path, spoil, message):
    spoil(published)
    refused(published, tmp_path / "new" / "prepared", message)


@pytest.mark.parametrize(("spoil", "message"), INDEX_FAULTS, ids=[message for _, message in INDEX_FAULTS])
def test_a_wrong_index_is_named(sharded, tmp_path, spoil, message):
    spoil(sharded)
    refused(sharded, tmp_path / "prepared", message)


def test_shards_and_empty_targets_are_fine(sharded, tmp_path):
    (tmp_path / "prepared").mkdir()
    folder = checkpoint.prepare(sharded, tmp_path / "prepared")
    assert tensors(folder) == tensors(sharded)
    assert (folder.stat().st_mode & 0o777) == 0o755


def test_a_target_is_a_new_folder_outside(published, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="is a file"):
        checkpoint.prepare(published, tmp_path / "file")
    refused(published, published / "prepared", "lies inside")
    exported = {"original": published}
    with pytest.raises(ValueError, match="lies inside"):
        checkpoint.export(published, published / "deep" / "out", **exported)
    assert not (published / "deep").exists()
