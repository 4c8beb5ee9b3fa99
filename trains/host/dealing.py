"""A step's groups to the trainer ranks, by what they cost. One rank keeps what it has; several exchange once.

AReaL's own exchange sends every tensor of every group in collectives of its own, also where there is one rank.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from areal.utils.data import tensor_container_to
from areal.utils.seqpack import get_allocate_fn

from trains.types import Group
from utils.shared_rows import num_tokens

NO_LIMIT = int(1e12)


def deal(batch: list[Group], ranks: Any, device: Any) -> list[Group]:
    """The groups that this rank trains on, on `device`; `ranks` is a process group of CPU tensors."""
    count = dist.get_world_size(ranks)
    if count > 1:
        gathered: list[list[Group]] = [None] * count
        dist.all_gather_object(gathered, batch, group=ranks)
        everything = [group for part in gathered for group in part]
        costs = [cost(group) for group in everything]
        dealt = get_allocate_fn("ffd")(costs, capacity=NO_LIMIT, min_groups=count)
        batch = [everything[i] for i in dealt[dist.get_rank(ranks)]]
    return tensor_container_to(batch, device)


def cost(group: Group) -> int:
    """Tokens that the trainer computes for a group: its prompt once, and its answers."""
    num_prompt = group["loss_mask"].argmax(-1).tolist()
    return num_tokens(range(len(num_prompt)), num_prompt, group["attention_mask"].sum(-1).tolist())
