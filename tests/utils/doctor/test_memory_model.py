"""The memory model: exact counts, published figures, and real actor steps on the CPU measured beside it."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llavaonevision1_5 import checkpoint
from utils.doctor import memory_model as m
from utils.doctor.model_sizes import Architecture

ROOT = Path(__file__).resolve().parents[3]


def published(hidden, ffn):
    """config.json of the 4B or 8B checkpoint, as far as sizes go."""
    return {
        "model_type": "llavaonevision1_5",
        "text_config": {
            "hidden_size": hidden,
            "intermediate_size": ffn,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
        },
        "vision_config": {},
    }


EIGHT = published(4096, 12288)


@pytest.mark.parametrize(("config", "billions"), [(EIGHT, 8.53), (published(2560, 9728), 4.74)])
def test_parameters_are_those_of_the_key_layout(config, billions):
    """The same number by another way: the shape of every tensor that the checkpoint must hold."""
    total = sum(math.prod(shape) for shape in checkpoint.expected_shapes(config).values())
    assert Architecture.from_config(config).parameters == total
    assert total / 1e9 == pytest.approx(billions, abs=0.005)


def test_parameters_of_a_real_folder(tiny_checkpoint):
    model = Architecture.from_config(json.loads((tiny_checkpoint / "config.json").read_text()))
    assert model.parameters == sum(math.prod(s) for s in checkpoint.tensor_shapes(tiny_checkpoint).values())


@pytest.mark.parametrize(
    ("name", "config_name", "text", "vision", "billions"),
    [
        # sizes as published on the models' pages
        ("qwen2_5_vl", "Qwen2_5_VL", {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
         "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936}, {"depth": 32, "hidden_size": 1280,
         "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048}, 3.75),
        ("qwen2_vl", "Qwen2VL", {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
         "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936},
         {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "hidden_size": 1536, "num_heads": 16}, 2.21),
        ("qwen3_vl", "Qwen3VL", {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
         "head_dim": 128, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 151936},
         {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "out_hidden_size": 2560,
          "deepstack_visual_indexes": [5, 11, 17]}, 4.44),
    ],
)  # fmt: skip
def test_parameters_of_the_qwen_models(name, config_name, text, vision, billions):
    """Against transformers' own modules, built without memory on the meta device."""
    import torch
    import transformers

    config_class = getattr(transformers, f"{config_name}Config")
    model_class = getattr(transformers, f"{config_name}ForConditionalGeneration")
    config = config_class(text_config=text, vision_config=vision, tie_word_embeddings=True)
    with torch.device("meta"):
        total = sum({id(p): p.numel() for p in model_class(config).parameters()}.values())
    plain = {"model_type": name, "text_config": text, "vision_config": vision, "tie_word_embeddings": True}
    estimated = Architecture.from_config(plain).parameters
    assert total / 1e9 == pytest.approx(billions, abs=0.02)
    assert estimated == pytest.approx(total, rel=0.005)


def test_published_figures_of_8b():
    """Qwen3-8B's cache takes 144 KiB a token; 16 bytes of state per parameter; 8.5e9 x 2 bytes of weights to serve."""
    model = Architecture.from_config(EIGHT)
    assert model.kv_bytes_per_token == 144 * 1024
    run = m.Training(ranks=4, tokens=6144, image_tokens=0, prompt_image_tokens=0)
    lines = {line.what: line.num_bytes for line in m.trainer_lines(model, run)}
    state = lines["weights"] + lines["gradients"] + lines["optimizer"]
    assert state == pytest.approx(16 * model.parameters / 4)
    # one layer recomputed: what it keeps, and the gradients inside of it; the output layer's moment is smaller
    inside = 6144 * (m.layer_activation_bytes(model, "bfloat16") + (3 * 12288 + 2 * 4096) * 2)
    assert lines["highest moment"] == inside
    assert inside > 151936 * 4096 * 2 + 6144 * (4096 * 6 + 1024 * 10)
    serving = m.Serving(
        gpus=1, memory_bytes=80 * m.GIB, mem_fraction=0.8, max_running=64, request_tokens=6144
    )
    assert m.kv_capacity(model, serving) == pytest.approx(
        (64 * m.GIB - 2 * model.parameters) / (144 * 1024), abs=1
    )


def test_more_ranks_fewer_bytes_and_offload_moves_them():
    model = Architecture.from_config(EIGHT)
    shared = {"tokens": 6144, "image_tokens": 6144, "prompt_image_tokens": 0}
    four, eight = (m.trainer_lines(model, m.Training(ranks=n, **shared)) for n in (4, 8))
    assert m.peak(four) - m.peak(eight) == pytest.approx(16 * model.parameters * (1 / 4 - 1 / 8))
    offloaded = m.trainer_lines(model, m.Training(ranks=4, offload=True, **shared))
    assert m.peak(offloaded) + m.peak(offloaded, "cpu") == pytest.approx(m.peak(four))
    assert m.peak(offloaded, "cpu") == pytest.approx(16 * model.parameters / 4)


