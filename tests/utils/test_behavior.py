"""Rejection apart from weighting, and masks of responses that are bad and far away, token by token."""

import math

import pytest
import torch

from tests.utils.test_functional import LENGTHS, make_batch, pad, unpad
from utils.behavior import behavior_weight, off_policy_responses, rejected_tokens


def used_tokens(mask):
    start = 0
    for length in LENGTHS:
        yield [t for t in range(start, start + length) if mask[t]]
        start += length


JUDGED = {
    "token": lambda w, t, used: [w[t]],
    "sequence": lambda w, t, used: [math.exp(sum(math.log(w[u]) for u in used) / len(used))],
    "product": lambda w, t, used: [math.prod(w[u] for u in used)],
    "maximum": lambda w, t, used: [w[u] for u in used],
}


@pytest.mark.parametrize("level", JUDGED)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rejection_equals_the_slow_loop_packed_and_padded(level, seed):
    _, proximal, behavior, _, mask, cu_seqlens = make_batch(seed, spread=0.4)
    weights = (proximal - behavior).exp().tolist()
    wanted = [False] * len(weights)
    for used in used_tokens(mask):
        for t in used:
            wanted[t] = any(not 0.6 <= w <= 1.7 for w in JUDGED[level](weights, t, used))
    options = {"level": level, "cap": 1.7, "floor": 0.6}
    found = rejected_tokens(proximal, behavior, mask, cu_seqlens=cu_seqlens, **options)
    assert found.tolist() == wanted
    assert unpad(rejected_tokens(pad(proximal), pad(behavior), pad(mask), **options)).tolist() == wanted


def test_levels_disagree_as_they_should():
    """Weights 2, 1/2 and 1: the product and the geometric mean are 1, the extremes are not; the tokens alone: two."""
    behavior = torch.zeros(1, 3)
    proximal = torch.tensor([[math.log(2), -math.log(2), 0.0]])
    mask, bounds = torch.ones(1, 3), {"cap": 1.5, "floor": 0.7}
    counts = {
        level: rejected_tokens(proximal, behavior, mask, level=level, **bounds).sum().item()
        for level in JUDGED
    }
    assert counts == {"token": 2, "sequence": 0, "product": 0, "maximum": 3}
    assert not rejected_tokens(proximal, behavior, mask, level="none", **bounds).any()


def test_the_product_weight_is_the_ratio_of_the_response():
    proximal, behavior = torch.tensor([[0.1, 0.2, 9.0]]), torch.tensor([[0.0, 0.1, 0.0]])
    mask = torch.tensor([[1, 1, 0]])
    weight, capped, _ = behavior_weight(proximal, behavior, mask, level="product")
    assert weight.tolist()[0] == pytest.approx([math.exp(0.2)] * 2 + [0.0])
    assert behavior_weight(proximal, behavior, mask, level="product", cap=1.1)[1].tolist() == [
        [True, True, False]
    ]
    assert not capped.any()


def test_bad_responses_far_from_the_policy_are_masked():
    """Means of behavior - policy: 0.3, 0.3, 0.1; the second is good, the third is near."""
    behavior, mask = torch.zeros(3, 2), torch.tensor([[1, 1], [1, 1], [1, 1]])
    policy = -torch.tensor([[0.1, 0.5], [0.1, 0.5], [0.1, 0.1]])
    advantages = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    found = off_policy_responses(policy, behavior, advantages, mask, delta=0.2)
    assert found.tolist() == [[True, True], [False, False], [False, False]]
    packed = off_policy_responses(
        policy.flatten(), behavior.flatten(), advantages.flatten(), mask.flatten(),
        delta=0.2, cu_seqlens=torch.tensor([0, 2, 4, 6]),
    )  # fmt: skip
    assert packed.tolist() == found.flatten().tolist()
    assert not off_policy_responses(policy + 1, behavior, advantages, mask, delta=0.2).any(), (
        "nearer, not farther"
    )
