"""Rollouts of which some are reference answers (section `ground_truth`); what they weigh: trains/ground_truth.py."""

from __future__ import annotations

from typing import Any

from dataset.encode import EncodedPrompt
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
