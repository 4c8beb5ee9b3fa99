"""The gradient of a step does not depend on how its batch is cut into micro-batches and ranks."""

import pytest
import torch

from utils.functional import aggregate_loss, decoupled_ppo_loss, loss_denominator

NUM_SEQUENCES, LONGEST, VOCAB, HIDDEN = 14, 9, 11, 4
MAX_TOKENS = 12
OPTIONS = {
    "token-mean": {},
    "sequence-mean": {"ratio_level": "sequence", "behavior_level": "sequence"},
    "constant": {"behavior_mode": "mask", "behavior_cap": 1.5},
}


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(11)
    lengths = torch.randint(2, LONGEST + 1, (NUM_SEQUENCES,))
    shape = (NUM_SEQUENCES, LONGEST)
    positions = torch.arange(LONGEST).expand(shape)
    mask = (positions < lengths[:, None]) & (positions >= 1)
    mask[3] = False  # a sequence without any loss token
    return {
        "hidden": torch.randn(*shape, HIDDEN, dtype=torch.float64),
        "labels": torch.randint(VOCAB, shape),
        "proximal": -2.4 + 0.3 * torch.randn(shape, dtype=torch.float64),
        "behavior": -2.4 + 0.5 * torch.randn(shape, dtype=torch.float64),
        "advantages": torch.randn(NUM_SEQUENCES, 1, dtype=torch.float64).expand(shape),
        "mask": mask,
        "lengths": lengths,
    }


def pack(rows):
    """[batch, seq, ...] tensors of some sequences to [tokens, ...], and cu_seqlens."""
    keep = torch.arange(LONGEST) < rows["lengths"][:, None]
    packed = {name: value[keep] for name, value in rows.items() if name != "lengths"}
    zero = torch.zeros(1, dtype=torch.int64)
    return packed, torch.cat([zero, rows["lengths"].cumsum(0)]).int()


def step_gradient(batch, mode, num_micro_batches, num_ranks, packed):
    """The gradient as the engine forms it: each loss scaled by weight / total, summed over the ranks."""
    weight = torch.randn(HIDDEN, VOCAB, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight.requires_grad_()
    micro_batches = []
    for rank in range(num_ranks):
        for rows in torch.arange(rank, NUM_SEQUENCES, num_ranks).tensor_split(num_micro_batches):
            cut = {name: value[rows] for name, value in batch.items()}
            micro_batches.append(pack(cut) if packed else (cut, None))

    kwargs = {"max_tokens": MAX_TOKENS} if mode == "constant" else {}
    total = sum(loss_denominator(mb["mask"], mode, cu_seqlens=cu, **kwargs) for mb, cu in micro_batches)
    for mb, cu in micro_batches:
        logits = mb["hidden"] @ weight
        policy = logits.log_softmax(-1).gather(-1, mb["labels"][..., None]).squeeze(-1)
        per_token, _ = decoupled_ppo_loss(
            policy,
            mb["proximal"],
            mb["behavior"],
            mb["advantages"],
            mb["mask"],
            cu_seqlens=cu,
            **OPTIONS[mode],
        )
        own = loss_denominator(mb["mask"], mode, cu_seqlens=cu, **kwargs)
        if own == 0:  # the engine skips such a micro-batch too
            continue
        loss = aggregate_loss(per_token, mb["mask"], mode, denominator=own, cu_seqlens=cu)
        (loss * (own.double() / total.double())).backward()
    return weight.grad


@pytest.mark.parametrize("mode", OPTIONS)
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("num_micro_batches", [1, 2, 7])
def test_gradient_is_the_same_however_the_batch_is_cut(batch, mode, packed, num_ranks, num_micro_batches):
    whole = step_gradient(batch, mode, 1, 1, packed=False)
    cut = step_gradient(batch, mode, num_micro_batches, num_ranks, packed)
    assert whole.norm() > 1e-3
    torch.testing.assert_close(cut, whole, rtol=1e-12, atol=1e-14)


def test_the_mean_of_micro_batch_means_would_have_failed(batch):
    """The fault these denominators prevent is far above the tolerance used here."""
    mask = batch["mask"]
    loss = torch.randn(mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    whole = aggregate_loss(loss, mask, denominator=loss_denominator(mask))
    halves = [
        aggregate_loss(loss[rows], mask[rows], denominator=loss_denominator(mask[rows]))
        for rows in (slice(0, 3), slice(3, None))
    ]
    assert abs(sum(halves) / 2 - whole) > 1e-3


def test_aggregation_on_paper():
    """Two sequences with losses 1, 2, 3 and 10: 16/4, (2 + 10)/2, 16/(2 * 8)."""
    loss = torch.tensor([[1.0, 2.0, 3.0], [10.0, 99.0, float("nan")]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    wanted = {"token-mean": 4.0, "sequence-mean": 6.0, "constant": 1.0}
    for mode, value in wanted.items():
        denominator = loss_denominator(mask, mode, max_tokens=8)
        assert aggregate_loss(loss, mask, mode, denominator=denominator).item() == value


def test_denominators_are_counts():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    assert loss_denominator(mask).item() == 4
    assert loss_denominator(mask, "sequence-mean").item() == 2
    assert loss_denominator(mask, "constant", max_tokens=100).item() == 200
    packed, cu_seqlens = torch.tensor([1, 1, 1, 1, 0, 0]), torch.tensor([0, 3, 4, 6])
    assert loss_denominator(packed, "sequence-mean", cu_seqlens=cu_seqlens).item() == 2


def test_wrong_aggregations_are_refused():
    loss, mask = torch.ones(1, 2), torch.zeros(1, 2)
    with pytest.raises(ValueError, match=r"denominator is 0\.0"):
        aggregate_loss(loss, mask, denominator=loss_denominator(mask))
    with pytest.raises(ValueError, match="needs max_tokens > 0"):
        loss_denominator(mask, "constant")
    with pytest.raises(ValueError, match="'mean'; use"):
        loss_denominator(mask, "mean")
    with pytest.raises(ValueError, match="'mean'; use"):
        aggregate_loss(loss, mask, "mean", denominator=1)
    with pytest.raises(ValueError, match="pass cu_seqlens"):
        loss_denominator(torch.ones(3), "sequence-mean")
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        loss_denominator(mask, "sequence-mean", cu_seqlens=torch.tensor([0, 2]))


def test_the_constant_denominator_needs_a_limit_of_one_token_or_more():
    mask = torch.ones(2, 3)
    assert loss_denominator(mask, "constant", max_tokens=1) == 2
    for limit in (None, 0, -1):
        with pytest.raises(ValueError, match="needs max_tokens > 0"):
            loss_denominator(mask, "constant", max_tokens=limit)
