"""Our loss against the host's own where the two are configured alike; skipped without AReaL."""

import pytest
import torch

from utils.functional import aggregate_loss, decoupled_ppo_loss, loss_denominator
from utils.policy_metrics import kl_estimate

functional = pytest.importorskip("areal.utils.functional")
RejectionSamplingConfig = pytest.importorskip("areal.api.cli_args").RejectionSamplingConfig
data = pytest.importorskip("areal.utils.data")

CU_SEQLENS = torch.tensor([0, 6, 7, 16], dtype=torch.int32)

CASES = [
    ({}, {"level": "token", "action": "clamp"}, {}),
    ({"behavior_floor": 0.5}, {"level": "token", "action": "clamp", "lower": 0.5}, {}),
    ({"behavior_mode": "mask"}, {"level": "token", "action": "mask"}, {}),
    (
        {"behavior_mode": "mask", "behavior_floor": 0.5},
        {"level": "token", "action": "mask", "lower": 0.5},
        {},
    ),
    ({"behavior_level": "sequence"}, {"level": "sequence", "action": "clamp"}, {}),
    (
        {"behavior_level": "sequence", "behavior_mode": "mask"},
        {"level": "sequence", "action": "mask"},
        {},
    ),
    ({"dual_clip": 1.5}, {"level": "token", "action": "clamp"}, {"c_clip": 1.5}),
    (
        {"ratio_level": "sequence", "behavior_level": "sequence"},
        {"level": "sequence", "action": "clamp"},
        {"importance_sampling_level": "sequence"},
    ),
]


@pytest.mark.parametrize(("ours", "sampling", "theirs"), CASES, ids=str)
@pytest.mark.parametrize("cap", [5.0, 1.2])
def test_loss_and_gradient_equal_areal(ours, sampling, theirs, cap):
    torch.manual_seed(7)
    tokens = int(CU_SEQLENS[-1])
    policy = (-2 + torch.randn(tokens)).requires_grad_()
    proximal = policy.detach() + 0.2 * torch.randn(tokens)
    behavior = proximal + 0.5 * torch.randn(tokens)
    advantages, mask = torch.randn(tokens), torch.rand(tokens) > 0.2

    per_token, _ = decoupled_ppo_loss(
        policy,
        proximal,
        behavior,
        advantages,
        mask,
        behavior_cap=cap,
        cu_seqlens=CU_SEQLENS,
        **ours,
    )
    loss = aggregate_loss(per_token, mask, denominator=loss_denominator(mask))
    (grad,) = torch.autograd.grad(loss, policy)

    areal_loss, _ = functional.ppo_actor_loss_fn(
        policy,
        proximal,
        behavior,
        advantages,
        eps_clip=0.2,
        eps_clip_higher=0.28,
        loss_mask=mask,
        rejection_sampling=RejectionSamplingConfig(metric="ratio", upper=cap, **sampling),
        cu_seqlens=CU_SEQLENS,
        **theirs,
    )
    (areal_grad,) = torch.autograd.grad(areal_loss, policy)
    assert grad.abs().sum() > 0
    torch.testing.assert_close(loss, areal_loss, rtol=2e-6, atol=1e-7)
    torch.testing.assert_close(grad, areal_grad, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_estimates_equal_areal(kind):
    torch.manual_seed(0)
    policy, reference = torch.randn(50), torch.randn(50)
    wanted = data.KLEstimator(kind, apply_clamp=False)(policy, reference)
    torch.testing.assert_close(kl_estimate(policy, reference, kind), wanted, rtol=1e-5, atol=1e-6)
