"""The memory benchmark: its forms compute the same thing, and the one by blocks needs little memory."""

import pytest
import torch

from benchmarks import loss_memory


def test_all_forms_agree():
    torch.manual_seed(0)
    hidden, weight = (torch.randn(n, 20).bfloat16().requires_grad_() for n in (40, 300))
    labels = torch.randint(300, (40,))
    results = {}
    for name, form in loss_memory.forms().items():
        logprobs, entropy = form(hidden, weight, labels)
        grads = torch.autograd.grad(logprobs.sum() + entropy.sum(), (hidden, weight))
        results[name] = (logprobs.detach(), entropy.detach(), *grads)
    for name, values in results.items():
        for value, reference in zip(values, results["direct"], strict=True):
            torch.testing.assert_close(value, reference, rtol=3e-2, atol=3e-2, msg=name)


@pytest.mark.long
def test_the_form_by_blocks_needs_a_fraction_of_the_logits(monkeypatch):
    monkeypatch.setattr(loss_memory, "BLOCK_SIZES", (512,))
    ballast = torch.ones(150_000_000)  # the parent's memory must not hide the child's
    results = {r["form"]: r for r in loss_memory.run(["cpu"], tokens=1024, vocab_size=80_000, repeats=1)}
    del ballast
    assert set(results) == {"direct", "piecewise", "blocks of 512"}
    logits_mib = results["direct"]["logits_mib"]
    assert logits_mib == pytest.approx(1024 * 80_000 * 2 / 2**20)
    assert results["direct"]["peak_mib"] > 5 * logits_mib
    assert results["blocks of 512"]["peak_mib"] < 0.5 * logits_mib
    assert "| cpu | blocks of 512 | 1024 |" in loss_memory.table(list(results.values()))