@pytest.mark.parametrize("trained", [{}, {"vision_tower": True}, {"vision_tower": True, "projector": True}])
def test_adapters_are_counted_as_peft_makes_them(trained, tiny_checkpoint):
    from peft import LoraConfig, TaskType, get_peft_model

    from llavaonevision1_5.freezing import freeze
    from llavaonevision1_5.tiny import build_model

    config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=8, target_modules="all-linear", bias="none")
    adapted = get_peft_model(build_model(), config)
    if trained:
        freeze(adapted, **{"vision_tower": False, **trained})
    counted = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    model = Architecture.from_config(json.loads((tiny_checkpoint / "config.json").read_text()))
    wanted = {"tower": not trained.get("vision_tower"), "projector": not trained.get("projector")}
    assert model.adapter_parameters(8, **wanted) == counted


def test_a_reference_model_is_one_more_set_of_weights():
    model = Architecture.from_config(EIGHT)
    shared = {"ranks": 4, "tokens": 6144, "image_tokens": 0, "prompt_image_tokens": 0}
    alone, beside = (m.trainer_lines(model, m.Training(**shared, reference=r)) for r in (None, "gpu"))
    assert m.peak(beside) - m.peak(alone) == pytest.approx(model.parameters)  # 4 bytes over 4 ranks
    offloaded = m.trainer_lines(model, m.Training(**shared, reference="cpu"))
    assert m.peak(offloaded) == m.peak(alone)
    assert m.peak(offloaded, "cpu") == pytest.approx(model.parameters)


def test_a_critic_keeps_its_weights_gradients_and_optimizer_and_no_output_layer():
    model = Architecture.from_config(EIGHT)
    shared = {"ranks": 4, "tokens": 6144, "image_tokens": 0, "prompt_image_tokens": 0}
    alone, beside = (m.trainer_lines(model, m.Training(**shared, critic_frozen=n)) for n in (None, 0))
    size = model.parameters - 151936 * 4096 + 4096  # one row in place of the vocabulary
    assert m.peak(beside) - m.peak(alone) == pytest.approx(4 * size)  # 4 tensors x 4 bytes over 4 ranks
    frozen = m.trainer_lines(model, m.Training(**shared, critic_frozen=10**9))
    assert m.peak(beside) - m.peak(frozen) == pytest.approx(3e9)
    offloaded = m.trainer_lines(model, m.Training(**shared, critic_frozen=0, offload=True))
    assert m.peak(offloaded, "cpu") == pytest.approx(4 * size + 4 * model.parameters)


def test_flops_of_a_step():
    """Per text token 2 FLOPs a weight that multiplies, five passes with checkpointing, four without."""
    model = Architecture.from_config(EIGHT)
    weights = model.layers * model.layer_parameters + model.embedding_parameters
    assert m.forward_flops(model, 1000, 0, 0) == pytest.approx(2 * 1000 * weights)
    # 2 prompts of 100 tokens, 80 of them image, 4 answers of 25 each: 2 x 100 + 8 x 25 tokens, 2 images
    step = m.Step(prompts=2, group=4, prompt_tokens=100, image_tokens=80, answer_tokens=25)
    once = m.forward_flops(model, 400, 160, 125)
    assert m.step_flops(model, step) == 4 * once
    assert m.step_flops(model, replace(step, separate_proximal=True)) == 5 * once
    assert m.step_flops(model, replace(step, checkpointing=False)) == 3 * once
    with_critic = replace(step, critic_epochs=1)  # its values, then forward, backward, recomputation
    assert m.step_flops(model, with_critic) == 9 * once
    assert m.step_flops(model, replace(step, critic_epochs=3)) == 17 * once
    apart = m.forward_flops(model, 1000, 640, 125)  # each of 8 rollouts with its prompt
    assert m.step_flops(model, replace(step, share_prompts=False)) == 4 * apart
    cut = m.forward_flops(
        model, 600, 320, 125
    )  # 100 tokens of answers, of which 50 fit behind the prompt: two parts
    assert m.step_flops(model, replace(step, tokens_per_mb=150)) == 4 * cut
    longer = m.forward_flops(model, 1000, 0, 2000) - m.forward_flops(model, 1000, 0, 1000)
    assert longer == pytest.approx(2 * 1000 * 36 * 4096 * 1000), "causal attention: 4 T S d / 2 a layer"


def test_an_unknown_model_is_refused():
    with pytest.raises(ValueError, match=r"model_type is 'llama'; wanted one of"):
        Architecture.from_config({"model_type": "llama"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--prompts", "4", "--group", "8"],
        ["--prompts", "4", "--group", "8", "--no-checkpointing"],
        [
            "--prompts",
            "2",
            "--group",
            "8",
            "--answer-tokens",
            "256",
            "--tokens",
            "2300",  # two micro-batches of eight; AReaL deals sequences out evenly, the estimate takes full ones
            "--image-tokens",
            "16",
        ],
    ],
    ids=["checkpointing", "without", "long-answers"],
)
def test_the_estimate_against_real_steps(options, tmp_path):
    """The training actor on AReaL's engine; measured: every byte that torch's CPU allocator hands out at the peak."""
    command = [sys.executable, "-W", "ignore", "benchmarks/actor_step.py", "--size", "tiny", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, "--json", str(tmp_path / "result.json")],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["estimated_bytes"] == pytest.approx(found["measured_bytes"], rel=0.08)
