"""A model's output layer made into a value head: one number for each hidden state, in place of logits."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


class ValueHead:
    """Puts a linear layer of one row in place of the output layer of a model, unwrapped by `get_base_model`.

    Its weights begin at zero, so every value does. It has no bias, like every output layer here, and is trained and
    saved under the output layer's name.
    """

    def __init__(self, model: nn.Module):
        base = _base(model)
        layer = base.get_output_embeddings()
        head = nn.Linear(
            layer.in_features, 1, bias=False, device=layer.weight.device, dtype=layer.weight.dtype
        )
        nn.init.zeros_(head.weight)
        for config in {id(c): c for c in (base.config, base.config.get_text_config())}.values():
            config.tie_word_embeddings = False  # nor is it the embedding, where the output layer was
        base.set_output_embeddings(head)
        self.question = None  # as of `ScoringHead`; nobody asks a critic for log-probabilities


@contextmanager
def head_apart(model: nn.Module, lr: float) -> Iterator[None]:
    """Within the block `model.parameters()` are an optimizer's groups: all others, and the head with its `lr`.

    AReaL builds its optimizer from that call, and its schedule from the optimizer's groups.
    """
    head = list(_base(model).get_output_embeddings().parameters())
    others = [p for p in model.parameters() if all(p is not own for own in head)]
    groups = [{"params": others}, {"params": head, "lr": lr}]
    model.parameters = lambda: groups
    try:
        yield
    finally:
        del model.parameters


def _base(model: nn.Module) -> nn.Module:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
