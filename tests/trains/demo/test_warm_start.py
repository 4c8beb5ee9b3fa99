import json
import random

import pytest
import torch
from transformers import AutoProcessor

from dataset.digits import build_rows
from llavaonevision1_5 import tiny
from llavaonevision1_5.modeling import LLaVAOneVision1_5_ForConditionalGeneration as Model
from reward import score
from trains.demo.decode import accuracy_by_source, decode
from trains.demo.settings import WarmStartConfig
from trains.demo.supervised import (
    build_processor,
    completion,
    completion_loss,
    encode_rows,
    learning_rate,
    mistaken,
    warm_start,
)

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def rows():
    return build_rows("stage1", "warmstart")[:40] + build_rows("stage2", "warmstart")[:10]


@pytest.fixture(scope="module")
def processor(rows):
    return build_processor(rows)


@pytest.fixture(scope="module")
def examples(processor, rows):
    return encode_rows(processor, rows)


@pytest.fixture(scope="module")
def model():
    config = tiny.build_config(suppress_media_tokens=True)
    config.text_config.vocab_size = 640
    return tiny.build_model(config, seed=0)


def test_tokenizer_round_trips_and_keeps_digits_and_special_ids(processor):
    tokenizer = processor.tokenizer
    text = "né \u4e2d\n\t<|im_start|>user 123<answer>4567</answer>\x00"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert [tokenizer.decode([i]) for i in ids].count("5") == 1
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in tiny.SPECIAL_IDS} == tiny.SPECIAL_IDS
    assert max(tokenizer.get_vocab().values()) < 640
    assert tokenizer.eos_token_id == tiny.SPECIAL_IDS["<|im_end|>"]


def test_tokenizer_does_not_depend_on_order_of_rows_and_shortens_prompts(processor, rows):
    again = build_processor(list(reversed(rows)))
    assert again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    text = rows[0]["problem"] + "Put ONLY your final answer within <answer></answer>."
    assert len(processor.tokenizer(text)["input_ids"]) * 3 < len(text.encode())


def test_correct_completions_earn_the_full_reward_and_careless_ones_do_not(examples):
    rng = random.Random(0)
    for example in examples:
        sample = example.sample
        for wrong in (0.0, 1.0):
            text = completion(example, wrong, 0.0, rng)
            result = score(text, sample.answer, sample.answer_type, prompt_type=sample.prompt_type)
            assert result.status == "ok"
            assert (result.parts["accuracy"] == 1.0) == (wrong == 0.0), (text, sample.answer)


def test_a_slip_in_the_addition_makes_the_sum_one_too_large(examples):
    first, second = examples[-1].operands
    assert completion(examples[-1], 0.0, 1.0, random.Random(0)) == (
        f"<think>{first}+{second}={first + second + 1}</think><answer>{first + second + 1}</answer>"
    )


def test_mistakes_are_of_the_same_form():
    assert mistaken("9", "number") == "0"
    assert mistaken("D", "multiple-choice") == "A"
    assert mistaken("yes", "boolean") == "no"
    assert mistaken("[28, 0, 84, 56]", "bbox") == "[56, 0, 112, 56]"
    assert mistaken("[56, 0, 112, 56]", "bbox") == "[0, 0, 56, 56]"


def test_packed_loss_equals_one_sequence_at_a_time(model, processor, examples):
    chosen = [examples[0], examples[3], examples[-1]]
    texts = [completion(example, 0.0, 0.0, random.Random(0)) for example in chosen]
    prompts = [example.prompt for example in chosen]
    packed = completion_loss(model, processor.tokenizer, prompts, texts)
    lengths = [len(processor.tokenizer(text)["input_ids"]) + 1 for text in texts]
    single = [
        completion_loss(model, processor.tokenizer, [prompt], [text]) * length
        for prompt, text, length in zip(prompts, texts, lengths, strict=True)
    ]
    assert packed.item() == pytest.approx(sum(loss.item() for loss in single) / sum(lengths), abs=1e-5)


def test_batched_decoding_equals_one_prompt_at_a_time(model, processor, examples):
    prompts = [examples[0].prompt, examples[3].prompt, examples[-1].prompt]
    together = decode(model, processor.tokenizer, prompts, temperature=0.0, max_new_tokens=12)
    alone = [decode(model, processor.tokenizer, [p], temperature=0.0, max_new_tokens=12)[0] for p in prompts]
    assert together == alone


def test_accuracy_is_reported_per_source(model, processor, examples):
    prompts = [(example.sample, example.prompt) for example in examples[:8]]
    accuracy = accuracy_by_source(model, processor.tokenizer, prompts)
    assert set(accuracy) == {"digits-number", "digits-boolean", "digits-choice", "digits-bbox", "all"}
    assert all(0.0 <= value <= 1.0 for value in accuracy.values())


def test_learning_rate_by_hand():
    config = WarmStartConfig(num_clean_steps=100, learning_rate=1.0, careless_learning_rate=0.1)
    assert learning_rate(0, config) == pytest.approx(1 / 30)
    assert learning_rate(50, config) == pytest.approx(0.65)
    assert learning_rate(100, config) == 0.1


def test_short_warm_start_loads_learns_and_repeats(tmp_path, monkeypatch):
    monkeypatch.setattr("trains.demo.supervised.NUM_HELDOUT_STAGE1", 4)
    monkeypatch.setattr("trains.demo.supervised.NUM_HELDOUT_STAGE2", 1)
    config = WarmStartConfig(num_clean_steps=6, num_careless_steps=2, batch_size=4)
    report = warm_start(tmp_path / "a", config)
    assert report["losses"][5] < report["losses"][0]
    assert json.loads((tmp_path / "a" / "warm_start.json").read_text())["losses"] == report["losses"]
    warm_start(tmp_path / "b", config)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    assert Model.from_pretrained(tmp_path / "a").config.suppress_media_tokens
    assert AutoProcessor.from_pretrained(tmp_path / "a", trust_remote_code=True).tokenizer("7")[
        "input_ids"
    ] == [55]
