"""Peak memory and time of log-probabilities from hidden states: by blocks against the direct form, vocabulary 151,936.

    python -m benchmarks.loss_memory                       # CPU, and CUDA where there is one
    python -m benchmarks.loss_memory --tokens 6144 --device cuda --output loss_memory.json

Each form runs forward and backward (log-probability and entropy both with a gradient) in a process of its own, so that
no form inherits another's memory. The peak counts what comes on top of hidden states, output layer and their two
gradients: with the logits, where a form makes them. Forms:

- direct: logits, log_softmax of a float32 copy, entropy from it, everything kept by autograd,
- piecewise: the same from the logits on in pieces of 1,024 tokens under autograd, the way of AReaL 1.0.4 without its
  compiler: the scratch memory of a piece goes, what the backward pass needs of every piece stays,
- blocks of N: `utils.logprobs.logprobs_and_entropy` with N vocabulary entries at a time.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from utils.logprobs import logprobs_and_entropy

VOCAB_SIZE = 151_936
HIDDEN_SIZE = 128  # small, so that what is measured is the vocabulary's side
BLOCK_SIZES = (512, 1024, 4096)
MIB = 2**20


def direct(hidden: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy through one float32 log_softmax over all tokens."""
    return _of_logits(hidden @ weight.T, labels)


def _of_logits(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    log_p = logits.float().log_softmax(-1)
    return log_p.gather(-1, labels[:, None]).squeeze(-1), -(log_p.exp() * log_p).sum(-1)


def piecewise(hidden: Tensor, weight: Tensor, labels: Tensor, size: int = 1024) -> tuple[Tensor, Tensor]:
    """The direct form on `size` tokens at a time, each piece recorded by autograd."""
    logits = hidden @ weight.T
    parts = [_of_logits(logits[i : i + size], labels[i : i + size]) for i in range(0, len(labels), size)]
    logprobs, entropy = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropy)


def forms() -> dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]]:
    """Name of each form to measure, and the form."""
    blocks = {f"blocks of {size}": partial(logprobs_and_entropy, block_size=size) for size in BLOCK_SIZES}
    return {"direct": direct, "piecewise": piecewise} | blocks


def measure(name: str, device: str, tokens: int, vocab_size: int, repeats: int) -> dict:
    """Run one form forward and backward; its peak memory over inputs and gradients in MiB and median seconds."""
    torch.manual_seed(0)
    on_cuda = device == "cuda"
    if not on_cuda:
        torch.set_num_threads(1)
    hidden = torch.empty(tokens, HIDDEN_SIZE, dtype=torch.bfloat16, device=device).normal_()
    weight = torch.empty(vocab_size, HIDDEN_SIZE, dtype=torch.bfloat16, device=device).normal_(0, 0.3)
    labels = torch.randint(vocab_size, (tokens,), device=device)
    inputs = (hidden.requires_grad_(), weight.requires_grad_())
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    forms()[name](hidden[:1], weight[:2], labels[:1] * 0)[
        0
    ].sum().backward()  # load what loads at the first call
    hidden.grad = weight.grad = None
    before = _peak_bytes(device)
    seconds = []
    for _ in range(repeats):
        _synchronize(device)
        start = time.perf_counter()
        logprobs, entropy = forms()[name](*inputs, labels)
        # autograd.grad and not backward: a leaf's accumulation would add a copy that a model does not make.
        grads = torch.autograd.grad(logprobs.sum() + 1e-3 * entropy.sum(), inputs)
        _synchronize(device)
        seconds.append(time.perf_counter() - start)
        size = sum(grad.numel() * grad.element_size() for grad in grads)
        del logprobs, entropy, grads
    return {
        "form": name,
        "device": device,
        "tokens": tokens,
        "vocab_size": vocab_size,
        "logits_mib": tokens * vocab_size * 2 / MIB,
        "peak_mib": (_peak_bytes(device) - before - size) / MIB,
        "seconds": statistics.median(seconds),
    }


def _peak_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    # Not getrusage: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def run(devices: list[str], tokens: int, vocab_size: int = VOCAB_SIZE, repeats: int = 3) -> list[dict]:
    """Measure every form on every device, one fresh process each."""
    results = []
    for device in devices:
        for name in forms():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                results.append(pool.apply(measure, (name, device, tokens, vocab_size, repeats)))
    return results


def table(results: list[dict]) -> str:
    """Markdown table of `run`'s results."""
    lines = [
        "| device | form | tokens | peak, MiB | in logits' sizes | seconds |",
        "|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['device']} | {r['form']} | {r['tokens']} | {r['peak_mib']:,.0f} "
        f"| {r['peak_mib'] / r['logits_mib']:.2f} | {r['seconds']:.3f} |"
        for r in results
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1024, help="tokens in the batch (recipe: 6144)")
    parser.add_argument("--device", choices=["cpu", "cuda"], action="append", help="default: all there are")
    parser.add_argument("--repeats", type=int, default=3, help="runs per form; the median time is reported")
    parser.add_argument("--output", type=Path, help="also write the results as JSON")
    args = parser.parse_args()
    devices = args.device or ["cpu"] + ["cuda"] * torch.cuda.is_available()
    results = run(devices, args.tokens, repeats=args.repeats)
    print(table(results))
    if args.output:
        args.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
