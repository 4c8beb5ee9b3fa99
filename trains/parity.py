"""Do trainer and rollout engine still compute the same policy? Asked of the servers at every step.

Fresh tokens alone cannot tell: when generation runs ahead, every token trained on is a few versions old. So one group
of each step is scored again by a server under the weights it has now, which are the trainer's, and compared with the
proximal log-probabilities. It costs one prefill of a few sequences.

Scoring does not leave out the media tokens that sampling forbids. A trained model gives them no probability, so this
does not show; asking the server for their share (`token_ids_logprob`) ends SGLang 0.5.10.post1's scheduler as soon as
such a request shares a batch with one that does not ask. Nor does it divide by the temperature: at another one than 1
only tokens drawn from the current weights are compared, as they come back from sampling.
"""

from __future__ import annotations

from typing import Any

import requests
import torch
from areal.utils import logging

from trains.rollout import BoundedRollout

NUM_SEQUENCES = 2  # of the probed group
MAX_ANSWER_TOKENS = 512  # scored of each; the server holds float32 logits of all of them at once
TIMEOUT_SECONDS = 120.0

logger = logging.getLogger("Parity")


def probe(rollout: BoundedRollout, batch: list[dict[str, Any]], temperature: float) -> None:
    """Add `server_logprobs` `[NUM_SEQUENCES, seq]` to the groups of the batch that still carry their images.

    Aligned with `proximal_logprobs`: position t holds the log-probability of token t + 1; NaN where nothing was scored.
    Must be called before the weights change. A server that does not answer is logged; the launcher notices a dead one.
    """
    for group in batch:
        info = group["info"][0]
        if info.image_data is not None and temperature == 1.0:
            try:
                group["server_logprobs"] = _score(rollout, group, info.image_data)
            except requests.RequestException as error:
                logger.warning("step without a comparison of trainer and server: %r", error)


def difference(group: dict[str, Any], version: int) -> torch.Tensor:
    """|trainer - server| per token, 1-D: of the probed sequences, and of tokens drawn from the current weights."""
    mask = group["policy_mask"].bool()
    fresh = mask & (group["policy_versions"] == version)
    differences = [(group["proximal_logprobs"] - group["behavior_logprobs"])[fresh]]
    if "server_logprobs" in group:
        server = group["server_logprobs"].to(mask.device)
        rows = slice(len(server))
        differences.append((group["proximal_logprobs"][rows] - server)[mask[rows] & ~server.isnan()])
    return torch.cat(differences).abs()


def _score(rollout: BoundedRollout, group: dict[str, Any], image_data: list[str]) -> torch.Tensor:
    ids, lengths = group["input_ids"], group["attention_mask"].sum(-1).tolist()
    num_prompt = int(group["loss_mask"][0].argmax())
    rows = range(min(NUM_SEQUENCES, len(ids)))
    payload = {
        "input_ids": [ids[row, : min(lengths[row], num_prompt + MAX_ANSWER_TOKENS)].tolist() for row in rows],
        "sampling_params": {"max_new_tokens": 1, "temperature": 1.0},
        "return_logprob": True,
        "logprob_start_len": num_prompt - 1,
    }
    if image_data:
        payload["image_data"] = [image_data for _ in rows]
    response = requests.post(f"{rollout.server_url}/generate", json=payload, timeout=TIMEOUT_SECONDS)
    response.raise_for_status()
    scored = torch.full((len(rows), ids.shape[1]), torch.nan)
    for row, answer in zip(rows, response.json(), strict=True):
        # one entry per token from logprob_start_len on; the first has no predecessor and no value
        values = torch.tensor([entry[0] for entry in answer["meta_info"]["input_token_logprobs"][1:]])
        scored[row, num_prompt - 1 : num_prompt - 1 + len(values)] = values
    return scored
