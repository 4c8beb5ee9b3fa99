"""A model's output layer made into a value head: one number for each hidden state, in place of logits."""

from torch import Tensor, nn


class ValueLayer(nn.Linear):
    """`multiplier` times a linear layer `[..., hidden] -> [..., 1]` without a bias, whose weights begin at zero."""

    def __init__(self, like: nn.Linear, multiplier: float):
        super().__init__(like.in_features, 1, bias=False, device=like.weight.device, dtype=like.weight.dtype)
        self.multiplier = multiplier
        nn.init.zeros_(self.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden) * self.multiplier


class ValueHead:
    """Puts a `ValueLayer` in place of the output layer of a model, unwrapped by `get_base_model`: values begin at 0.

    It is trained and saved under the output layer's name. Adam moves a weight by about the learning rate a step,
    however large its gradient: a head that begins at zero reaches values of the rewards' size sooner by its multiplier.
    """

    def __init__(self, model: nn.Module, multiplier: float = 1.0):
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        head = ValueLayer(base.get_output_embeddings(), multiplier)
        for config in {id(c): c for c in (base.config, base.config.get_text_config())}.values():
            config.tie_word_embeddings = False  # nor is it the embedding, where the output layer was
        base.set_output_embeddings(head)
        self.question = None  # as of `ScoringHead`; nobody asks a critic for log-probabilities
