"""Log-probabilities and entropy by blocks of the vocabulary: the value and gradients of the direct form."""

import math

import pytest
import torch

from utils.logprobs import logprobs_and_entropy, squared_probabilities


def direct(logits, labels, temperature):
    log_p = (logits / temperature).log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return log_p.gather(-1, labels[..., None]).squeeze(-1), entropy


def of_logits(logits, labels, temperature=1.0, block_size=2048, excluded=()):
    """Through an output layer that hands on what it gets."""
    weight = torch.eye(logits.shape[-1], dtype=logits.dtype)
    return logprobs_and_entropy(
        logits, weight, labels, temperature=temperature, excluded=excluded, block_size=block_size
    )


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("block_size", [1, 5, 1000])
def test_equals_the_direct_form_in_float64(temperature, block_size):
    torch.manual_seed(0)
    hidden = torch.randn(13, 7, dtype=torch.float64, requires_grad=True)
    weight = (2 * torch.randn(37, 7, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(37, (13,))
    probe = torch.randn(2, 13, dtype=torch.float64)

    ours = logprobs_and_entropy(hidden, weight, labels, temperature=temperature, block_size=block_size)
    wanted = direct(hidden @ weight.T, labels, temperature)
    for value, reference in zip(ours, wanted, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-12, atol=1e-12)

    for weights in (probe, probe * torch.tensor([[1], [0]])):
        inputs = (hidden, weight)
        grads = torch.autograd.grad((torch.stack(ours) * weights).sum(), inputs, retain_graph=True)
        references = torch.autograd.grad((torch.stack(wanted) * weights).sum(), inputs, retain_graph=True)
        for grad, reference in zip(grads, references, strict=True):
            torch.testing.assert_close(grad, reference, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_a_frozen_side_gets_no_gradient(frozen):
    sides = {"hidden": torch.randn(3, 4), "weight": torch.randn(9, 4)}
    for name, side in sides.items():
        side.requires_grad_(name != frozen)
    logprobs_and_entropy(**sides, labels=torch.tensor([0, 8, 3]))[0].sum().backward()
    assert sides[frozen].grad is None
    other = next(side for name, side in sides.items() if name != frozen)
    assert other.grad.abs().sum() > 0


@pytest.mark.parametrize("output", [0, 1], ids=["logprobs", "entropy"])
def test_either_output_alone_has_the_right_gradient(output):
    torch.manual_seed(1)
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(6, (4,))
    assert torch.autograd.gradcheck(lambda x: of_logits(x, labels, 0.8, 3)[output], logits)


def test_two_tokens_on_paper():
    """Logits (ln 3, 0) at T = 1: p = (3/4, 1/4), H = ln 4 - 3/4 ln 3. At T = 0.5: p = (9/10, 1/10)."""
    logits, labels = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64), torch.tensor([0])
    logprobs, entropy = of_logits(logits, labels)
    assert logprobs.item() == pytest.approx(math.log(0.75))
    assert entropy.item() == pytest.approx(math.log(4) - 0.75 * math.log(3))
    assert of_logits(logits, labels, 0.5)[0].item() == pytest.approx(math.log(0.9))


def test_large_logits_keep_float32_accuracy():
    torch.manual_seed(2)
    logits, labels = 1e3 + 30 * torch.randn(8, 1000), torch.randint(1000, (8,))
    wanted = direct(logits.double(), labels, 1.0)
    for value, reference in zip(of_logits(logits, labels), wanted, strict=True):
        torch.testing.assert_close(value.double(), reference, rtol=1e-5, atol=1e-5)


def test_bfloat16_logits_give_float32_values_and_bfloat16_gradients():
    torch.manual_seed(3)
    logits = (3 * torch.randn(9, 50)).bfloat16().requires_grad_()
    labels = torch.randint(50, (9,))
    logprobs, entropy = of_logits(logits, labels, block_size=4)
    wanted = direct(logits.double(), labels, 1.0)
    torch.testing.assert_close(logprobs.double(), wanted[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(entropy.double(), wanted[1], rtol=1e-5, atol=1e-6)
    (grad,) = torch.autograd.grad(logprobs.sum(), logits)
    (reference,) = torch.autograd.grad(wanted[0].sum(), logits)
    assert grad.dtype == torch.bfloat16
    torch.testing.assert_close(grad, reference, rtol=1e-2, atol=1e-4)


def test_excluded_tokens_are_as_if_they_were_not_there():
    """Columns 2 and 5, one of them by far the largest logit, change neither value nor gradient."""
    torch.manual_seed(5)
    logits = torch.randn(6, 9, dtype=torch.float64)
    logits[:, 5] = 800.0
    logits.requires_grad_()
    kept = [v for v in range(9) if v not in (2, 5)]
    labels = torch.tensor([0, 1, 3, 4, 6, 8])
    small = logits[:, kept]
    wanted = of_logits(small, torch.tensor([kept.index(y) for y in labels]), 0.7)
    ours = of_logits(logits, labels, 0.7, 4, excluded=(2, 5))
    torch.testing.assert_close(ours, wanted)
    grads = [torch.autograd.grad((a * b.detach()).sum() + b.sum(), logits)[0] for a, b in (ours, wanted)]
    torch.testing.assert_close(*grads)
    assert not grads[0][:, [2, 5]].any()
    at_excluded, _ = of_logits(logits, torch.full((6,), 5), excluded=(2, 5))
    assert at_excluded.isfinite().all()


def test_the_inputs_are_left_as_they_were():
    hidden, weight = torch.randn(5, 7), torch.randn(11, 7)
    before = hidden.clone(), weight.clone()
    logprobs_and_entropy(hidden, weight, torch.zeros(5, dtype=torch.int64), temperature=0.5, block_size=2)
    assert torch.equal(hidden, before[0])
    assert torch.equal(weight, before[1])


def test_an_empty_batch_is_allowed():
    logprobs, entropy = of_logits(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
    assert logprobs.shape == entropy.shape == (0,)


def test_a_first_block_of_excluded_tokens_alone():
    ours = of_logits(torch.tensor([[9.0, 9.0, 1.0, 2.0]]), torch.tensor([3]), block_size=2, excluded=(0, 1))
    torch.testing.assert_close(ours, direct(torch.tensor([[1.0, 2.0]]), torch.tensor([1]), 1.0))


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (torch.zeros(4, dtype=torch.int64), {}, r"labels \[tokens\], got \(3, 5\), \(6, 5\) and \(4,\)"),
        (torch.zeros(3, dtype=torch.int64), {"temperature": 0.0}, "temperature is 0"),
        (torch.zeros(3, dtype=torch.int64), {"block_size": 0}, "block_size is 0"),
    ],
)
def test_wrong_calls_are_refused(labels, options, message):
    with pytest.raises(ValueError, match=message):
        logprobs_and_entropy(torch.zeros(3, 5), torch.zeros(6, 5), labels, **options)


def test_equals_areal():
    areal = pytest.importorskip("areal.utils.functional.vocab_parallel")
    torch.manual_seed(4)
    logits, labels = 3 * torch.randn(20, 64), torch.randint(64, (20,))
    compiled = areal._gather_logprobs_entropy
    plain = getattr(compiled, "_torchdynamo_orig_callable", compiled)
    for value, reference in zip(of_logits(logits, labels, 0.7), plain(logits, labels, 0.7), strict=True):
        torch.testing.assert_close(value, reference, rtol=2e-6, atol=2e-6)


def test_squared_probabilities_are_those_of_the_softmax_however_it_is_cut():
    generator = torch.Generator().manual_seed(5)
    hidden, weight = (torch.randn(n, 8, dtype=torch.float64, generator=generator) * 3 for n in (6, 21))
    logits = hidden @ weight.T / 0.7
    logits[:, [3, 20]] = -torch.inf
    wanted = logits.softmax(-1).square().sum(-1)
    for block_size in (1, 4, 100):
        found = squared_probabilities(
            hidden, weight, temperature=0.7, excluded=(3, 20), block_size=block_size
        )
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
