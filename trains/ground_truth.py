"""The reference answer as one of a group's rollouts, with a weight of its own (section `ground_truth`).

ViSurf: Liu et al. 2025, "Visual Supervised-and-Reinforcement Fine-Tuning for Large Vision-and-Language Models",
arXiv:2510.10606. The servers score the answer token by token, so it has log-probabilities and a version like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dataset.encode import EncodedPrompt
from trains.types import Group
from trains.workflow import VisionRolloutWorkflow
from utils.sample import Sample


class GroundTruthWorkflow(VisionRolloutWorkflow):
    """As the workflow of training; the first `num_given` rollouts of each group are reference answers.

    They are given as a model writes them that answers at once: `<answer>...</answer>`, without a thought, for which a
    thinking prompt pays no format (the paper takes the thinking reward away from them). Of several references the
    rollouts take turns. A reference that is no answer (tests of a program) gives none, and is left to the servers.
    """

    def __init__(self, *args: Any, num_given: int, max_tokens: int, **options: Any):
        super().__init__(*args, **options)
        self.num_given = num_given
        self.max_tokens = max_tokens

    def given_answer(self, sample: Sample, encoded: EncodedPrompt, place: int) -> list[int] | None:
        if place >= self.num_given or sample.answer_type == "general-code":
            return None
        reference = sample.answer[place % len(sample.answer)]
        ids = self.tokenizer(f"<answer>{reference}</answer>", add_special_tokens=False)["input_ids"]
        ids = ids + self.gconfig.stop_token_ids[:1]
        return ids if len(encoded.input_ids) + len(ids) <= self.max_tokens else None


def smoothed(rewards: Tensor, given: Sequence[bool]) -> Tensor:
    """Rewards `[G]` in which a given answer that a drawn one equals or exceeds has the mean of those drawn.

        max(r of the drawn) >= r of the given  =>  r of the given = mean(r of the drawn)

    Its advantage is then 0 where the mean is subtracted: a policy that finds the answer itself is no longer told it.
    The paper's third control of rewards, as we understand it: its text could not be checked.
    """
    is_given = torch.tensor(given, device=rewards.device)
    drawn = rewards[~is_given]
    if not len(drawn) or not is_given.any():
        return rewards
    return torch.where(is_given & (drawn.max() >= rewards), drawn.mean(), rewards)


def mark_given(batch: list[Group]) -> None:
    """Write `given` `[G, seq]` into each group: 1 on the trained tokens of given answers."""
    for group in batch:
        rows = torch.tensor(group["info"][0].given, device=group["policy_mask"].device)
        group["given"] = group["policy_mask"] * rows[:, None]
