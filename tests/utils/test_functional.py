"""The policy loss against slow float64 loops written from the formulas, and where its gradient flows."""

import itertools
import math

import pytest
import torch

from utils.functional import behavior_weight, decoupled_ppo_loss
from utils.sequences import MAX_LOG_RATIO

LENGTHS = (5, 1, 7, 4)  # one sequence of a single token, one below without any loss token


def make_batch(seed=0, spread=1.2):
    """Packed float64 tensors of four sequences, cu_seqlens, and a loss mask that drops whole prompts."""
    torch.manual_seed(seed)
    total = sum(LENGTHS)
    policy, proximal, behavior = (-2 + spread * torch.randn(total, dtype=torch.float64) for _ in range(3))
    advantages = torch.randn(total, dtype=torch.float64)
    mask = torch.tensor([*(0, 0, 1, 1, 1), 1, *(0, 1, 1, 0, 1, 1, 1), *(0, 0, 0, 0)])
    cu_seqlens = torch.tensor([0, *itertools.accumulate(LENGTHS)], dtype=torch.int32)
    return policy, proximal, behavior, advantages, mask, cu_seqlens


def pad(packed):
    """[tokens] to [batch, seq], filled with garbage that must not matter."""
    rows = torch.split(packed, LENGTHS)
    fill = 0 if packed.dtype == torch.int64 else math.nan
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)


def unpad(padded):
    return torch.cat([row[:length] for row, length in zip(padded, LENGTHS, strict=True)])


def slow_loss(
    policy,
    proximal,
    behavior,
    advantages,
    mask,
    *,
    low=0.2,
    high=0.28,
    dual_clip=None,
    cap=5.0,
    floor=0.0,
    mode="truncate",
    behavior_level="token",
    ratio_level="token",
    surrogate="ppo",
):
    """The formulas token by token on Python floats; returns a list over all tokens of all sequences."""
    out, start = [], 0
    for length in LENGTHS:
        tokens = range(start, start + length)
        start += length
        used = [t for t in tokens if mask[t]]
        for t in tokens:
            if not mask[t]:
                out.append(0.0)
                continue
            log_r, log_w, a = policy[t] - proximal[t], proximal[t] - behavior[t], advantages[t]
            if ratio_level == "sequence":
                log_r = sum(policy[u] - proximal[u] for u in used) / len(used)
                a = sum(advantages[u] for u in used) / len(used)
            if behavior_level == "sequence":
                log_w = sum(proximal[u] - behavior[u] for u in used) / len(used)
            r, w = math.exp(log_r), math.exp(log_w)
            if mode == "truncate":
                w = min(max(w, floor), cap)
            elif not floor <= w <= cap:
                w = 0.0
            clipped = min(max(r, 1 - low), 1 + high)
            loss = max(-a * r, -a * clipped) if surrogate == "ppo" else -clipped * a * policy[t]
            if dual_clip is not None and a < 0:
                loss = min(loss, -a * dual_clip)
            out.append(w * loss)
    return out


