"""Reference answers among the rollouts: how they are written, smoothed, marked and weighed."""

from types import SimpleNamespace

import pytest
import torch
from areal.utils import stats_tracker

from tests.trains.test_actor_loss import loss_of, packed
from trains.actor import VisionActor
from trains.config import GroundTruthConfig, LossConfig
from trains.ground_truth import smoothed
from trains.ground_truth_workflow import GroundTruthWorkflow
from trains.types import GroupInfo
from utils.sample import Sample


@pytest.fixture(autouse=True)
def fresh_statistics():
    yield
    stats_tracker.export_all()


def test_a_given_answer_that_was_found_has_the_mean_of_those_drawn():
    given = [True, False, False, False]
    assert smoothed(torch.tensor([1.0, 0.5, 0.25, 0.0]), given).tolist() == [1.0, 0.5, 0.25, 0.0]
    found = smoothed(torch.tensor([1.0, 1.0, 0.5, 0.0]), given)
    assert found.tolist() == [0.5, 1.0, 0.5, 0.0]
    assert found[0] == found[1:].mean() == found.mean(), "so its advantage is 0"
    assert smoothed(torch.tensor([1.0, 0.0]), [False, False]).tolist() == [1.0, 0.0]


def workflow(num_given, max_tokens=100):
    made = GroundTruthWorkflow.__new__(GroundTruthWorkflow)
    made.num_given, made.max_tokens = num_given, max_tokens
    made.gconfig = SimpleNamespace(stop_token_ids=[258])
    made.tokenizer = lambda text, add_special_tokens: {"input_ids": list(text.encode())}
    return made


def test_what_is_given():
    sample = Sample("a", (), "?", ("7", "seven"), "count", "any", "s", "think")
    encoded = SimpleNamespace(input_ids=[1] * 10)
    texts = [workflow(2).given_answer(sample, encoded, place) for place in range(3)]
    assert bytes(texts[0][:-1]) == b"<answer>7</answer>"
    assert bytes(texts[1][:-1]) == b"<answer>seven</answer>"
    assert texts[0][-1] == 258
    assert texts[2] is None
    assert workflow(2, max_tokens=20).given_answer(sample, encoded, 0) is None, (
        "too long: one is drawn instead"
    )
    code = Sample("a", (), "?", ("[]",), "code", "general-code", "s")
    assert workflow(2).given_answer(code, encoded, 0) is None


def groups():
    mask = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 1, 1]])
    info = GroupInfo(0, "a", "s", "any", "answer", ["1"], [], [""] * 3, [False] * 3, [2, 1, 3], 0)
    info.given = [True, False, False]
    return [
        {
            "rewards": torch.tensor([1.0, 1.0, 0.0]), "loss_mask": mask, "logprobs": -mask.float(),
            "versions": torch.zeros_like(mask), "info": [info],
        }
    ]  # fmt: skip


def test_the_actor_marks_and_smooths():
    actor = VisionActor.__new__(VisionActor)
    actor.loss = LossConfig(estimator="dr_grpo", batch_whiten=False)
    actor.sum_over_ranks = lambda values: values
    wanted = {True: [0.0, 5.0, -5.0], False: [10 / 3, 10 / 3, -20 / 3]}
    for smooth in (True, False):
        actor.ground_truth = GroundTruthConfig(num_given=1, smooth=smooth)
        (group,) = batch = groups()
        actor.compute_advantages(batch)
        assert group["given"].tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
        assert group["advantages"][:, 0].tolist() == pytest.approx(wanted[smooth], abs=1e-5)
        assert group["rewards"].tolist() == [1.0, 1.0, 0.0], "the records keep what was earned"
    actor.ground_truth = GroundTruthConfig()
    (group,) = batch = groups()
    actor.compute_advantages(batch)
    assert "given" not in group


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_given_answers_have_their_own_weight_and_no_behavior_policy(weight, monkeypatch):
    """The first sequence is given: its gradient is -weight A / 4, whatever the servers said of it."""
    monkeypatch.setattr(VisionActor, "ground_truth", GroundTruthConfig(num_given=1, weight=weight))
    inputs = packed()
    _, plain = loss_of(inputs)
    _, found = loss_of(packed(given=torch.tensor([1, 1, 0, 0, 0, 0])))
    assert torch.allclose(found[:2], torch.full((2,), -weight / 4))
    assert torch.equal(found[2:], plain[2:])
