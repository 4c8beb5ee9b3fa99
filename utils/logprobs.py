"""Log-probabilities and entropy from logits, in pieces: no second full-vocabulary copy in float32.

At 6,144 tokens and a vocabulary of 151,936 the logits take 1.9 GB in bfloat16. The direct form,
`log_softmax(logits.float() / temperature)`, adds two float32 copies of 3.7 GB each and keeps one for the
backward pass. Here a piece of `chunk_size` tokens is raised to float32 at a time, only three numbers per
token are kept, and the backward pass recomputes the softmax of each piece straight into the gradient.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# Below every float32 log-probability that matters (exp underflows at -104); keeps 0 * -inf out of the sums.
LOWEST_LOGIT = -1e4


def logprobs_and_entropy(
    logits: Tensor,
    labels: Tensor,
    temperature: float = 1.0,
    chunk_size: int = 64,
    excluded: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    """Log-probability of each label and entropy of each distribution, both `[...]`, in nats.

        logprobs = logits[label] / T - logsumexp(logits / T)
        entropy  = -sum_v p_v log p_v,  p = softmax(logits / T)

    `logits` is `[..., vocab]` of any floating dtype, `labels` `[...]` holds token ids (already shifted: row t
    of the logits predicts `labels[t]`). `temperature` must be the sampling temperature, or trainer and
    rollout engine measure different policies. `chunk_size` is the number of tokens raised to float32 at a
    time: it bounds the scratch memory at 2 * chunk_size * vocab * 4 bytes and does not change the result.
    `excluded` are tokens that the rollout engine never draws (image and video pads): the distribution is
    the one over all others. The value at a label that is excluded itself is finite and means nothing.

    Both outputs are float32 (float64 for float64 logits) and differentiable once with respect to `logits`;
    the gradient has the dtype of `logits`. A logit of -inf is a token that cannot be drawn.

    Raises ValueError for shapes that do not fit or a temperature that is not positive.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} need labels {tuple(logits.shape[:-1])}, got {tuple(labels.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be positive (greedy text has no policy)")
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it must be at least 1")
    flat = logits.reshape(-1, logits.shape[-1])
    never = torch.tensor(list(excluded), dtype=torch.int64, device=logits.device)
    logprobs, entropy = _LogprobsAndEntropy.apply(flat, labels.reshape(-1), temperature, chunk_size, never)
    return logprobs.view(labels.shape), entropy.view(labels.shape)


class _LogprobsAndEntropy(torch.autograd.Function):
    """With p = softmax(x), x = logits / T, H the entropy and y the label:

    d logprob / d x_v = [v = y] - p_v            d H / d x_v = -p_v (log p_v + H)
    """

    @staticmethod
    def forward(ctx, *args):
        logits, labels, temperature, chunk_size, never = args
        ctx.set_materialize_grads(False)
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        highest, log_sum, logprobs, entropy = (
            torch.empty(len(labels), dtype=dtype, device=logits.device) for _ in range(4)
        )
        scratch = _scratch(logits, dtype, chunk_size)
        for rows in _pieces(len(labels), chunk_size):
            x, exp_x = (buffer[: len(labels[rows])] for buffer in scratch)
            x.copy_(logits[rows]).div_(temperature)
            picked = x.gather(-1, labels[rows, None]).squeeze(-1)
            highest[rows] = x.index_fill_(-1, never, -torch.inf).amax(-1)
            x.sub_(highest[rows, None])
            torch.exp(x.clamp_(min=LOWEST_LOGIT), out=exp_x)
            total = exp_x.sum(-1)
            log_sum[rows] = total.log()
            logprobs[rows] = picked - highest[rows] - log_sum[rows]
            entropy[rows] = log_sum[rows] - exp_x.mul_(x).sum(-1) / total
        ctx.save_for_backward(logits, labels, highest, log_sum, entropy, never)
        ctx.temperature, ctx.chunk_size = temperature, chunk_size
        return logprobs, entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_logprobs: Tensor | None, grad_entropy: Tensor | None):
        if grad_logprobs is None and grad_entropy is None:
            return None, None, None, None, None
        logits, labels, highest, log_sum, entropy, never = ctx.saved_tensors
        grad_logits = torch.empty_like(logits)
        scratch = _scratch(logits, entropy.dtype, ctx.chunk_size)
        for rows in _pieces(len(labels), ctx.chunk_size):
            log_p, p = (buffer[: len(labels[rows])] for buffer in scratch)
            log_p.copy_(logits[rows]).div_(ctx.temperature)
            log_p.sub_(highest[rows, None]).sub_(log_sum[rows, None]).clamp_(min=LOWEST_LOGIT)
            torch.exp(log_p, out=p).index_fill_(-1, never, 0.0)
            if grad_entropy is None:
                grad = p.mul_(-grad_logprobs[rows, None])
            else:
                factor = log_p.add_(entropy[rows, None]).mul_(grad_entropy[rows, None])
                if grad_logprobs is not None:
                    factor.add_(grad_logprobs[rows, None])
                grad = p.mul_(factor).neg_()
            if grad_logprobs is not None:
                grad.scatter_add_(-1, labels[rows, None], grad_logprobs[rows, None])
            grad_logits[rows] = grad.div_(ctx.temperature)
        return grad_logits, None, None, None, None


def _scratch(logits: Tensor, dtype: torch.dtype, chunk_size: int) -> tuple[Tensor, Tensor]:
    """Two buffers for a piece, used again for every piece: on CPU fresh ones cost more than the arithmetic."""
    shape = (min(chunk_size, len(logits)), logits.shape[-1])
    return tuple(torch.empty(shape, dtype=dtype, device=logits.device) for _ in range(2))


def _pieces(length: int, chunk_size: int) -> list[slice]:
    return [slice(start, start + chunk_size) for start in range(0, length, chunk_size)]
