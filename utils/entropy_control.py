"""The weight of the entropy bonus, fixed or moved towards a target.

He et al. 2025, "Skywork Open Reasoner 1 Technical Report", arXiv:2505.22312, adaptive entropy control.
"""


class EntropyCoefficient:
    """alpha in L - alpha H, per token.

    Without a target alpha is `coefficient`. With one, c begins there and

        c <- c + step  where H < target,  else c - step, never below 0        (after each update, by its mean entropy H)
        alpha = c where H <= target, else 0                                   (in the next update)

    The paper decides both by the entropy before the update; ours is that of the last update's own forward passes, which
    cost nothing. Before the first one alpha is c.
    """

    def __init__(self, coefficient: float, target: float | None = None, step: float = 0.005):
        self.target, self.step = target, step
        self.state: tuple[float, float | None] = (coefficient, None)  # c, and the entropy seen last

    @property
    def value(self) -> float:
        """alpha."""
        coefficient, entropy = self.state
        is_high = self.target is not None and entropy is not None and entropy > self.target
        return 0.0 if is_high else coefficient

    def update(self, entropy: float) -> None:
        """Take in the mean entropy of an update, in nats. Without a target nothing changes."""
        if self.target is not None:
            step = self.step if entropy < self.target else -self.step
            self.state = (max(self.state[0] + step, 0.0), entropy)