VARIANTS = [
    {},
    {"eps_clip": 0.1, "eps_clip_higher": 0.5},
    {"dual_clip": 1.5},
    {"behavior_cap": 1.3},
    {"behavior_cap": 2.0, "behavior_floor": 0.8},
    {"behavior_mode": "mask", "behavior_cap": 1.5},
    {"behavior_mode": "mask", "behavior_cap": 1.5, "behavior_floor": 0.7},
    {"behavior_level": "sequence", "behavior_cap": 1.1},
    {"behavior_level": "sequence", "behavior_mode": "mask", "behavior_cap": 1.1},
    {"ratio_level": "sequence"},
    {"ratio_level": "sequence", "behavior_level": "sequence", "dual_clip": 1.1},
    {"surrogate": "cispo"},
]
SLOW_NAMES = {
    "eps_clip": "low",
    "eps_clip_higher": "high",
    "behavior_cap": "cap",
    "behavior_floor": "floor",
    "behavior_mode": "mode",
}


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_variant_equals_the_slow_loop_packed_and_padded(options, seed):
    *tensors, mask, cu_seqlens = make_batch(seed)
    slow = slow_loss(
        *(t.tolist() for t in tensors),
        mask.tolist(),
        **{SLOW_NAMES.get(key, key): value for key, value in options.items()},
    )
    wanted = torch.tensor(slow, dtype=torch.float64)
    packed, stats = decoupled_ppo_loss(*tensors, mask, cu_seqlens=cu_seqlens, **options)
    padded, padded_stats = decoupled_ppo_loss(*map(pad, tensors), pad(mask), **options)
    torch.testing.assert_close(packed, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(unpad(padded), wanted, rtol=1e-12, atol=1e-12)
    assert padded.isfinite().all()
    for name, value in stats.items():
        torch.testing.assert_close(unpad(padded_stats[name]), value, rtol=1e-12, atol=1e-12, msg=name)
        assert not value[mask == 0].any(), name
        assert not value.requires_grad


def test_the_arithmetic_of_one_token():
    """r = e^0.4 = 1.4918 is clipped to 1.28 for A > 0; w = e^2 = 7.39 is truncated to 5."""
    policy, proximal, behavior = (torch.tensor([x], dtype=torch.float64) for x in (-0.6, -1.0, -3.0))
    advantage, mask = torch.tensor([0.75], dtype=torch.float64), torch.ones(1)
    loss, stats = decoupled_ppo_loss(policy, proximal, behavior, advantage, mask)
    assert loss.item() == pytest.approx(5.0 * -0.75 * 1.28, rel=1e-9)
    assert (stats["clipped_high"], stats["behavior_capped"]) == (True, True)
    loss, stats = decoupled_ppo_loss(policy, proximal, behavior, -advantage, mask, behavior_mode="mask")
    assert (loss.item(), stats["clipped_high"].item()) == (0.0, False)
    loss, _ = decoupled_ppo_loss(policy, proximal, behavior, -advantage, mask, dual_clip=1.2)
    assert loss.item() == pytest.approx(5.0 * 0.75 * 1.2, rel=1e-9)


def test_the_gradient_flows_through_the_policy_alone():
    *tensors, mask, cu_seqlens = make_batch()
    leaves = [t.requires_grad_() for t in tensors]
    loss, _ = decoupled_ppo_loss(*leaves, mask, cu_seqlens=cu_seqlens)
    loss.sum().backward()
    assert leaves[0].grad.count_nonzero() > 0
    assert leaves[0].grad[mask == 0].count_nonzero() == 0
    assert [leaf.grad for leaf in leaves[1:]] == [None] * 3


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_gradient_equals_finite_differences(options):
    policy, *others, mask, cu_seqlens = make_batch(seed=3, spread=0.3)
    policy.requires_grad_()
    if options.get("surrogate") == "cispo":  # its clipped ratio is a constant by definition
        loss, stats = decoupled_ppo_loss(policy, *others, mask, cu_seqlens=cu_seqlens, **options)
        (grad,) = torch.autograd.grad(loss.sum(), policy)
        weight = stats["behavior_weight"] * stats["ratio"].clamp(0.8, 1.28) * (mask > 0)
        torch.testing.assert_close(grad, -weight * others[2], rtol=1e-12, atol=1e-12)
        return

    def summed(p):
        return decoupled_ppo_loss(p, *others, mask, cu_seqlens=cu_seqlens, **options)[0]

    assert torch.autograd.gradcheck(summed, policy)


def test_a_clipped_token_has_no_gradient_in_ppo_and_a_bounded_one_in_cispo():
    policy = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1)
    for surrogate, wanted in (("ppo", 0.0), ("cispo", -1.28)):
        loss, _ = decoupled_ppo_loss(policy, zero, zero, one, one, surrogate=surrogate)
        assert torch.autograd.grad(loss.sum(), policy)[0].item() == pytest.approx(wanted)


