"""Log-probabilities and entropy from hidden states, by blocks of the vocabulary: logits never exist as a whole.

At 6,144 tokens and a vocabulary of 151,936 the logits take 1.9 GB in bfloat16, their gradient as much again, and the
direct form, `log_softmax(logits.float() / temperature)`, adds float32 copies of 3.7 GB each. Here the output layer is
part of the computation: a block of its rows is multiplied at a time, the softmax's normaliser is gathered over the
blocks (online, as in Milakov and Gimelshein 2018, arXiv:1805.02867), three numbers per token are kept, and the backward
pass multiplies each block again and turns it into its share of both gradients. Blocks run over the vocabulary and not
over tokens, so that the gradient of a row of the output layer is one product, summed in the hardware's own precision.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# Below every float32 log-probability that matters (exp underflows at -104); keeps 0 * -inf out of the sums.
LOWEST_LOGIT = -1e4
BLOCK_SIZE = 1024


def logprobs_and_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    temperature: float = 1.0,
    excluded: Sequence[int] = (),
    block_size: int = BLOCK_SIZE,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each label and entropy of each distribution, both `[tokens]`, in nats.

        x = hidden weight^T / T,  p = softmax(x)
        logprobs = x[label] - logsumexp(x)
        entropy  = -sum_v p_v log p_v

    `hidden` is `[tokens, dim]`, `weight` `[vocab, dim]` the output layer (no bias), both of one floating dtype, in
    which they are multiplied; `labels` `[tokens]` holds token ids (already shifted: row t predicts `labels[t]`).
    `temperature` must be the sampling temperature, or trainer and rollout engine measure different policies.
    `excluded` are tokens that the rollout engine never draws (image and video pads): the distribution is the one over
    all others. The value at a label that is excluded itself is finite and means nothing. `block_size` rows of `weight`
    are multiplied at a time: scratch memory is about 10 * tokens * block_size bytes, and the result does not depend
    on it.

    Both outputs are float32 (float64 for float64 input) and differentiable once with respect to `hidden` and `weight`.

    Raises ValueError for shapes that do not fit, or a temperature or block size that is not positive.
    """
    if (
        hidden.ndim != 2
        or weight.ndim != 2
        or hidden.shape[1] != weight.shape[1]
        or labels.shape != hidden.shape[:1]
    ):
        raise ValueError(
            f"wanted hidden [tokens, dim], weight [vocab, dim] and labels [tokens], got {tuple(hidden.shape)}, "
            f"{tuple(weight.shape)} and {tuple(labels.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be positive (greedy text has no policy)")
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}; it must be at least 1")
    never = torch.zeros(len(weight), dtype=torch.bool, device=weight.device)
    never[list(excluded)] = True
    return _LogprobsAndEntropy.apply(hidden, weight, labels, never, temperature, block_size)


@torch.no_grad()
def squared_probabilities(
    hidden: Tensor,
    weight: Tensor,
    *,
    temperature: float = 1.0,
    excluded: Sequence[int] = (),
    block_size: int = BLOCK_SIZE,
) -> Tensor:
    """sum_v p_v^2 of each distribution, `[tokens]`, with p and all arguments as in `logprobs_and_entropy`."""
    dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    never = torch.zeros(len(weight), dtype=torch.bool, device=weight.device)
    never[list(excluded)] = True
    total = torch.zeros(len(hidden), dtype=dtype, device=hidden.device)
    squares, highest = total.clone(), torch.full_like(total, -1e30)
    for block in _blocks(len(weight), block_size):
        x = _logits(hidden, weight[block], temperature, dtype).masked_fill_(never[block], -torch.inf)
        higher = torch.maximum(highest, x.amax(-1))
        e, drop = x.sub_(higher[:, None]).exp_(), (highest - higher).exp()
        total = total * drop + e.sum(-1)
        squares = squares * drop.square() + e.square_().sum(-1)
        highest = higher
    return squares / total.square()


class _LogprobsAndEntropy(torch.autograd.Function):
    """With p = softmax(x), H the entropy and y the label:

    d logprob / d x_v = [v = y] - p_v            d H / d x_v = -p_v (log p_v + H)
    """

    @staticmethod
    def forward(ctx, *args):
        hidden, weight, labels, never, temperature, block_size = args
        ctx.set_materialize_grads(False)
        dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        zeros = torch.zeros(len(labels), dtype=dtype, device=hidden.device)
        # logit of the label; sum e; sum (x - highest) e, where e = exp(x - highest)
        picked, total, weighted = zeros, zeros.clone(), zeros.clone()
        highest = torch.full_like(zeros, -1e30)
        for block in _blocks(len(weight), block_size):
            x = _logits(hidden, weight[block], temperature, dtype)
            rows, columns = _inside(labels, block)
            picked[rows] = x[rows, columns]
            x.masked_fill_(never[block], -torch.inf)
            higher = torch.maximum(highest, x.amax(-1))
            x.sub_(higher[:, None]).clamp_(min=LOWEST_LOGIT)
            drop = highest - higher
            weighted.add_(drop * total).mul_(drop.exp())
            total.mul_(drop.exp())
            highest = higher
            e = x.exp()
            total += e.sum(-1)
            weighted += e.mul_(x).sum(-1)
        log_total = highest + total.log()
        entropy = total.log() - weighted / total
        ctx.save_for_backward(hidden, weight, labels, never, log_total, entropy)
        ctx.temperature, ctx.block_size = temperature, block_size
        return picked - log_total, entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_logprobs: Tensor | None, grad_entropy: Tensor | None):
        if grad_logprobs is None and grad_entropy is None:
            return None, None, None, None, None, None
        hidden, weight, labels, never, log_total, entropy = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = (
            torch.zeros(hidden.shape, dtype=log_total.dtype, device=hidden.device) if wants_hidden else None
        )
        grad_weight = torch.empty_like(weight) if wants_weight else None
        for block in _blocks(len(weight), ctx.block_size):
            log_p = _logits(hidden, weight[block], ctx.temperature, log_total.dtype)
            log_p.sub_(log_total[:, None]).clamp_(min=LOWEST_LOGIT)
            p = log_p.exp().masked_fill_(never[block], 0.0)
            if grad_entropy is None:
                grad = p.mul_(-grad_logprobs[:, None])
            else:
                factor = log_p.add_(entropy[:, None]).mul_(grad_entropy[:, None])
                if grad_logprobs is not None:
                    factor.add_(grad_logprobs[:, None])
                grad = p.mul_(factor).neg_()
            if grad_logprobs is not None:
                rows, columns = _inside(labels, block)
                grad[rows, columns] += grad_logprobs[rows]
            grad = grad.div_(ctx.temperature).to(hidden.dtype)
            if wants_hidden:
                grad_hidden += grad @ weight[block]
            if wants_weight:
                torch.mm(grad.T, hidden, out=grad_weight[block])
        return (
            None if grad_hidden is None else grad_hidden.to(hidden.dtype),
            grad_weight,
            None,
            None,
            None,
            None,
        )


def _logits(hidden: Tensor, weight: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    return (hidden @ weight.T).to(dtype).div_(temperature)


def _inside(labels: Tensor, block: slice) -> tuple[Tensor, Tensor]:
    """The tokens whose label lies in the block, and its place there."""
    rows = ((labels >= block.start) & (labels < block.stop)).nonzero().squeeze(-1)
    return rows, labels[rows] - block.start


def _blocks(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
