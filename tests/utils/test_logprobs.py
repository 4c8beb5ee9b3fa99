"""Chunked log-probabilities and entropy: the value and gradient of the direct form."""

import math

import pytest
import torch

from utils.logprobs import logprobs_and_entropy


def direct(logits, labels, temperature):
    log_p = (logits / temperature).log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return log_p.gather(-1, labels[..., None]).squeeze(-1), entropy


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("chunk_size", [1, 3, 1000])
@pytest.mark.parametrize("shape", [(13,), (3, 5)])
def test_equals_the_direct_form_in_float64(temperature, chunk_size, shape):
    torch.manual_seed(0)
    logits = (4 * torch.randn(*shape, 37, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(37, shape)
    probe = torch.randn(2, *shape, dtype=torch.float64)

    ours = logprobs_and_entropy(logits, labels, temperature, chunk_size)
    wanted = direct(logits, labels, temperature)
    for value, reference in zip(ours, wanted, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-12, atol=1e-12)

    for weights in (probe, probe * torch.tensor([1, 0]).view(2, *[1] * len(shape))):
        (grad,) = torch.autograd.grad((torch.stack(ours) * weights).sum(), logits, retain_graph=True)
        (reference,) = torch.autograd.grad((torch.stack(wanted) * weights).sum(), logits, retain_graph=True)
        torch.testing.assert_close(grad, reference, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("output", [0, 1], ids=["logprobs", "entropy"])
def test_either_output_alone_has_the_right_gradient(output):
    torch.manual_seed(1)
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(6, (4,))
    assert torch.autograd.gradcheck(lambda x: logprobs_and_entropy(x, labels, 0.8, 3)[output], logits)


def test_two_tokens_on_paper():
    """Logits (ln 3, 0) at T = 1: p = (3/4, 1/4), H = ln 4 - 3/4 ln 3. At T = 0.5: p = (9/10, 1/10)."""
    logits, labels = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64), torch.tensor([0])
    logprobs, entropy = logprobs_and_entropy(logits, labels)
    assert logprobs.item() == pytest.approx(math.log(0.75))
    assert entropy.item() == pytest.approx(math.log(4) - 0.75 * math.log(3))
    assert logprobs_and_entropy(logits, labels, 0.5)[0].item() == pytest.approx(math.log(0.9))


def test_large_logits_keep_float32_accuracy():
    torch.manual_seed(2)
    logits, labels = 1e3 + 30 * torch.randn(8, 1000), torch.randint(1000, (8,))
    wanted = direct(logits.double(), labels, 1.0)
    for value, reference in zip(logprobs_and_entropy(logits, labels), wanted, strict=True):
        torch.testing.assert_close(value.double(), reference, rtol=1e-5, atol=1e-5)


def test_bfloat16_logits_give_float32_values_and_bfloat16_gradients():
    torch.manual_seed(3)
    logits = (3 * torch.randn(9, 50)).bfloat16().requires_grad_()
    labels = torch.randint(50, (9,))
    logprobs, entropy = logprobs_and_entropy(logits, labels, chunk_size=4)
    wanted = direct(logits.double(), labels, 1.0)
    torch.testing.assert_close(logprobs.double(), wanted[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(entropy.double(), wanted[1], rtol=1e-5, atol=1e-6)
    (grad,) = torch.autograd.grad(logprobs.sum(), logits)
    (reference,) = torch.autograd.grad(wanted[0].sum(), logits)
    assert grad.dtype == torch.bfloat16
    torch.testing.assert_close(grad, reference, rtol=1e-2, atol=1e-4)


def test_suppressed_tokens_do_not_poison_the_entropy_or_the_gradient():
    logits = torch.tensor([[0.0, 1.0, -math.inf]], requires_grad=True)
    logprobs, entropy = logprobs_and_entropy(logits, torch.tensor([1]))
    small = logprobs_and_entropy(logits[:, :2], torch.tensor([1]))
    torch.testing.assert_close((logprobs, entropy), small)
    (logprobs + entropy).sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 2] == 0
    assert logprobs_and_entropy(logits, torch.tensor([2]))[0].item() == -math.inf


def test_excluded_tokens_are_as_if_they_were_not_there():
    """Columns 2 and 5, one of them by far the largest logit, change neither value nor gradient."""
    torch.manual_seed(5)
    logits = torch.randn(6, 9, dtype=torch.float64)
    logits[:, 5] = 800.0
    logits.requires_grad_()
    kept = [v for v in range(9) if v not in (2, 5)]
    labels = torch.tensor([0, 1, 3, 4, 6, 8])
    small = logits[:, kept]
    wanted = logprobs_and_entropy(small, torch.tensor([kept.index(y) for y in labels]), 0.7)
    ours = logprobs_and_entropy(logits, labels, 0.7, 4, excluded=(2, 5))
    torch.testing.assert_close(ours, wanted)
    grads = [torch.autograd.grad((a * b.detach()).sum() + b.sum(), logits)[0] for a, b in (ours, wanted)]
    torch.testing.assert_close(*grads)
    assert not grads[0][:, [2, 5]].any()
    at_excluded, _ = logprobs_and_entropy(logits, torch.full((6,), 5), excluded=(2, 5))
    assert at_excluded.isfinite().all()


def test_the_logits_are_left_as_they_were():
    logits = torch.randn(5, 7)
    before = logits.clone()
    logprobs_and_entropy(logits, torch.zeros(5, dtype=torch.int64), 0.5, 2)
    assert torch.equal(logits, before)


def test_an_empty_batch_is_allowed():
    logprobs, entropy = logprobs_and_entropy(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
    assert logprobs.shape == entropy.shape == (0,)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (torch.zeros(4, dtype=torch.int64), {}, r"need labels \(3,\)"),
        (torch.zeros(3, dtype=torch.int64), {"temperature": 0.0}, "temperature is 0"),
        (torch.zeros(3, dtype=torch.int64), {"chunk_size": 0}, "chunk_size is 0"),
    ],
)
def test_wrong_calls_are_refused(labels, options, message):
    with pytest.raises(ValueError, match=message):
        logprobs_and_entropy(torch.zeros(3, 5), labels, **options)


def test_equals_areal():
    areal = pytest.importorskip("areal.utils.functional.vocab_parallel")
    torch.manual_seed(4)
    logits, labels = 3 * torch.randn(20, 64), torch.randint(64, (20,))
    compiled = areal._gather_logprobs_entropy
    plain = getattr(compiled, "_torchdynamo_orig_callable", compiled)
    for value, reference in zip(
        logprobs_and_entropy(logits, labels, 0.7), plain(logits, labels, 0.7), strict=True
    ):
        torch.testing.assert_close(value, reference, rtol=2e-6, atol=2e-6)
