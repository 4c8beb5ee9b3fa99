"""Export of a model whose output layer is tied: its training writes `lm_head.weight`, the published files do not."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llavaonevision1_5 import checkpoint, tied
from llavaonevision1_5.shards import INDEX, tensors
from trains.rehearsal import tiny_qwen

HEAD = "lm_head.weight"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A published Qwen2.5-VL, and what AReaL saves of it: FSDP's state dict, which lists both names; in shards."""
    root = tmp_path_factory.mktemp("tied")
    tiny_qwen.build_checkpoint("qwen2_5_vl", root / "original")
    model = tiny_qwen.build_model("qwen2_5_vl")
    with torch.no_grad():
        model.get_input_embeddings().weight += 1
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.save_pretrained(root / "trained", state_dict=state, max_shard_size="100KB")
    return root


def test_the_head_is_left_out_and_nothing_else(folders, tmp_path):
    original, trained = tensors(folders / "original"), tensors(folders / "trained")
    assert trained.keys() - original.keys() == {HEAD}
    assert (folders / "trained" / INDEX).is_file()
    exported = checkpoint.export(folders / "trained", tmp_path / "out", original=folders / "original")
    assert tensors(exported).keys() == original.keys()  # reads the index too
    for path in sorted((folders / "trained").glob("*.safetensors")):
        old, new = load_file(path), load_file(exported / path.name)
        old.pop(HEAD, None)
        assert old.keys() == new.keys()
        assert all(torch.equal(old[name], new[name]) for name in old)
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(exported)
    embeddings = load_file(folders / "trained" / trained[HEAD].file)[HEAD]
    assert torch.equal(model.get_output_embeddings().weight, embeddings)


def test_a_head_of_its_own_is_not_thrown_away(folders, tmp_path):
    state = {}
    for path in (folders / "trained").glob("*.safetensors"):
        state |= load_file(path)
    state[HEAD][-1, -1] += 1
    (tmp_path / "untied").mkdir()
    save_file(state, tmp_path / "untied" / "model.safetensors")
    with pytest.raises(ValueError, match=r"lm_head\.weight differs from the embeddings"):
        checkpoint.export(tmp_path / "untied", tmp_path / "out", original=folders / "original")
    assert not (tmp_path / "out").exists()


def test_an_original_that_does_not_tie_wants_its_head(folders, tmp_path):
    state = load_file(folders / "original" / "model.safetensors")
    for name in ("original", "trained"):
        (tmp_path / name).mkdir()
    save_file(state, tmp_path / "trained" / "model.safetensors")
    head = {HEAD: state["model.embed_tokens.weight"].clone()}
    save_file(state | head, tmp_path / "original" / "model.safetensors")
    for is_tied in (False, True):
        (tmp_path / "original" / "config.json").write_text(json.dumps({"tie_word_embeddings": is_tied}))
        if is_tied:  # the file of the original says it twice
            checkpoint.export(tmp_path / "trained", tmp_path / "out", original=tmp_path / "original")
            continue
        with pytest.raises(ValueError, match=r"(?s)other weights than .*missing weight lm_head\.weight"):
            checkpoint.export(tmp_path / "trained", tmp_path / "out", original=tmp_path / "original")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, False),
        ({"tie_word_embeddings": True}, True),
        ({"text_config": {"tie_word_embeddings": True}}, True),
        ({"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": True}}, False),
    ],
)
def test_where_a_configuration_says_it(config, expected):
    assert tied.is_tied(config) == expected
