"""What the walk through the published widths measures, on the tiny model; the walk itself takes a minute and a half."""

import pytest
import torch

from benchmarks import published_slice
from llavaonevision1_5 import tiny


def test_differences_are_those_of_the_sampled_tokens():
    model = tiny.build_model().eval()
    prompts = list(published_slice.encode(tiny.build_processor()))
    assert [len(images) for _, _, images in prompts] == [0, 1, 2]
    answers = []
    for ids, pixels, _ in prompts:
        tokens = [65, 66, 67]
        with torch.no_grad():
            logits = model(torch.tensor([ids + tokens]), **pixels).logits[0].log_softmax(-1)
        answers.append((tokens, [float(logits[len(ids) - 1 + i, token]) for i, token in enumerate(tokens)]))
    assert max(published_slice.differences(model, prompts, answers)) < 1e-5
    answers[1][1][2] -= 0.5
    found = published_slice.differences(model, prompts, answers)
    assert found[5] == pytest.approx(0.5, abs=1e-5)
    assert sum(found) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ({}, True),
        ({"mean_nats": 0.021}, False),
        ({"peak_bytes": 21 * 2**30}, False),
        ({"weights_after_export": "1 weights differ, first model.norm.weight"}, False),
    ],
)
def test_what_passes(change, passes):
    good = {"mean_nats": 0.02, "peak_bytes": 2**30, "weights_after_export": "the weights are equal"}
    assert published_slice.is_right({**good, **change}) == passes
