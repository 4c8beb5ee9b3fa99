"""Merged adapters are the model that was trained."""

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model

from llavaonevision1_5.freezing import freeze, part_of_model
from llavaonevision1_5.tiny import build_model
from trains.host.lora import merged_state

RANK, ALPHA = 4, 8


@pytest.fixture
def adapted():
    """A tiny model with adapters that are not zero, wrapped as AReaL does."""
    model = build_model(seed=0)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=RANK, lora_alpha=ALPHA, target_modules="all-linear", bias="none"
    )
    adapted = get_peft_model(model, config, autocast_adapter_dtype=False).eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.05, generator=generator)
    return adapted


def test_merged_weights_compute_what_the_adapters_do(adapted):
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        wanted = adapted(input_ids=ids).logits
        plain = build_model(seed=0).eval()
        started = plain(input_ids=ids).logits
        merged = merged_state(adapted.state_dict(), ALPHA / RANK)
        assert merged.keys() == plain.state_dict().keys()
        plain.load_state_dict(merged)
        assert (plain(input_ids=ids).logits - wanted).abs().max() < 1e-5
    assert (started - wanted).abs().max() > 1e-2, "the adapters do something"


def test_only_adapted_layers_change_and_by_no_more_than_the_rank(adapted):
    before, merged = build_model(seed=0).state_dict(), merged_state(adapted.state_dict(), ALPHA / RANK)
    for name, weight in merged.items():
        change = weight - before[name]
        if name.endswith(("norm.weight", "bias")) or "embed" in name or name == "lm_head.weight":
            assert not change.any(), name
        elif ".layers." in name and change.ndim == 2 and min(change.shape) > RANK:
            assert torch.linalg.matrix_rank(change, atol=1e-4) == RANK, name


def test_half_precision_weights_keep_their_dtype(adapted):
    merged = merged_state(adapted.to(torch.bfloat16).state_dict(), ALPHA / RANK)
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}


def test_frozen_parts_train_no_adapter(adapted):
    freeze(adapted, vision_tower=True, projector=True)
    trained = {part_of_model(name) for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained == {"language_model"}