def test_first_minibatch_has_the_plain_policy_gradient():
    """At policy == proximal the ratio is 1, the two branches tie, and the gradient is -w A in full."""
    _, proximal, behavior, advantages, mask, _ = make_batch()
    policy = proximal.clone().requires_grad_()
    loss, stats = decoupled_ppo_loss(policy, proximal, behavior, advantages, mask)
    (grad,) = torch.autograd.grad(loss.sum(), policy)
    torch.testing.assert_close(grad, -stats["behavior_weight"] * advantages * mask)


def test_sequence_ratio_spreads_one_gradient_over_its_tokens():
    """GSPO: d s_i / d log pi_t = s_i / |y_i| for each of the sequence's loss tokens."""
    policy, proximal, behavior, advantages, mask, cu = make_batch(seed=5, spread=0.05)
    policy.requires_grad_()
    loss, stats = decoupled_ppo_loss(
        policy, proximal, behavior, advantages, mask, cu_seqlens=cu, ratio_level="sequence"
    )
    first = slice(0, LENGTHS[0])
    (grad,) = torch.autograd.grad(loss[first].sum(), policy)
    assert stats["ratio"][2:5].unique().numel() == 1
    used = [2, 3, 4]
    w, s, a = stats["behavior_weight"][used], stats["ratio"][2], advantages[used].mean()
    torch.testing.assert_close(grad[used], (-a * s * w.sum() / 3).expand(3))
    assert grad[5:].count_nonzero() == 0


def test_coupled_loss_has_weight_one():
    policy, proximal, _, advantages, mask, _ = make_batch()
    _, stats = decoupled_ppo_loss(policy, proximal, proximal, advantages, mask)
    assert torch.equal(stats["behavior_weight"], mask.double())


def test_extreme_ratios_stay_finite_and_a_zero_advantage_stays_zero():
    policy = torch.tensor([0.0, 0.0, -900.0], requires_grad=True)
    proximal, behavior = torch.tensor([-900.0, -900.0, 0.0]), torch.tensor([-1800.0, 0.0, -900.0])
    loss, stats = decoupled_ppo_loss(
        policy, proximal, behavior, torch.tensor([0.0, -1.0, -1.0]), torch.ones(3)
    )
    loss.sum().backward()
    assert loss[0] == 0
    assert loss.isfinite().all()
    assert policy.grad.isfinite().all()
    assert stats["ratio"].max() == pytest.approx(math.exp(MAX_LOG_RATIO), rel=1e-6)


def test_nan_inside_the_mask_is_not_hidden():
    ones = torch.ones(2)
    loss, _ = decoupled_ppo_loss(torch.tensor([math.nan, 0.0]), ones, ones, ones, ones)
    assert loss.isnan().tolist() == [True, False]


def test_half_precision_is_raised_to_float32():
    *tensors, mask, _ = make_batch()
    loss, _ = decoupled_ppo_loss(*(t.bfloat16() for t in tensors), mask)
    assert loss.dtype == torch.float32


def test_truncation_and_masking_differ_only_beyond_the_bounds():
    _, proximal, behavior, _, mask, _ = make_batch()
    kept, capped, floored = behavior_weight(proximal, behavior, mask, cap=1.5, floor=0.5)
    dropped, _, _ = behavior_weight(proximal, behavior, mask, cap=1.5, floor=0.5, mode="mask")
    outside = capped | floored
    assert capped.any()
    assert floored.any()
    assert (kept[capped] == 1.5).all()
    assert (kept[floored] == 0.5).all()
    assert not dropped[outside].any()
    assert torch.equal(kept[~outside], dropped[~outside])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"behavior_cap": None}, "behavior_cap = null"),
        ({"behavior_cap": 0.5}, "behavior_cap = 0.5"),
        ({"behavior_cap": math.inf}, "behavior_cap = inf"),
        ({"behavior_floor": 1.5, "behavior_mode": "mask"}, "behavior_floor = 1.5"),
        ({"behavior_mode": "clamp"}, "behavior_mode = 'clamp'"),
        ({"ratio_level": "seq"}, "ratio_level = 'seq'"),
        ({"surrogate": "cispo", "dual_clip": 3.0}, "dual_clip None"),
        ({"dual_clip": 1.0}, "dual_clip = 1.0"),
        ({"ratio_level": "sequence"}, "cu_seqlens"),
    ],
    ids=str,
)
def test_wrong_calls_are_refused(options, message):
    *tensors, mask, _ = make_batch()
    with pytest.raises(ValueError, match=message):
        decoupled_ppo_loss(*tensors, mask, **options)


