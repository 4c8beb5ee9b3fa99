"""The actor learns, and only from rewards: its advantages and its loss on the smallest policy that there is.

The whole recipe learns in `python -m benchmarks.learning`, which takes an hour; here are the same `compute_advantages`
and the same loss, with answers up to eta = 4 versions old, on a table of logits. A wrong sign or a mask one place off
keeps it from learning, and a control shows that nothing but rewards makes it gain.
"""

from itertools import pairwise

import pytest
import torch
from areal.utils import stats_tracker

from trains.actor import VisionActor
from trains.config import LossConfig

NUM_TOKENS, NUM_PROMPT, NUM_WORDS, NUM_PROMPTS, G = 6, 2, 8, 8, 8
STEPS, ETA = 40, 4
CHANCE = 1 / NUM_WORDS


class TableActor(VisionActor):
    """A policy that knows how often it says which word at which place after which prompt `[prompt, place, word]`."""

    def __init__(self, **options):
        self.loss = LossConfig(**options)
        self.logits = torch.zeros(NUM_PROMPTS, NUM_TOKENS, NUM_WORDS, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.logits], lr=0.2)
        self.version = 0
        self.max_new_tokens = NUM_TOKENS

    needs_proximal_pass = False
    sum_over_ranks = staticmethod(lambda values: values)

    def get_version(self):
        return self.version

    def step(self, batch):
        self.compute_advantages(batch)
        rows = []
        for prompt, group in enumerate(batch):
            logprobs = torch.log_softmax(self.logits[prompt], -1)
            answers = group["input_ids"][:, NUM_PROMPT:]
            chosen = logprobs.expand(G, -1, -1).gather(-1, answers[..., None])[..., 0]
            # position t holds the log-probability of token t + 1; what is padded does not count
            rows.append(torch.nn.functional.pad(chosen, (NUM_PROMPT - 1, 1)))
        policy = torch.cat(rows).flatten()
        inputs = {
            name: torch.cat([group[name] for group in batch]).flatten()
            for name in ("policy_mask", "behavior_logprobs", "advantages")
        }
        inputs["cu_seqlens"] = torch.arange(0, len(policy) + 1, NUM_PROMPT + NUM_TOKENS)
        self.optimizer.zero_grad()
        self._loss(policy, torch.zeros_like(policy), inputs).backward()
        self.optimizer.step()
        self.version += 1


def train(seed, *, eta=ETA, **options):
    """Mean reward (share of the right words) of every step's fresh answers under the weights of that step."""
    generator = torch.Generator().manual_seed(seed)
    right = torch.randint(NUM_WORDS, (NUM_PROMPTS, NUM_TOKENS), generator=generator)
    actor, weights, curve = TableActor(**options), [], []
    for step in range(STEPS):
        weights.append(actor.logits.detach().clone())
        curve.append(float(weights[-1].softmax(-1).gather(-1, right[..., None]).mean()))
        version = max(0, step - eta)
        batch = []
        for prompt in range(NUM_PROMPTS):
            probabilities = weights[version][prompt].softmax(-1).expand(G, -1, -1)
            words = torch.multinomial(probabilities.flatten(0, 1), 1, generator=generator).reshape(
                G, NUM_TOKENS
            )
            chosen = probabilities.gather(-1, words[..., None])[..., 0].log()
            batch.append(
                {
                    "input_ids": torch.nn.functional.pad(words, (NUM_PROMPT, 0)),
                    "loss_mask": torch.nn.functional.pad(torch.ones_like(words), (NUM_PROMPT, 0)).int(),
                    "logprobs": torch.nn.functional.pad(chosen, (NUM_PROMPT, 0)),
                    "versions": torch.full((G, NUM_PROMPT + NUM_TOKENS), version, dtype=torch.int32),
                    "rewards": (words == right[prompt]).float().mean(-1),
                }
            )
        actor.step(batch)
    stats_tracker.export_all()
    return curve


@pytest.mark.parametrize("eta", [0, ETA])
def test_it_learns_and_a_control_does_not(eta):
    for seed in range(3):
        curve = train(seed, eta=eta)
        assert curve[0] == pytest.approx(CHANCE)
        assert curve[-1] > 0.93  # 0.83 with the mask one place off
        assert sum(later > earlier for earlier, later in pairwise(curve)) > 0.9 * (STEPS - 1)
        assert train(seed, eta=eta, shuffle_rewards=True)[-1] < 0.25


@pytest.mark.parametrize(
    "options",
    [
        {"estimator": "dr_grpo", "batch_whiten": False},
        {"estimator": "rloo", "batch_whiten": False},
        {"estimator": "reinforce++-baseline", "batch_whiten": False},
        {"loss_mode": "sequence-mean"},
        {"behavior_mode": "mask"},
        {"use_decoupled_loss": False},
    ],
    ids=str,
)
def test_so_do_the_variants(options):
    assert train(0, **options)[-1] > 0.5
