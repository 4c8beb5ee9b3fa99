"""What of the model learns, what is stored of it, and how published checkpoints name it."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from llavaonevision1_5 import shims
from llavaonevision1_5.freezing import freeze
from llavaonevision1_5.modeling import LLaVAOneVision1_5_ForConditionalGeneration
from tests.model.sequences import one_by_one


@pytest.mark.parametrize(
    ("tower", "projector", "trainable", "frozen"),
    [
        (True, False, "visual.merger.mlp.0.weight", "visual.blocks.0.attn.qkv.weight"),
        (False, True, "visual.class_embedding", "visual.merger.ln_q.weight"),
        (True, True, "model.embed_tokens.weight", "visual.merger.mlp.2.bias"),
    ],
)
def test_freezing(model, prompts, *, tower, projector, trainable, frozen):
    names = freeze(model, vision_tower=tower, projector=projector)
    model(input_ids=torch.tensor([prompts[1].ids]), **prompts[1].pixels).logits.log_softmax(-1)[
        ..., 7
    ].sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert frozen in names
    assert trainable not in names
    assert gradients[trainable].abs().max() > 0
    assert all(gradients[name] is None for name in names)
    assert all(name.startswith("visual.") for name in names)


def test_freezing_a_model_without_vision_is_an_error():
    with pytest.raises(ValueError, match=r"no parameters under .visual"):
        freeze(torch.nn.Linear(2, 2))


def test_save_and_reload(model, prompts, tmp_path):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, trust_remote_code=True).eval()
    assert type(again) is LLaVAOneVision1_5_ForConditionalGeneration
    for (name, saved), (other, loaded) in zip(
        model.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(saved, loaded), name
    for before, after in zip(one_by_one(model, prompts), one_by_one(again, prompts), strict=True):
        assert torch.equal(before, after)


def test_names_are_those_of_published_checkpoints(model):
    names = set(model.state_dict())
    depth = model.config.vision_config.depth
    parts = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    vision = {
        f"visual.blocks.{i}.{part}.{kind}"
        for i in range(depth)
        for part in parts
        for kind in ("weight", "bias")
    }
    vision |= {"visual.class_embedding", "visual.class_pos_emb", "visual.patch_embed.proj.weight"}
    vision |= {f"visual.pre_layernorm.{kind}" for kind in ("weight", "bias")}
    vision |= {
        f"visual.merger.{part}.{kind}" for part in ("ln_q", "mlp.0", "mlp.2") for kind in ("weight", "bias")
    }
    assert {name for name in names if name.startswith("visual.")} == vision
    rest = {name for name in names if not name.startswith("visual.")}
    assert rest >= {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    assert "model.layers.0.self_attn.q_norm.weight" in rest
    assert all(name.startswith(("model.", "lm_head.")) for name in rest)


def test_the_published_form_of_the_configuration_is_read(checkpoint, tmp_path):
    published = {
        "architectures": ["LLaVAOneVision1_5_ForConditionalGeneration"],
        "model_type": "llavaonevision1_5",
        "image_token_id": 151655,
        "video_token_id": 151656,
        "vocab_size": 151936,
        "text_config": {
            "model_type": "LLaVAOneVision1_5_text",
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_theta": 5000000.0,
            "rope_scaling": None,
            "image_token_id": None,
            "sliding_window": None,
            "use_sliding_window": False,
            "vocab_size": 151936,
        },
        "vision_config": {
            "model_type": "rice_vit",
            "embed_dim": 1024,
            "hidden_size": 1024,
            "text_hidden_size": 2560,
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(published))
    shims.write(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path, trust_remote_code=True)
    assert config.text_config.rope_parameters["rope_theta"] == 5e6
    assert config.image_token_id == 151655
    assert config.tie_word_embeddings is False
    assert config.text_config.tie_word_embeddings is False
    assert config.vision_config.patch_dim == 588
    with torch.device("meta"):
        model = LLaVAOneVision1_5_ForConditionalGeneration(config)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert 4_600 < millions < 4_800  # Qwen3-4B with an untied head 4.41e9, RICE ViT 0.30e9, merger 0.03e9
