"""The surrogates against their formulas, and where their gradients flow."""

import math

import pytest
import torch

from tests.utils.test_functional import LENGTHS, make_batch, pad, unpad
from utils.functional import decoupled_ppo_loss

ON_POLICY = {"behavior_cap": 5.0}


def sapo_by_hand(r, a, positive=1.0, negative=1.05):
    tau = positive if a > 0 else negative
    return -a * 4 / tau / (1 + math.exp(-tau * (r - 1)))


@pytest.mark.parametrize("seed", [0, 1])
def test_sapo_equals_the_formula_packed_and_padded(seed):
    policy, proximal, _, advantages, mask, cu_seqlens = make_batch(seed)
    options = {"surrogate": "sapo", "sapo_tau_positive": 0.7, "sapo_tau_negative": 2.0}
    wanted = [
        sapo_by_hand(math.exp(p - q), a, 0.7, 2.0) if m else 0.0
        for p, q, a, m in zip(
            policy.tolist(), proximal.tolist(), advantages.tolist(), mask.tolist(), strict=True
        )
    ]
    found, stats = decoupled_ppo_loss(
        policy, proximal, proximal, advantages, mask, cu_seqlens=cu_seqlens, **options
    )
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    padded, _ = decoupled_ppo_loss(*map(pad, (policy, proximal, proximal, advantages)), pad(mask), **options)
    torch.testing.assert_close(unpad(padded), found, rtol=1e-12, atol=1e-12)
    assert not (stats["clipped_low"] | stats["clipped_high"]).any()


def gradient(surrogate, log_ratio, advantage, **options):
    policy = torch.tensor([[log_ratio]], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    loss, _ = decoupled_ppo_loss(
        policy, zero, zero, torch.full_like(zero, advantage), torch.ones(1, 1), surrogate=surrogate, **options
    )
    loss.sum().backward()
    return policy.grad.item()


def test_sapo_has_the_policy_gradient_on_policy_and_fades_beside_it():
    """d/dlogr of f is r sigma'(tau (r - 1)) 4: 1 at r = 1 whatever tau is, 3 * 4 * sigma(2)(1 - sigma(2)) at r = 3."""
    assert gradient("sapo", 0.0, 1.0) == pytest.approx(-1.0)
    assert gradient("sapo", 0.0, -1.0, sapo_tau_negative=3.0) == pytest.approx(1.0)
    s = 1 / (1 + math.exp(-2.0))
    assert gradient("sapo", math.log(3), 1.0) == pytest.approx(-3 * 4 * s * (1 - s))
    assert 0 < gradient("sapo", math.log(3), -1.0) < 3 * 4 * s * (1 - s)


@pytest.mark.parametrize("seed", [0, 1])
def test_gmpo_is_the_geometric_mean_of_the_clipped_tokens(seed):
    policy, proximal, _, _, mask, cu_seqlens = make_batch(seed, spread=0.4)
    advantages, wanted, start = torch.zeros(sum(LENGTHS), dtype=torch.float64), [], 0
    for length, advantage in zip(LENGTHS, (1.5, -0.7, -1.1, 2.0), strict=True):
        tokens = range(start, start + length)
        start += length
        used = [t for t in tokens if mask[t]]
        advantages[list(tokens)] = advantage
        factors = []
        for t in used:
            r = math.exp(policy[t] - proximal[t])
            factors.append(abs(min(r * advantage, min(max(r, 0.8), 1.28) * advantage)) / abs(advantage))
        value = -advantage * math.prod(factors) ** (1 / len(used)) if used else 0.0
        wanted += [value if mask[t] else 0.0 for t in tokens]
    options = {"surrogate": "gmpo", "behavior_level": "sequence"}
    found, _ = decoupled_ppo_loss(
        policy, proximal, proximal, advantages, mask, cu_seqlens=cu_seqlens, **options
    )
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    padded, _ = decoupled_ppo_loss(*map(pad, (policy, proximal, proximal, advantages)), pad(mask), **options)
    torch.testing.assert_close(unpad(padded), found, rtol=1e-12, atol=1e-12)


def test_gmpo_gives_each_token_of_a_response_an_equal_share_of_one_gradient():
    policy = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, 4, dtype=torch.float64)
    loss, _ = decoupled_ppo_loss(policy, zero, zero, zero + 2, torch.tensor([[1, 1, 1, 0]]), surrogate="gmpo")
    (loss.sum() / 3).backward()  # sequence-mean
    assert policy.grad.tolist()[0] == pytest.approx([-2 / 3] * 3 + [0.0])
    assert gradient("gmpo", 0.5, 1.0) == 0, "clipped: e^0.5 > 1.28"
    assert gradient("gmpo", 0.5, -1.0) == pytest.approx(math.exp(0.5)), "the pessimistic side is not"


@pytest.mark.parametrize("surrogate", ["sapo", "gmpo"])
def test_a_clip_of_another_kind_is_refused(surrogate):
    tensors = [torch.zeros(1, 2)] * 4
    for options in ({"dual_clip": 3.0}, {"ratio_level": "sequence"}):
        with pytest.raises(ValueError, match=f"surrogate '{surrogate}' goes with"):
            decoupled_ppo_loss(*tensors, torch.ones(1, 2), surrogate=surrogate, **options)
