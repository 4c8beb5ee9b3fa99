"""The loss as the engine calls it: which policy is clipped against, and a NaN that must reach the gradient."""

import pytest
import torch
from areal.utils import stats_tracker

from trains.actor import VisionActor
from trains.config import ActorConfig, LossConfig
from utils.entropy_control import EntropyCoefficient


@pytest.fixture(autouse=True)
def fresh_statistics():
    yield
    stats_tracker.export_all()


def packed(**changes):
    """Two sequences of three tokens in one row; the last position of each predicts nothing."""
    inputs = {
        "policy_mask": torch.tensor([1, 1, 0, 1, 1, 0]),
        "behavior_logprobs": torch.tensor([-1.0, -1.2, 0.0, -0.5, -2.0, 0.0]),
        "proximal_logprobs": torch.tensor([-0.8, -1.2, 0.0, -0.4, -1.0, 0.0]),
        "advantages": torch.tensor([1.0, 1.0, 0.0, -1.0, -1.0, 0.0]),
        "cu_seqlens": torch.tensor([0, 3, 6]),
    }
    return inputs | changes


def loss_of(inputs, policy=None, entropy=None, **options):
    actor = VisionActor.__new__(VisionActor)
    actor.config = ActorConfig(num_minibatches=options.pop("num_minibatches", 2))
    actor.loss, actor.max_new_tokens = LossConfig(**options), 8
    actor.entropy_coefficient = EntropyCoefficient(options.get("entropy_coefficient", 0.0))
    policy = inputs["proximal_logprobs"].clone() if policy is None else policy
    policy.requires_grad_()
    actor._entropies = torch.zeros(2)
    loss = actor._loss(policy, torch.zeros(len(policy)) if entropy is None else entropy, inputs)
    loss.backward()
    return loss.detach(), policy.grad


def test_decoupled_by_hand():
    """policy = proximal: r = 1, L = -w A, dL / dlogp = -w A; four tokens share the denominator."""
    inputs = packed()
    loss, gradient = loss_of(inputs)
    weight = torch.exp(inputs["proximal_logprobs"] - inputs["behavior_logprobs"]).clamp(max=5.0)
    wanted = -(weight * inputs["advantages"]) / 4
    assert torch.allclose(gradient, wanted)
    assert torch.allclose(loss, wanted.sum())


def test_without_recomputation_the_clip_is_around_the_behavior_policy():
    inputs = packed()
    policy = inputs["behavior_logprobs"] + torch.tensor([0.5, 0.1, 0.0, -0.5, 0.1, 0.0])
    _, gradient = loss_of(inputs, policy, use_decoupled_loss=False, recompute_logprob=False)
    ratio = torch.exp(policy.detach() - inputs["behavior_logprobs"])
    # e^0.5 > 1.28 with A > 0 and e^-0.5 < 0.8 with A < 0 are clipped and have no gradient
    wanted = torch.tensor([0.0, -ratio[1], 0.0, 0.0, ratio[4], 0.0]) / 4
    assert torch.allclose(gradient, wanted)


def test_with_recomputation_and_no_behavior_weight_proximal_is_the_centre():
    _, gradient = loss_of(packed(), use_decoupled_loss=False)
    assert torch.allclose(gradient, torch.tensor([-1.0, -1.0, 0.0, 1.0, 1.0, 0.0]) / 4)


@pytest.mark.parametrize(
    "where", ["behavior_logprobs", "proximal_logprobs", "reference_logprobs", "advantages"]
)
def test_a_loss_that_is_nan_has_a_gradient_that_is_not_finite(where):
    """AReaL skips a step by its gradient alone."""
    inputs = packed(reference_logprobs=torch.full((6,), -1.0))
    inputs[where] = inputs[where].clone()
    inputs[where][1] = torch.nan
    loss, gradient = loss_of(inputs, inputs["behavior_logprobs"].nan_to_num() + 0.1, kl_coefficient=0.1)
    assert loss.isnan()
    assert not gradient.isfinite().all()


def test_nan_outside_the_mask_does_not_matter():
    inputs = packed()
    for name in ("behavior_logprobs", "proximal_logprobs", "advantages"):
        inputs[name][2] = torch.nan
    loss, gradient = loss_of(inputs, packed()["proximal_logprobs"])
    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"behavior_mode": "mask"},
        {"surrogate": "cispo"},
        {"surrogate": "sapo"},
        {"surrogate": "gmpo", "behavior_level": "sequence", "loss_mode": "sequence-mean"},
        {"rejection_level": "product", "rejection_cap": 1.5},
        {"off_policy_delta": 0.1},
    ],
    ids=str,
)
def test_a_fused_proximal_pass_is_the_separate_one(options):
    """With one minibatch the proximal policy is the policy that is trained: r = 1, with the gradient of policy / 1."""
    inputs = packed()
    separate = loss_of(inputs, proximal_pass="separate", **options)
    known = {key: value for key, value in inputs.items() if key != "proximal_logprobs"}
    fused = loss_of(known, inputs["proximal_logprobs"].clone(), num_minibatches=1, **options)
    assert torch.equal(fused[0], separate[0])
    assert torch.equal(fused[1], separate[1])
    assert fused[1].abs().sum() > 0


@pytest.mark.parametrize(
    ("proximal_pass", "num_minibatches", "needed"),
    [("auto", 1, False), ("auto", 2, True), ("fused", 1, False), ("separate", 1, True)],
)
def test_which_steps_need_a_proximal_pass(proximal_pass, num_minibatches, needed):
    actor = VisionActor.__new__(VisionActor)
    actor.config = ActorConfig(num_minibatches=num_minibatches)
    actor.loss = LossConfig(proximal_pass=proximal_pass)
    assert actor.needs_proximal_pass is needed
