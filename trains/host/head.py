"""The output layer of a model as part of its loss: it returns log-probabilities and entropies where it is asked to.

AReaL takes whatever a model returns as `logits` and hands it on. Asked for scores, the output layer returns two numbers
per token, or three, in place of a vocabulary of them (utils/logprobs.py). This happens inside of the model's own
forward pass, because FSDP has the whole weight there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from utils.logprobs import logprobs_and_entropy, squared_probabilities


class Question(NamedTuple):
    """What to score: `labels` `[tokens]`, one per hidden state that arrives."""

    labels: torch.Tensor
    temperature: float
    excluded: list[int]
    block_size: int
    wants_squares: bool = False


class ScoringHead:
    """Stands in for `lm_head.forward` of one model (`...ForConditionalGeneration`), unwrapped by `get_base_model`.

    Raises ValueError for an output layer that is not a plain linear one (adapters on it, a bias).
    """

    def __init__(self, model: nn.Module):
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._layer = base.get_output_embeddings()
        if not isinstance(self._layer, nn.Linear):
            raise ValueError(f"the output layer is a {type(self._layer).__name__}; wanted a linear one")
        if self._layer.bias is not None:
            raise ValueError("the output layer has a bias, which no supported model has")
        config = base.config
        suppresses = getattr(config, "suppress_media_tokens", False)
        self._suppressed = list(config.media_token_ids) if suppresses else []
        self._logits = self._layer.forward
        self._layer.forward = self._forward
        self.question: Question | None = None

    def _forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores `[batch, tokens, 2]` (log-probability, entropy), or 3 with the sum of squared probabilities, if a
        question is set; else logits.
        """
        if self.question is None:
            return self._logits(hidden)
        q, tokens = self.question, hidden.flatten(0, 1)
        options = {
            "temperature": q.temperature,
            "excluded": sorted({*q.excluded, *self._suppressed}),
            "block_size": q.block_size,
        }
        scores = logprobs_and_entropy(tokens, self._layer.weight, q.labels, **options)
        if q.wants_squares:
            scores = (*scores, squared_probabilities(tokens, self._layer.weight, **options))
        return torch.stack(scores, dim=-1).unflatten(0, hidden.shape[:2])
