"""Do trainer and rollout engine still compute the same policy? Asked of the servers at every step.

Fresh tokens alone cannot tell: when generation runs ahead, every token trained on is a few versions old. So some
sequences of each step are scored again by a server under the weights it has now, which are the trainer's. It costs one
prefill of the server and one small forward pass of the trainer, which waits for the answer only when the weights are
about to change.

The server scores over the whole vocabulary, and so does the trainer here. (Training leaves out the media tokens that
sampling forbids; nothing holds their probability down. Asking the server for their share, `token_ids_logprob`, ends
SGLang 0.5.10.post1's scheduler as soon as such a request shares a batch with one that does not ask.) Nor does it divide
by the temperature: at another one than 1 only tokens drawn from the current weights are compared.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import requests
import torch
from areal.utils import logging

from trains.host.rollout import BoundedRollout
from trains.types import Group, GroupInfo

NUM_SEQUENCES = 2  # of the probed group
MAX_ANSWER_TOKENS = 512  # scored of each; the server holds float32 logits of all of them at once
TIMEOUT_SECONDS = 120.0

logger = logging.getLogger("Parity")


@dataclass
class Comparison:
    """One that a server has been asked for; empty where there is nothing to compare."""

    group: Group | None = None
    full: torch.Tensor | None = None
    scored: Future[torch.Tensor] = field(default_factory=Future)

    def finish(self) -> None:
        """Add `server_gap` `[tokens]`, |trainer - server| of each scored token, to the group.

        To be called before the weights change. A server that does not answer is logged; the launcher notices it.
        """
        if self.group is None:
            return
        try:
            scored = self.scored.result().to(self.full.device)
        except requests.RequestException as error:
            logger.warning("step without a comparison of trainer and server: %r", error)
            return
        self.group["server_gap"] = (self.full - scored)[~scored.isnan()].abs()


def probe(actor: Any, rollout: BoundedRollout, batch: list[Group], temperature: float) -> Comparison:
    """Ask a server for a group that still carries its images. All ranks must call it together."""
    if temperature != 1.0:
        return Comparison()
    probed = next((group for group in batch if group["info"][0].image_data is not None), None)
    rows = _first_rows(batch[0] if probed is None else probed)
    full = actor.compute_full_logp(rows)  # every rank computes, also one that has nothing to compare
    if probed is None:
        return Comparison()
    comparison = Comparison(probed, full)

    def ask() -> None:
        try:
            comparison.scored.set_result(_score(rollout, rows, probed["info"][0]))
        except BaseException as error:  # to whoever waits
            comparison.scored.set_exception(error)

    threading.Thread(target=ask, name="parity", daemon=True).start()
    return comparison


def difference(group: Group, version: int) -> torch.Tensor:
    """|trainer - server| per token, 1-D: of the probed sequences, and of tokens drawn from the current weights."""
    mask = group["policy_mask"].bool()
    fresh = mask & (group["policy_versions"] == version)
    differences = (group["proximal_logprobs"] - group["behavior_logprobs"])[fresh].abs()
    return torch.cat([differences, group.get("server_gap", differences[:0])])


def _first_rows(group: Group) -> Group:
    """The first `NUM_SEQUENCES` rollouts of a group, cut to the longest of them, with all that the model reads."""
    width = int(group["attention_mask"][:NUM_SEQUENCES].sum(-1).max())
    rows = {key: value[:NUM_SEQUENCES] for key, value in group.items() if isinstance(value, torch.Tensor)}
    cut = {key: value[:, :width] if value.ndim == 2 else value for key, value in rows.items()}
    if "rollout_images" in group:
        cut["rollout_images"] = [group["rollout_images"][0][:NUM_SEQUENCES]]
    return {**group, **cut}


def _score(rollout: BoundedRollout, group: Group, info: GroupInfo) -> torch.Tensor:
    """The server's log-probabilities `[rows, seq]`; position t holds that of token t + 1, NaN what was not scored: the
    prompt, what lies beyond `MAX_ANSWER_TOKENS`, and tools' replies.
    """
    ids, lengths = group["input_ids"], group["attention_mask"].sum(-1).tolist()
    num_prompt = int(group["loss_mask"][0].argmax())
    rows = range(len(ids))
    own = info.rollout_image_data or [[] for _ in rows]
    ends = [
        # a trajectory with images of its own is scored whole: they have to be there, and nothing may be cut in two
        lengths[row] if own[row] else min(lengths[row], num_prompt + MAX_ANSWER_TOKENS)
        for row in rows
    ]
    payload = {
        "input_ids": [ids[row, : ends[row]].tolist() for row in rows],
        # the token that has to be generated is the most likely one: it takes nothing from the server's random stream
        "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
        "return_logprob": True,
        "logprob_start_len": num_prompt - 1,
    }
    images = [[*info.image_data, *own[row]] for row in rows]
    if any(images):
        payload["image_data"] = images
    response = requests.post(f"{rollout.server_url}/generate", json=payload, timeout=TIMEOUT_SECONDS)
    response.raise_for_status()
    scored = torch.full((len(rows), ids.shape[1]), torch.nan)
    for row, answer in zip(rows, response.json(), strict=True):
        # one entry per token from logprob_start_len on; the first has no predecessor and no value
        values = torch.tensor([entry[0] for entry in answer["meta_info"]["input_token_logprobs"][1:]])
        generated = group["loss_mask"][row, num_prompt : num_prompt + len(values)].bool().cpu()
        values[~generated] = torch.nan
        scored[row, num_prompt - 1 : num_prompt - 1 + len(values)] = values
    return scored
