"""The model for transformers: every form of input gives the same logits, and only what should learn learns."""

from __future__ import annotations

import pytest
import torch
from transformers import AttentionInterface, Qwen3ForCausalLM

from llavaonevision1_5 import tiny
from llavaonevision1_5.attention import segmented_attention
from llavaonevision1_5.configuration import SUPPRESSED_LOGIT
from llavaonevision1_5.modeling import LLaVAOneVision1_5_ForConditionalGeneration
from tests.model.sequences import CLOSE, load, one_by_one, packed_inputs, padded_inputs


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("num_padding", [0, 5])
def test_packed_equals_one_by_one(checkpoint, prompts, implementation, num_padding):
    model = load(checkpoint, implementation)
    with torch.no_grad():
        packed = model(**packed_inputs(prompts, num_padding)).logits[0]
    start = 0
    for alone, prompt in zip(one_by_one(model, prompts), prompts, strict=True):
        torch.testing.assert_close(packed[start : start + len(prompt.ids)], alone, **CLOSE)
        start += len(prompt.ids)
    assert start + num_padding == len(packed)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_restarting_positions_alone_mean_packed(checkpoint, prompts, implementation):
    model = load(checkpoint, implementation)
    inputs = packed_inputs(prompts)
    kept = {key: inputs[key] for key in ("input_ids", "position_ids", "pixel_values", "image_grid_thw")}
    with torch.no_grad():
        packed = model(**kept).logits[0]
    torch.testing.assert_close(packed, torch.cat(one_by_one(model, prompts)), **CLOSE)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_equals_one_by_one(model, prompts, side):
    inputs = padded_inputs(prompts, side)
    with torch.no_grad():
        padded = model(**inputs).logits
    for row, mask, alone in zip(padded, inputs["attention_mask"], one_by_one(model, prompts), strict=True):
        torch.testing.assert_close(row[mask.bool()], alone, **CLOSE)


@pytest.mark.parametrize("form", ["packed", "packed with padding", "padded left", "padded right"])
def test_gradients_equal_one_by_one(model, prompts, form):
    """Relative to the largest entry of each tensor: a bias of the tower has gradients 1000 times below the head's."""

    def loss(logits, is_real):
        return (logits.log_softmax(-1)[..., 5] * is_real).sum()

    num_real = sum(len(p.ids) for p in prompts)
    if form.startswith("padded"):
        inputs = padded_inputs(prompts, form.split()[1])
        is_real = inputs["attention_mask"]
    else:
        inputs = packed_inputs(prompts, num_padding=5 if form.endswith("padding") else 0)
        is_real = (torch.arange(inputs["input_ids"].shape[1]) < num_real)[None]
    loss(model(**inputs).logits, is_real).backward()
    together = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for prompt in prompts:
        loss(model(input_ids=torch.tensor([prompt.ids]), **prompt.pixels).logits, 1).backward()
    for name, parameter in model.named_parameters():
        scale = parameter.grad.abs().max()
        assert scale > 0, name
        torch.testing.assert_close(together[name] / scale, parameter.grad / scale, **CLOSE, msg=name)


def test_bounds_that_do_not_cover_the_row_are_refused(model, prompts):
    inputs = packed_inputs(prompts[:2])
    inputs["cu_seq_lens_q"] = inputs["cu_seq_lens_q"] - torch.tensor([0, 0, 1])
    with pytest.raises(ValueError, match=r"cu_seq_lens_q ends at \d+, but the packed row has \d+ tokens"):
        model(**inputs)


@pytest.mark.parametrize("suppress", [False, True])
def test_text_logits_equal_qwen3(prompts, suppress):
    model = tiny.build_model(tiny.build_config(suppress_media_tokens=suppress), seed=3).eval()
    qwen3 = Qwen3ForCausalLM(model.config.text_config).eval()
    language = {n: t for n, t in model.state_dict().items() if not n.startswith("visual.")}
    qwen3.load_state_dict(language)
    ids = torch.tensor([prompts[0].ids])
    with torch.no_grad():
        expected, got = qwen3(input_ids=ids).logits, model(input_ids=ids).logits
    if suppress:
        expected[..., model.config.media_token_ids] = SUPPRESSED_LOGIT
        assert (got.softmax(-1)[..., model.config.media_token_ids] == 0).all()
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_an_image_changes_the_logits_after_it_only(model, prompts):
    prompt = prompts[1]
    first = prompt.ids.index(model.config.image_token_id)
    ids = torch.tensor([prompt.ids])
    with torch.no_grad():
        given = model(input_ids=ids, **prompt.pixels).logits[0]
        black = model(
            input_ids=ids, **{**prompt.pixels, "pixel_values": prompt.pixels["pixel_values"] * 0}
        ).logits[0]
    torch.testing.assert_close(given[:first], black[:first], **CLOSE)
    assert (given[first:] - black[first:]).abs().max(-1).values.min() > 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids, pixels, pad: ([*ids, pad], pixels), r"5 image tokens .* 1 images give 4 features"),
        (
            lambda ids, pixels, pad: ([t for t in ids if t != pad], pixels),
            r"0 image tokens .* give 4 features",
        ),
        (lambda ids, pixels, pad: (ids, {}), r"4 image tokens in input_ids, but there are no pixel_values"),
        (lambda ids, pixels, pad: (ids, {"pixel_values": pixels["pixel_values"]}), r"need image_grid_thw"),
        (
            lambda ids, pixels, pad: (ids, {**pixels, "pixel_values": pixels["pixel_values"][:-1]}),
            r"describes 16 patches in 1 frames, but pixel_values has 15 rows",
        ),
    ],
)
def test_a_mismatch_is_an_error_with_counts(model, prompts, change, message):
    ids, pixels = change(list(prompts[1].ids), dict(prompts[1].pixels), model.config.image_token_id)
    with pytest.raises(ValueError, match=message):
        model(input_ids=torch.tensor([ids]), **pixels)


