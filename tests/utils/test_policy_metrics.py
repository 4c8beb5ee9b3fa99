"""KL estimates and the effective sample size."""

import pytest
import torch

from utils.policy_metrics import kl_estimate, kl_penalty

P = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
Q = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
KL = (P * (P / Q).log()).sum()


def expectation(kind, p=P):
    """Exact mean over tokens drawn from p."""
    return (p.detach() * kl_estimate(p.log(), Q.log(), kind)).sum()


def test_k1_and_k3_are_unbiased_and_k2_is_close():
    assert expectation("k1").item() == pytest.approx(KL.item())
    assert expectation("k3").item() == pytest.approx(KL.item())
    assert expectation("k2").item() != pytest.approx(KL.item(), rel=1e-3)
    assert expectation("k2").item() == pytest.approx(KL.item(), rel=0.2)


def test_k2_and_k3_are_never_negative_and_k1_is_signed():
    d = torch.linspace(-5, 5, 101)
    zero = torch.zeros(101)
    assert (kl_estimate(d, zero, "k2") >= 0).all()
    assert (kl_estimate(d, zero, "k3") >= 0).all()
    assert kl_estimate(d, zero, "k1").min() < 0


def test_as_a_penalty_k2_has_the_gradient_of_the_kl_and_k1_has_none():
    logits = P.log().requires_grad_()
    p = logits.softmax(-1)
    (true,) = torch.autograd.grad((p * (p / Q).log()).sum(), logits)
    grads = {
        kind: torch.autograd.grad(expectation(kind, logits.softmax(-1)), logits)[0]
        for kind in ("k1", "k2", "k3")
    }
    torch.testing.assert_close(grads["k2"], true)
    torch.testing.assert_close(grads["k1"], torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    assert not torch.allclose(grads["k3"], true, rtol=1e-2)


@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_a_masked_token_far_from_the_reference_does_not_poison_the_gradient(kind):
    policy = torch.tensor([-200.0, -1.0], requires_grad=True)
    kl = kl_estimate(policy, torch.tensor([0.0, -1.5]), kind)
    torch.where(torch.tensor([False, True]), kl, 0.0).sum().backward()
    assert policy.grad.isfinite().all()
    assert policy.grad[0] == 0
    assert policy.grad[1] != 0


def test_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match="'k4'; use"):
        kl_estimate(P, Q, "k4")


def test_the_penalty_of_k3_stops_at_its_bound():
    """-2,980 = 1 - e^8 is the gradient of k3 at d = -8, where its value is 2,972; at the bound it pulls no more."""
    d = torch.tensor([-8.0, -2.0, 0.5, 12.0], requires_grad=True)
    for bound, wanted in ((None, [-2979.958, -6.389, 0.3935, 1.0]), (10.0, [0.0, -6.389, 0.3935, 0.0])):
        (gradient,) = torch.autograd.grad(kl_penalty(d, torch.zeros(4), bound=bound).sum(), d)
        assert gradient.tolist() == pytest.approx(wanted, rel=1e-3)
    assert kl_penalty(d, torch.zeros(4)).tolist() == pytest.approx([10, 4.389, 0.1065, 10], rel=1e-3)
    assert kl_penalty(d, torch.zeros(4), "k2")[0] == 32, "k2 pulls in proportion and has no bound"


def test_weighted_by_the_ratio_the_penalty_is_unbiased_whoever_drew_the_token():
    """Tokens drawn from B: value and gradient are those of KL(P || Q); without the ratio neither is."""
    behavior = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)
    logits = P.log().requires_grad_()
    p = logits.softmax(-1)
    (true,) = torch.autograd.grad((p * (p / Q).log()).sum(), logits)

    def drawn(**options):
        p = logits.softmax(-1)
        return (behavior * kl_penalty(p.log(), Q.log(), **options)).sum()

    weighted = drawn(behavior_logprobs=behavior.log())
    assert weighted.item() == pytest.approx(KL.item())
    torch.testing.assert_close(torch.autograd.grad(weighted, logits)[0], true)
    plain = torch.autograd.grad(drawn(), logits)[0]
    assert (plain - true).abs().max() > 0.05