def test_shapes_that_differ_are_named():
    *tensors, mask, _ = make_batch()
    with pytest.raises(ValueError, match=r"loss_mask has shape \(4,\)"):
        decoupled_ppo_loss(*tensors, mask[:4])


@pytest.mark.parametrize("surrogate", ["ppo", "cispo"])
def test_what_the_statistics_say_token_by_token(surrogate):
    """r and w on, below and above their bounds, with A of either sign and 0; the last token does not count."""
    low, high = 1 - 0.2, 1 + 0.28
    ratios = torch.tensor([0.5, 0.5, 0.5, 2.0, 2.0, 2.0, 1.0, low, high, 0.5], dtype=torch.float64)
    advantages = torch.tensor([1.0, -1, 0, 1, -1, 0, 1, -1, 1, -1], dtype=torch.float64)
    weights = torch.tensor([0.1, 6.0, 1.0, 1, 1, 1, 1, 1, 1, 9.0], dtype=torch.float64)
    mask = torch.tensor([1] * 9 + [0])
    proximal = torch.full((10,), -1.0, dtype=torch.float64)
    tensors = (proximal + ratios.log(), proximal, proximal - weights.log(), advantages)
    _, stats = decoupled_ppo_loss(*tensors, mask, surrogate=surrogate, behavior_floor=0.5)
    is_ppo = surrogate == "ppo"  # where the clip decides; cispo clips the weight whatever the sign
    wanted = {
        "clipped_low": [1] if is_ppo else [0, 1, 2],
        "clipped_high": [3] if is_ppo else [3, 4, 5],
        "behavior_capped": [1],
        "behavior_floored": [0],
        "dual_clipped": [],
    }
    assert {name: stats[name].nonzero().flatten().tolist() for name in wanted} == wanted
    torch.testing.assert_close(stats["ratio"], ratios * mask)
    torch.testing.assert_close(stats["log_ratio"], ratios.log() * mask)
    torch.testing.assert_close(stats["behavior_log_ratio"], weights.log() * mask)
    torch.testing.assert_close(stats["behavior_weight"], weights.clamp(0.5, 5.0) * mask)


def test_dual_clip_is_for_bad_tokens_beyond_the_bound():
    """r = 2 and 4 against 3: only the token with A < 0 and r > 3 meets the bound."""
    ratios = torch.tensor([2.0, 4.0, 4.0], dtype=torch.float64)
    advantages = torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)
    zero, mask = torch.zeros(3, dtype=torch.float64), torch.ones(3)
    loss, stats = decoupled_ppo_loss(ratios.log(), zero, zero, advantages, mask, dual_clip=3.0)
    assert stats["dual_clipped"].tolist() == [False, True, False]
    torch.testing.assert_close(loss, torch.tensor([2.0, 3.0, -1.28], dtype=torch.float64))


def test_the_bounds_themselves_are_inside():
    one = torch.zeros(1, dtype=torch.float64)
    for cap, floor in ((1.0, 0.0), (5.0, 1.0)):
        weight, capped, floored = behavior_weight(one, one, torch.ones(1), cap=cap, floor=floor, mode="mask")
        assert (weight.item(), capped.item(), floored.item()) == (1.0, False, False)
    weight, _, _ = behavior_weight(one, one - 1.7, torch.ones(1))
    assert weight.item() == 5.0, "e^1.7 = 5.47: the recipe's cap"