def test_without_images_the_tower_runs_and_learns_nothing(model, prompts):
    calls = []
    model.visual.register_forward_hook(lambda *_: calls.append(1))
    model(input_ids=torch.tensor([prompts[0].ids])).logits.sum().backward()
    assert calls == [1]
    for name, parameter in model.visual.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad == 0).all(), name


def test_with_images_every_parameter_gets_a_gradient(model, prompts):
    model(input_ids=torch.tensor([prompts[1].ids]), **prompts[1].pixels).logits.log_softmax(-1)[
        ..., 7
    ].sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_gradient_checkpointing_changes_nothing(model, prompts):
    inputs = packed_inputs(prompts)
    model.train()
    model(**inputs).logits.log_softmax(-1)[..., 3].sum().backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert model.visual.blocks[0].gradient_checkpointing
    assert model.model.layers[0].gradient_checkpointing
    model(**inputs).logits.log_softmax(-1)[..., 3].sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], atol=1e-5, rtol=1e-5)


def test_bfloat16_stays_near_float32(checkpoint, model, prompts):
    half = LLaVAOneVision1_5_ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.bfloat16).eval()
    tables = []
    half.visual.blocks[0].register_forward_pre_hook(lambda _, args: tables.append(args[1].cos))
    with torch.no_grad():
        got = half(**packed_inputs(prompts)).logits.float().log_softmax(-1)
        expected = model(**packed_inputs(prompts)).logits.log_softmax(-1)
    assert tables[0].dtype == torch.float32
    keep = [i for i in range(got.shape[-1]) if i not in model.config.media_token_ids]
    assert (got - expected)[..., keep].abs().max() < 0.05


def test_generation_with_a_cache_equals_generation_without(model, prompts):
    prompt = prompts[2]
    ids = torch.tensor([prompt.ids])
    generated = model.generate(ids, **prompt.pixels, max_new_tokens=6, do_sample=False, eos_token_id=None)[0]
    for _ in range(6):
        with torch.no_grad():
            last = model(input_ids=ids, **prompt.pixels, logits_to_keep=1).logits
        assert last.shape[1] == 1
        ids = torch.cat([ids, last[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert generated.tolist() == ids[0].tolist()


def test_a_flash_implementation_gets_bounds_and_causality(checkpoint, model, prompts):
    """What flash-attention's kernel is given, checked with a slow stand-in under a `flash_...` name."""
    seen = set()

    def slow_flash(
        module, query, key, value, attention_mask, *, scaling, cu_seq_lens_q, cu_seq_lens_k, **kwargs
    ):
        lengths = cu_seq_lens_q.diff().tolist()
        is_causal = kwargs.get("is_causal", module.is_causal)
        assert attention_mask is None
        assert cu_seq_lens_q.dtype == torch.int32
        assert torch.equal(cu_seq_lens_q, cu_seq_lens_k)
        assert kwargs["max_length_q"] == kwargs["max_length_k"] == max(lengths)
        seen.add((type(module).__name__, is_causal))
        return segmented_attention(query, key, value, lengths, scaling=scaling, is_causal=is_causal), None

    AttentionInterface.register("flash_slow", slow_flash)
    flash = load(checkpoint, "sdpa")
    flash.config.text_config._attn_implementation = "flash_slow"
    flash.config.vision_config._attn_implementation = "flash_slow"
    with torch.no_grad():
        packed = flash(**packed_inputs(prompts)).logits[0]
    torch.testing.assert_close(packed, torch.cat(one_by_one(model, prompts)), **CLOSE)
    assert seen == {("RiceAttention", False), ("Qwen3Attention", True)}


@pytest.mark.gpu
@pytest.mark.parametrize("implementation", ["flash_attention_2", "sdpa"])
def test_gpu_in_bfloat16_stays_near_float32_on_cpu(checkpoint, model, prompts, implementation):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if implementation == "flash_attention_2":
        pytest.importorskip("flash_attn")
    on_gpu = LLaVAOneVision1_5_ForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.bfloat16, attn_implementation=implementation
    ).cuda()
    inputs = packed_inputs(prompts)
    moved = {key: x.cuda() if isinstance(x, torch.Tensor) else x for key, x in inputs.items()}
    got = on_gpu(**moved).logits.float().log_softmax(-1)
    with torch.no_grad():
        expected = model(**inputs).logits.log_softmax(-1)
    keep = [i for i in range(got.shape[-1]) if i not in model.config.media_token_ids]
    assert (got.cpu() - expected)[..., keep].abs().max() < 0.05
    got[..., 3].sum().backward()
    assert all(parameter.grad is not None for parameter in on_gpu.parameters())
