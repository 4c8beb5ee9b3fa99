"""The record that travels through training: a group of G rollouts of one prompt.

Tensors are padded on the right to the longest rollout, `[G, seq]`. What belongs to a token stands in one of two places:

- *own*: position t holds what belongs to token t;
- *predicting*: position t holds what belongs to token t + 1, which the model predicts at t. Log-probabilities come out
  of the model like this; `trains/actor.py` brings the rest into the same alignment before the loss.

The example is a group with G = 2, a prompt of 3 tokens and answers of 2 and 1 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from torch import Tensor

from reward import RewardOutput
from reward.spec import WEIGHTS


class Group(TypedDict):
    """One prompt's rollouts. A plain dict, because AReaL gathers and moves dicts of tensors.

    `images` and `info` are lists of one element, so that AReaL's helpers concatenate and gather them unopened. Names
    `logprobs`, `versions`, `loss_mask` and `rewards` are AReaL's.
    """

    # written by trains/workflow.py when the last rollout of the prompt is scored
    input_ids: Tensor  # int64, own: [[5, 6, 7, 50, 2], [5, 6, 7, 2, 0]]
    attention_mask: Tensor  # bool, own: [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    loss_mask: Tensor  # int32, own: [[0, 0, 0, 1, 1], [0, 0, 0, 1, 0]], the generated tokens
    logprobs: Tensor  # float32, own: under the weights that drew the token; 0 elsewhere
    versions: Tensor  # int32, own: version of those weights; -1 on the prompt and the padding
    rewards: Tensor  # float32 [G]: total reward of each rollout
    # int64, own: 1 on image tokens; where the processor makes it (Qwen-VL)
    mm_token_type_ids: NotRequired[Tensor]
    # [1]: {"pixel_values" [patches, dim], "image_grid_thw" [images, 3]} of the prompt
    images: list[dict[str, Tensor]]
    info: list[GroupInfo]  # [1]
    # [1]: of each rollout, the images that tools added to it, in order and keyed as `images`, or {} (trains/agent.py)
    rollout_images: NotRequired[list[list[dict[str, Tensor]]]]

    # written by trains/grpo.py, phase `proximal`, or by `ppo_update` where they need no pass of their own
    # float32, predicting: under the weights before the update
    proximal_logprobs: NotRequired[Tensor]

    # written by trains/actor.py, `compute_logp`, for the estimator otb alone
    energies: NotRequired[Tensor]  # float32, predicting: utils/token_baseline.py

    # written by trains/grpo.py, phase `proximal`, where there is a critic (PPO)
    # float32, predicting: value of what stands before token t + 1
    values: NotRequired[Tensor]

    # written by trains/grpo.py, phase `proximal`
    # float32, predicting: under the reference model, if the loss has a KL term
    reference_logprobs: NotRequired[Tensor]

    # written by trains/parity.py before the exchange, into one group of the batch
    # float32 [tokens]: |trainer - server| of the tokens that a server scored again
    server_gap: NotRequired[Tensor]

    # written by `ppo_update`
    # float32, predicting: of the policy before the update, in nats
    entropy: NotRequired[Tensor]

    # written by trains/advantages.py, which `compute_advantages` of trains/actor.py calls
    policy_mask: NotRequired[Tensor]  # int32, predicting: loss_mask; the tokens that are trained on
    behavior_logprobs: NotRequired[Tensor]  # float32, predicting: logprobs; 0 outside of policy_mask
    policy_versions: NotRequired[Tensor]  # int32, predicting: versions
    advantages: NotRequired[Tensor]  # float32, predicting: the rollout's advantage on policy_mask, else 0
    # by trains/ground_truth.py, where answers are given: int32, predicting: 1 on their tokens that are trained on
    given: NotRequired[Tensor]
    # with `values`, by the same: float32, predicting, 0 outside of policy_mask: what the critic learns and is held to
    returns: NotRequired[Tensor]
    monte_carlo: NotRequired[Tensor]


@dataclass
class GroupInfo:
    """What is known of a group beside its tensors; lists have one entry per rollout."""

    key: int  # place in the order of submission
    sample_id: str
    source: str
    answer_type: str
    prompt_type: str
    answer: list[str]
    scores: list[RewardOutput]
    completions: list[str] = field(repr=False)
    truncated: list[bool]  # ended at the token limit, by the engine's stop reason
    lengths: list[int]  # generated tokens
    num_interruptions: int  # requests that a weight update cut in two
    given: list[bool] = field(
        default_factory=list
    )  # answers that were not drawn but given (section ground_truth)
    num_references: int = 0  # of the first rollouts: the reference answer, put there by a rehearsal
    part_weights: dict[str, float] = field(default_factory=lambda: dict(WEIGHTS))  # of the sample's reward
    spec: dict[str, Any] | None = None  # of the reward
    image_files: list[str] = field(default_factory=list)  # as trains/rollout_records.py keeps them, by name
    image_sizes: list[tuple[int, int]] = field(default_factory=list)  # (width, height) in the data
    image_data: list[str] | None = field(default=None, repr=False)  # base64 images, on the probed group alone
    # of several turns (trains/agent.py): each rollout's turns and faults as plain data, and its images of tools, base64
    trajectories: list[dict[str, Any]] | None = field(default=None, repr=False)
    rollout_image_data: list[list[str]] | None = field(default=None, repr=False)
    rollout_image_files: list[list[str]] = field(default_factory=list)  # the same as `image_files`


@dataclass(frozen=True)
class Failure:
    """What a workflow returns instead of a group, as {"failure": Failure}, when a prompt could not be rolled out."""

    key: int
    message: str
    is_data_error: bool  # a mistake in our data: leave the row out, trying again cannot help


Rollout = Group | dict[str, Any]  # what a workflow returns: a group or {"failure": Failure}
