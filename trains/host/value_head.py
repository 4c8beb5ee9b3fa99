"""A model's output layer made into a value head: one number for each hidden state, in place of logits."""

from __future__ import annotations

from torch import nn


class ValueHead:
    """Puts a linear layer of one row in place of the output layer of a model, unwrapped by `get_base_model`.

    Its weights begin at zero, so every value does. It has no bias, like every output layer here, and is trained and
    saved under the output layer's name.
    """

    def __init__(self, model: nn.Module):
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        layer = base.get_output_embeddings()
        head = nn.Linear(
            layer.in_features, 1, bias=False, device=layer.weight.device, dtype=layer.weight.dtype
        )
        nn.init.zeros_(head.weight)
        for config in {id(c): c for c in (base.config, base.config.get_text_config())}.values():
            config.tie_word_embeddings = False  # nor is it the embedding, where the output layer was
        base.set_output_embeddings(head)
        self.question = None  # as of `ScoringHead`; nobody asks a critic for log-probabilities
