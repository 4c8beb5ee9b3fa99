"""What reaches the loss, what the loss reports, and the steps of an update, on an engine of paper."""

from dataclasses import fields

import pytest
import torch
from areal.utils import stats_tracker

import trains.actor
from tests.trains.test_actor_loss import loss_of, packed
from trains.actor import VisionActor
from trains.config import ActorConfig, LossConfig
from utils.entropy_control import EntropyCoefficient

OTHERWISE = {
    "eps_clip": 0.1, "eps_clip_higher": 0.4, "dual_clip": 3.0, "behavior_cap": 7.0, "behavior_floor": 0.3,
    "behavior_mode": "mask", "behavior_level": "sequence", "ratio_level": "sequence", "surrogate": "cispo",
    "rejection_level": "maximum", "rejection_cap": 3.0, "rejection_floor": 0.1,
    "sapo_tau_positive": 2.0, "sapo_tau_negative": 3.0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def fresh_statistics():
    stats_tracker.export_all()
    yield
    stats_tracker.export_all()


def test_every_option_of_the_loss_reaches_it(monkeypatch):
    seen = {}

    def loss(*tensors, **options):
        seen.update(options)
        raise InterruptedError

    monkeypatch.setattr(trains.actor, "decoupled_ppo_loss", loss)
    assert all(OTHERWISE[f.name] != f.default for f in fields(LossConfig) if f.name in OTHERWISE)
    with pytest.raises(InterruptedError):
        loss_of(packed(), **OTHERWISE)
    assert seen.pop("cu_seqlens").tolist() == [0, 3, 6]
    assert seen == OTHERWISE


def test_the_penalty_pulls_towards_the_reference():
    """k2 has the gradient d: coefficient * d / 4 beside that of the loss without it, and none outside of the mask."""
    inputs = packed(reference_logprobs=torch.tensor([-1.0, -1.0, 9.0, -1.0, -1.0, 9.0]))
    policy = inputs["proximal_logprobs"].clone()
    _, without = loss_of(inputs, policy.clone())
    _, gradient = loss_of(inputs, policy.clone(), kl_coefficient=0.5, kl_estimator="k2")
    difference = (policy - inputs["reference_logprobs"]) * inputs["policy_mask"]
    assert torch.allclose(gradient - without, 0.5 * difference / 4)


def test_what_the_loss_reports():
    """Means over the four tokens; the weights are e^0.2, 1, e^0.1 and e^1."""
    inputs = packed(reference_logprobs=torch.full((6,), -1.0))
    policy = inputs["proximal_logprobs"] + torch.tensor([0.5, 0.0, 0.0, 0.0, -0.5, 0.0])
    loss, _ = loss_of(inputs, policy, kl_coefficient=0.0, behavior_cap=2.0)
    found = stats_tracker.export_all()
    weight = torch.tensor([0.2, 0.0, 0.1, 1.0]).exp().clamp(max=2.0)
    ratio = torch.tensor([0.5, 0.0, 0.0, -0.5]).exp()
    wanted = {
        "loss": float(loss), "entropy": 0.0, "ratio": ratio.mean(), "clipped_low": 0.25, "clipped_high": 0.25,
        "behavior_weight": weight.mean(), "behavior_weight_squared": weight.square().mean(),
        "behavior_capped": 0.25, "behavior_floored": 0.0, "dual_clipped": 0.0, "behavior_rejected": 0.0,
        "behavior_kl": -(0.2 + 0.0 + 0.1 + 1.0) / 4,
    }  # fmt: skip
    assert {name: found[f"update/{name}/avg"] for name in wanted} == pytest.approx(
        {name: float(value) for name, value in wanted.items()}, rel=1e-5
    )
    assert found["update/ratio/max"] == pytest.approx(float(ratio.max()))
    assert "update/reference_kl/avg" not in found
    loss_of(inputs, kl_coefficient=1.0, kl_estimator="k1")
    difference = inputs["proximal_logprobs"][[0, 1, 3, 4]] + 1.0
    assert stats_tracker.export_all()["update/reference_kl/avg"] == pytest.approx(float(difference.mean()))


@pytest.mark.parametrize(("mode", "share"), [("token-mean", 4), ("sequence-mean", 2), ("constant", 2 * 8)])
def test_the_denominator_is_that_of_the_mode(mode, share):
    """Two sequences of two tokens each, at most 8 long; sequence-mean divides each token by its sequence's two."""
    inputs = packed()
    _, gradient = loss_of(inputs, loss_mode=mode, use_decoupled_loss=False)
    tokens = 2 if mode == "sequence-mean" else 1
    assert torch.allclose(gradient, -inputs["advantages"] / tokens / share)


class PaperEngine(VisionActor):
    """Two minibatches of a batch; notes in which order it is asked what."""

    def __init__(self, num_minibatches, successes):
        self.config, self.loss = ActorConfig(num_minibatches=num_minibatches), LossConfig()
        self.entropy_coefficient, self.device = EntropyCoefficient(0.0), "cpu"
        self.calls, self.successes, self.gradient_norms = [], successes, {"projector": 2.0}

    def train(self):
        self.calls.append("train")

    def minibatches(self, batch, keys):
        self.keys = list(keys)
        for number in range(self.config.num_minibatches):
            yield batch[number :: self.config.num_minibatches], number

    def learn(self, minibatch, loss, loss_weight):
        assert (loss, loss_weight) == (self._loss, self._loss_weight)
        self.calls.append(minibatch)
        step = {"update_successful": self.successes[minibatch], "grad_norm": 10.0 + minibatch, "lr": 0.5}
        return step, torch.arange(6.0).reshape(2, 3)

    def lr_scheduler_step(self):
        self.calls.append("schedule")


def batch(*more):
    shape = {"rewards": torch.zeros(2), "input_ids": torch.zeros(2, 3), "attention_mask": torch.ones(2, 3)}
    written = dict.fromkeys(("policy_mask", "behavior_logprobs", "advantages", *more), 0)
    return [shape | written for _ in range(2)]


def test_one_update_is_all_minibatches_and_one_step_of_the_schedule():
    engine = PaperEngine(2, successes=[0.0, 1.0])
    groups = batch("proximal_logprobs", "reference_logprobs")
    assert engine.ppo_update(groups) == {
        "grad_norm": 11.0, "lr": 0.5, "num_skipped": 1, "gradient_norms": {"projector": 2.0},
        "entropy_coefficient": 0.0,
    }  # fmt: skip
    assert engine.calls == ["train", 0, 1, "schedule"]
    assert set(engine.keys) == {
        "policy_mask", "behavior_logprobs", "advantages", "proximal_logprobs", "reference_logprobs",
    }  # fmt: skip
    assert groups[0]["proximal_logprobs"] == 0, "they had a pass of their own"


def test_a_fused_pass_leaves_its_log_probabilities_in_the_groups():
    engine = PaperEngine(1, successes=[1.0])
    groups = batch()[:1]
    assert engine.ppo_update(groups)["num_skipped"] == 0
    assert set(engine.keys) == {"policy_mask", "behavior_logprobs", "advantages"}
    assert groups[0]["proximal_logprobs"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


@pytest.mark.parametrize("mode", ["token-mean", "sequence-mean", "constant"])
def test_the_loss_that_is_reported_is_the_one_that_is_minimised(mode):
    """Over two micro-batches, of which the second has one response of one token."""
    inputs = packed(reference_logprobs=torch.full((6,), -1.0))
    small = {key: value[:3] for key, value in inputs.items() if key != "cu_seqlens"}
    small |= {"policy_mask": torch.tensor([1, 0, 0]), "cu_seqlens": torch.tensor([0, 3])}
    options = {"loss_mode": mode, "kl_coefficient": 0.1, "entropy_coefficient": 0.2}
    first, _ = loss_of(inputs, entropy=torch.full((6,), 0.5), **options)
    second, _ = loss_of(small, entropy=torch.full((3,), 2.0), **options)
    weights = {"token-mean": (4, 1), "sequence-mean": (2, 1), "constant": (2, 1)}[mode]
    wanted = (weights[0] * first + weights[1] * second) / sum(weights)
    assert stats_tracker.export_all()["update/loss/avg"] == pytest.approx(float(wanted), rel=1e-5)


def test_the_entropy_bonus_raises_the_entropy():
    entropy = torch.linspace(0.1, 0.6, 6).requires_grad_()
    loss_of(packed(), entropy=entropy, entropy_coefficient=0.5)
    assert torch.allclose(entropy.grad, -0.5 / 4 * packed()["policy_mask"])
    without = torch.linspace(0.1, 0.6, 6).requires_grad_()
    loss_of(packed(), entropy=without, entropy_target=1.0)
    assert without.grad is None, "the coefficient begins at 0"


def test_bad_responses_that_are_far_away_are_masked_and_counted():
    """The second sequence has A = -1; behavior - policy is 0.5, -0.1 and so 0.2 on average."""
    inputs = packed(proximal_logprobs=packed()["behavior_logprobs"] - 0.4)
    policy = inputs["behavior_logprobs"] - torch.tensor([9.0, 9.0, 0.0, 0.5, -0.1, 0.0])
    options = {"use_decoupled_loss": False}
    _, free = loss_of(inputs, policy.clone(), off_policy_delta=0.21, **options)
    stats_tracker.export_all()
    _, masked = loss_of(inputs, policy.clone(), off_policy_delta=0.19, **options)
    assert free[3:5].abs().min() > 0
    assert masked[3:].tolist() == [0.0] * 3
    assert torch.equal(masked[:3], free[:3]), "the denominator is the same, and good responses stay"
    assert stats_tracker.export_all()["update/off_policy_masked/avg"] == 0.5


def test_tokens_of_older_weights_weigh_the_penalty():
    """gradient of exp(policy - behavior) k3 is exp(policy - behavior) d."""
    inputs = packed(reference_logprobs=torch.full((6,), -1.0))
    policy = inputs["proximal_logprobs"].clone()
    _, without = loss_of(inputs, policy.clone())
    _, gradient = loss_of(inputs, policy.clone(), kl_coefficient=0.5, kl_unbiased=True)
    ratio = torch.exp(policy - inputs["behavior_logprobs"])
    wanted = 0.5 * ratio * (policy + 1.0) * inputs["policy_mask"] / 4
    assert torch.allclose(gradient - without, wanted, atol=1e-6)


def test_a_micro_batch_without_a_token_has_no_loss_and_is_computed_all_the_same():
    inputs = packed(policy_mask=torch.zeros(6, dtype=torch.int64))
    for mode in ("token-mean", "sequence-mean", "constant"):
        loss, gradient = loss_of(inputs, loss_mode=mode)
        stats_tracker.export_all()
        assert loss == 0
        assert gradient.abs().sum() == 0
    actor = VisionActor.__new__(VisionActor)
    actor.loss, actor.max_new_tokens = LossConfig(), 8
    assert 0 < actor._loss_weight(inputs) < 1e-5


def test_the_coefficient_follows_the_entropy_of_all_ranks():
    """This rank saw 0.25 on 4 tokens, the other one 1.0 on 12; the mean 0.8125 is below the target."""
    engine = PaperEngine(1, successes=[1.0])
    engine.loss = LossConfig(entropy_coefficient=0.1, entropy_target=0.9, entropy_step=0.05)
    engine.entropy_coefficient = EntropyCoefficient(0.1, 0.9, 0.05)
    engine.sum_over_ranks = lambda values: values + torch.tensor([12.0, 12.0])
    learn = engine.learn

    def with_entropy(*args):
        engine._count_entropy(torch.full((6,), 0.25), torch.tensor([1, 1, 0, 1, 1, 0]).bool())
        return learn(*args)

    engine.learn = with_entropy
    assert engine.ppo_update(batch()[:1])["entropy_coefficient"] == 0.1, "the one that was used"
    assert engine.entropy_coefficient.value == pytest.approx(0.15)
