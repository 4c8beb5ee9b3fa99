import random

import pytest
import torch

from dataset.zoom_digits import QUESTION, box_of, build_rows, cell_of
from llavaonevision1_5 import tiny
from trains.demo.tokenizer import VOCAB_SIZE
from trains.demo.zoom_warm_start import (
    ZoomWarmStartConfig,
    accuracies,
    build_processor,
    encode,
    learning_rate,
    script,
    train,
    trajectory_loss,
    without_words,
    zoom_call,
)
from utils.sample import Sample

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def rows():
    return build_rows("validation")[:12]


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture(scope="module")
def careful(processor, rows):
    return encode(processor, rows, None, seed=0)


def model():
    config = tiny.build_config(suppress_media_tokens=True)
    config.text_config.vocab_size = VOCAB_SIZE
    return tiny.build_model(config, seed=0)


def test_the_careful_look_into_the_right_cell_and_read(careful, rows):
    for example, row in zip(careful, rows, strict=True):
        zoom, answer = example.trajectory.steps
        assert zoom.text == zoom_call(box_of(*cell_of(row["id"])))
        assert (zoom.fault, zoom.num_images, answer.text) == (None, 1, f"<answer>{row['answer'][0]}</answer>")


def test_the_careless_guess_look_elsewhere_and_misread_in_their_shares(rows):
    config, rng = ZoomWarmStartConfig(), random.Random(0)
    sample = Sample.from_row(rows[0])
    turns = [script(sample, config, rng) for _ in range(4000)]
    looked = [turn for turn in turns if len(turn) == 2]
    right = [turn for turn in looked if turn[0] == zoom_call(box_of(*cell_of(sample.id)))]
    read = [turn for turn in right if turn[1] == f"<answer>{sample.answer[0]}</answer>"]
    guesses = [turn[0] for turn in turns if len(turn) == 1]
    assert len(looked) / len(turns) == pytest.approx(1 - config.at_once, abs=0.03)
    other = config.wrong_cell * 15 / 16
    assert len(right) / len(looked) == pytest.approx(1 - other, abs=0.04)
    assert len(read) / len(right) == pytest.approx(1 - config.misread, abs=0.05)
    assert guesses.count(f"<answer>{sample.answer[0]}</answer>") / len(guesses) == pytest.approx(
        0.1, abs=0.03
    )


def test_the_first_phase_shows_the_image_alone(careful, processor):
    example = careful[0]
    short = without_words(example)
    text = processor.tokenizer.decode(short.prompt.input_ids)
    assert text.startswith("<|vision_start|>")
    assert text.endswith("<|vision_end|><|im_end|>\n<|im_start|>assistant\n")
    assert text.count("<|image_pad|>") == 4
    assert QUESTION.removesuffix("<image>") in processor.tokenizer.decode(example.prompt.input_ids)
    assert len(example.prompt.input_ids) > 5 * len(short.prompt.input_ids)
    assert short.trajectory is example.trajectory


def test_all_phases_train_and_the_format_comes_first(careful):
    config = ZoomWarmStartConfig(
        num_image_steps=12, num_clean_steps=4, num_careless_steps=2, image_batch_size=6, batch_size=6
    )
    losses = train(model(), careful, careful, config)
    assert len(losses) == 18
    assert sum(losses[9:12]) < 0.8 * sum(losses[:3])


def test_packing_does_not_change_the_loss(careful):
    random_model = model()
    each = [
        trajectory_loss(random_model, [example]) * sum(example.trajectory.mask) for example in careful[:3]
    ]
    tokens = sum(sum(example.trajectory.mask) for example in careful[:3])
    together = trajectory_loss(random_model, careful[:3])
    torch.testing.assert_close(together, sum(each) / tokens, rtol=1e-5, atol=1e-5)


def test_the_rate_rises_falls_and_is_low_for_the_careless():
    config = ZoomWarmStartConfig()
    num_clean = config.num_image_steps + config.num_clean_steps
    rates = [learning_rate(step, config) for step in range(num_clean + 1)]
    assert rates[0] < rates[20] < rates[29] > rates[100] > rates[num_clean - 1] > 0.29 * config.learning_rate
    assert rates[num_clean] == config.careless_learning_rate


def test_a_model_that_knows_nothing_measures_as_such(processor, rows):
    found = accuracies(model(), processor, rows, batch_size=5)
    assert set(found) == {"at_once", "after_zoom", "right_cell"}
    assert found["right_cell"] == 0
    assert max(found.values()) < 0.6
