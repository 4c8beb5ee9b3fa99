"""AReaL's micro-batches, with the rollouts of a prompt in one row (utils/shared_rows.py).

AReaL's list of micro-batches holds two views of each. What the loss reads (`mbs`) stays as it was: rollouts packed one
behind the other. What the model reads (`padded_mbs`) is the shared row, and `results` brings what it predicts into the
places where the loss expects it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from areal.api.cli_args import MicroBatchSpec
from areal.utils.data import MicroBatchList, allocate_balanced_mbs, pack_tensor_dict

from utils.shared_rows import Row, lay_out, num_tokens, share, split_largest

NO_LIMIT = int(1e12)
# Lists with an entry per rollout. AReaL splits those under names that begin like this among micro-batches; those under
# exactly `multi_modal_input` it also joins to tensors, for all micro-batches at once.
GRIDS, PIXELS = "multi_modal_input", "multi_modal_input_pixels"
OWN = "multi_modal_input_own"  # {"image_grid_thw", "pixel_values"} of images behind the prompt, or {} (trains/agent.py)
PROMPT_KEYS = ("prompt", "num_prompt")  # [rollouts]: which prompt, and of how many tokens
BY_TOKEN = ("input_ids", "mm_token_type_ids")


def shared_micro_batches(
    data: dict[str, Any], spec: MicroBatchSpec, positions: torch.Tensor
) -> MicroBatchList:
    """Micro-batches of at most `spec.max_tokens_per_mb` computed tokens, as many on every rank.

    data: `input_ids`, `attention_mask` and what the loss reads, `[rollouts, seq]`; the `PROMPT_KEYS`; keys that begin
        with `multi_modal_input`, lists with an entry per rollout.
    positions: `[rollouts, seq]`, or `[rollouts, seq, 3]` for Qwen-VL.
    """
    lengths = data["attention_mask"].sum(-1).tolist()
    prompts, num_prompt = (data[key].tolist() for key in PROMPT_KEYS)
    units = share(prompts, num_prompt, lengths, spec.max_tokens_per_mb or NO_LIMIT)
    parts = _deal(units, num_prompt, lengths, spec)
    shape = data["attention_mask"].shape
    per_token = {key: value for key, value in data.items() if torch.is_tensor(value) and value.shape == shape}
    per_rollout = {key: value for key, value in data.items() if key.startswith("multi_modal_input")}
    mbs, rows = [], []
    for members in parts:
        order = [rollout for unit in members for rollout in unit]
        row = lay_out(members, num_prompt, lengths)
        mbs.append(pack_tensor_dict({key: value[order] for key, value in per_token.items()}))
        seen = positions[row.rollouts, row.columns]
        inputs = {key: data[key][row.rollouts, row.columns][None] for key in BY_TOKEN if key in data}
        inputs |= _images(members, per_rollout)
        inputs["position_ids"] = seen[None] if seen.ndim == 1 else seen.T[:, None]
        inputs |= {"row": _as_dict(row, data["input_ids"], num_packed=sum(lengths[i] for i in order))}
        rows.append(inputs)
    forward = [rollout for members in parts for unit in members for rollout in unit]
    backward = [0] * len(forward)
    for place, rollout in enumerate(forward):
        backward[rollout] = place
    sizes = [sum(num_tokens(unit, num_prompt, lengths) for unit in members) for members in parts]
    return MicroBatchList(
        data={},
        mb_spec=spec,
        mbs=mbs,
        group_lens=sizes,
        forward_indices=forward,
        backward_indices=backward,
        padded_mbs=rows,
        padding_lengths=[0] * len(rows),
        padded_to_lengths=sizes,
    )


def _images(units: list[list[int]], per_rollout: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """What of each unit's images its tokens stand for, in their order: the prompt's once, then each rollout's own."""
    owned = per_rollout.get(OWN)
    found: dict[str, list[dict]] = {}
    for key, value in per_rollout.items():
        if key == OWN:
            continue
        parts = []
        for unit in units:
            parts.append(value[unit[0]])
            name = "image_grid_thw" if key == GRIDS else "pixel_values"
            parts += [{name: owned[rollout][name]} for rollout in unit if owned and owned[rollout]]
        found[key] = parts
    return found


def with_own_images(data: dict[str, Any]) -> dict[str, Any]:
    """The same batch with each rollout's own images behind those of its prompt, for rollouts that share nothing."""
    if OWN not in data:
        return data

    def joined(before: list[dict], name: str) -> list[dict]:
        pairs = zip(before, data[OWN], strict=True)
        return [
            {name: torch.cat([part[name] for part in (images, own) if part])} if images or own else {}
            for images, own in pairs
        ]

    kept = {key: value for key, value in data.items() if key != OWN}
    kept[GRIDS] = joined(data[GRIDS], "image_grid_thw")
    if PIXELS in data:
        kept[PIXELS] = joined(data[PIXELS], "pixel_values")
    return kept


def _as_dict(row: Row, input_ids: torch.Tensor, num_packed: int) -> dict[str, Any]:
    """What `results` needs, in a form that AReaL moves to the device. A place predicts the token behind it."""
    labels = input_ids[row.rollouts[row.predicting], row.columns[row.predicting] + 1]
    return {
        "units": row.units,
        "predicting": row.predicting,
        "targets": row.targets,
        "labels": labels,
        "num_packed": num_packed,
    }


def results(row: dict[str, Any], values: torch.Tensor) -> torch.Tensor:
    """`values` `[predictions]` in their places among the packed rollouts `[tokens]`; 0 elsewhere."""
    return values.new_zeros(row["num_packed"]).index_copy(0, row["targets"], values)


def _deal(
    units: list[list[int]], num_prompt: list[int], lengths: list[int], spec: MicroBatchSpec
) -> list[list[list[int]]]:
    """Units to micro-batches, equally many on all ranks: each forward and backward pass has collectives."""
    wanted = spec.n_mbs or 1
    while True:
        while len(units) < wanted:
            units = split_largest(units, num_prompt, lengths)
        sizes = [num_tokens(unit, num_prompt, lengths) for unit in units]
        limit = spec.max_tokens_per_mb or NO_LIMIT
        dealt = allocate_balanced_mbs(MicroBatchSpec.new(spec, n_mbs=wanted, max_tokens_per_mb=limit), sizes)
        counts = [len(dealt)]
        if dist.is_initialized():
            counts = [0] * dist.get_world_size()
            dist.all_gather_object(counts, len(dealt))
        if all(count == counts[0] for count in counts):
            return [[units[i] for i in members] for members in dealt]
        wanted = max(counts)
