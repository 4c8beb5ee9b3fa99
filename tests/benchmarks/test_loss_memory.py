"""The memory benchmark: its forms compute the same thing, and the chunked one needs less memory."""

import pytest
import torch

from benchmarks import loss_memory


def test_all_forms_agree():
    torch.manual_seed(0)
    logits = torch.randn(40, 300).bfloat16().requires_grad_()
    labels = torch.randint(300, (40,))
    results = {}
    for name, form in loss_memory.forms().items():
        logprobs, entropy = form(logits, labels)
        (grad,) = torch.autograd.grad(logprobs.sum() + entropy.sum(), logits)
        results[name] = (logprobs.detach(), entropy.detach(), grad)
    for name, values in results.items():
        for value, reference in zip(values, results["direct"], strict=True):
            torch.testing.assert_close(value, reference, rtol=1e-2, atol=1e-4, msg=name)


def test_the_chunked_form_needs_little_more_than_the_gradient(monkeypatch):
    monkeypatch.setattr(loss_memory, "CHUNK_SIZES", (16,))
    ballast = torch.ones(150_000_000)  # the parent's memory must not hide the child's
    results = {r["form"]: r for r in loss_memory.run(["cpu"], tokens=512, vocab_size=40_000, repeats=1)}
    del ballast
    assert set(results) == {"direct", "piecewise", "chunked 16"}
    logits_mib = results["direct"]["logits_mib"]
    assert logits_mib == pytest.approx(512 * 40_000 * 2 / 2**20)
    assert results["direct"]["peak_over_logits_mib"] > 5 * logits_mib
    assert results["chunked 16"]["peak_over_logits_mib"] < 2 * logits_mib
    table = loss_memory.table(list(results.values()))
    assert "| cpu | chunked 16 | 512 |" in table
