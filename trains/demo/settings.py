"""Settings of the supervised phase (`warm_start.py`)."""

from dataclasses import dataclass, field

from dataset.prompts import DEFAULT_PROMPTS


@dataclass(frozen=True)
class WarmStartConfig:
    """The supervised phase; the defaults are those of the demonstration."""

    seed: int = 219
    num_clean_steps: int = 360
    num_careless_steps: int = 60
    batch_size: int = 32
    learning_rate: float = 1e-3  # of the clean phase: warmed up over 30 steps, then down to 30 %
    careless_learning_rate: float = 3e-4
    data_seed: int = 219  # of the split, as for `dataset.digits`
    layout: str = DEFAULT_PROMPTS.layout  # of prompts, as prompts.layout of the training that follows
    shares: dict[str, float] = field(  # how often each source is drawn
        default_factory=lambda: {
            "digits-number": 0.2,
            "digits-boolean": 0.1,
            "digits-choice": 0.1,
            "digits-bbox": 0.2,
            "digits-sum": 0.4,
        }
    )
    careless: dict[str, float] = field(  # probability of a wrong label in the second phase
        default_factory=lambda: {
            "digits-number": 0.55,
            "digits-boolean": 0.55,
            "digits-choice": 0.5,
            "digits-bbox": 0.55,
            "digits-sum": 0.4,  # per operand
        }
    )
    careless_addition: float = 0.5  # probability of a sum that is one too large, in the second phase
