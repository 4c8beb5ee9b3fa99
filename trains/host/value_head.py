"""A model's output layer made into a value head: one number for each hidden state, in place of logits."""

from typing import Any

from areal.api import FinetuneSpec
from torch import nn

from trains.host.engine import VisionEngine


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


class ValueEngine(VisionEngine):
    """AReaL's engine with a value head, which has a learning rate of its own.

    AReaL builds its optimizer from `model.parameters()` and its schedule from the optimizer's groups: here these are
    all other parameters, then the head.
    """

    def __init__(self, *args: Any, head_lr: float):
        super().__init__(*args)
        self.head_lr = head_lr

    def _make_head(self) -> ValueHead:
        return ValueHead(self.model)

    def _create_optimizer(self, ft_spec: FinetuneSpec) -> None:
        head = list(_base(self.model).get_output_embeddings().parameters())
        others = [p for p in self.model.parameters() if all(p is not own for own in head)]
        groups = [{"params": others}, {"params": head, "lr": self.head_lr}]
        self.model.parameters = lambda: groups
        try:
            super()._create_optimizer(ft_spec)
        finally:
            del self.model.parameters


def _base(model: nn.Module) -> nn.Module:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
