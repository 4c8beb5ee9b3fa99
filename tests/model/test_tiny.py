"""The tiny checkpoint: byte-level tokens, deterministic files, the size it claims."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llavaonevision1_5 import tiny

TOKENIZER = tiny.build_tokenizer()


@given(st.text(max_size=60))
def test_every_string_survives_a_round_trip(text):
    ids = TOKENIZER(text).input_ids
    assert TOKENIZER.decode(ids) == text
    if "<|" not in text:
        assert ids == list(text.encode())


def test_special_tokens_are_single_tokens():
    ids = TOKENIZER("<|im_start|>user\n<|image_pad|><think>").input_ids
    assert ids[0] == tiny.SPECIAL_IDS["<|im_start|>"]
    assert ids[6] == tiny.SPECIAL_IDS["<|image_pad|>"]
    assert bytes(ids[7:]) == b"<think>"
    assert TOKENIZER.eos_token_id == tiny.SPECIAL_IDS["<|im_end|>"]
    assert TOKENIZER.pad_token_id == tiny.SPECIAL_IDS["<|endoftext|>"]
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "user\n<think>"


def test_configuration_and_tokenizer_agree(checkpoint):
    config = tiny.build_config()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=True)
    for token, field in [
        ("<|image_pad|>", config.image_token_id),
        ("<|video_pad|>", config.video_token_id),
        ("<|vision_start|>", config.vision_start_token_id),
        ("<|vision_end|>", config.vision_end_token_id),
        ("<|im_end|>", config.eos_token_id),
    ]:
        assert tokenizer.convert_tokens_to_ids(token) == field
    assert len(tokenizer) <= config.vocab_size


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_same_seed_same_files_other_seed_other_weights(tmp_path):
    state = torch.get_rng_state()
    first, second, other = (
        digests(tiny.build_tiny_checkpoint(tmp_path / name, seed=seed))
        for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    )
    assert first == second
    assert {name for name in first if first[name] != other[name]} == {"model.safetensors"}
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("options", [{}, {"hidden_size": 192, "vision_width": 128, "vision_heads": 4}])
def test_number_of_parameters(options):
    model = tiny.build_model(tiny.build_config(**options))
    assert 1e6 < sum(p.numel() for p in model.parameters()) < 3e6
