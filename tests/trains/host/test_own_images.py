"""Rollouts that have images of their own behind a shared prompt: the log-probabilities of each computed alone."""

from itertools import pairwise

import pytest
import torch
from areal.api.cli_args import MicroBatchSpec

from llavaonevision1_5 import tiny
from trains.host.batches import concatenated
from trains.host.head import Question, ScoringHead
from trains.host.shared_batches import (
    GRIDS,
    OWN,
    PIXELS,
    results,
    shared_micro_batches,
    with_own_images,
)

IMAGE, START, END = (tiny.SPECIAL_IDS[f"<|{name}|>"] for name in ("image_pad", "vision_start", "vision_end"))
NO_MASK = {"full_attention": None, "sliding_attention": None}


def image(random, height, width):
    """Tokens of an image of so many merged tokens, its patches and its grid."""
    pixels = torch.randn(4 * height * width, 588, generator=random, dtype=torch.float64)
    return [START, *[IMAGE] * (height * width), END], pixels, torch.tensor([[1, 2 * height, 2 * width]])


def make_group(seed, in_prompt, in_rollouts):
    """A group as `trains/agent.py` makes it; sizes of the prompt's image, and of each rollout's images."""
    random = torch.Generator().manual_seed(seed)

    def text(count):
        return torch.randint(20, 90, (count,), generator=random).tolist()

    prompt, images = text(4), {"pixel_values": torch.zeros(0, 588), "image_grid_thw": torch.zeros(0, 3)}
    if in_prompt:
        tokens, pixels, grid = image(random, *in_prompt)
        prompt += tokens + text(2)
        images = {"pixel_values": pixels, "image_grid_thw": grid}
    rows, masks, own = [], [], []
    for sizes in in_rollouts:
        row, mask, parts = text(5), [1] * 5, []
        for size in sizes:
            tokens, pixels, grid = image(random, *size)
            row, mask = row + tokens + text(6), mask + [0] * (len(tokens) + 2) + [1] * 4
            parts.append((pixels, grid))
        rows.append(row)
        masks.append(mask)
        joined = [torch.cat(part) for part in zip(*parts, strict=True)]
        own.append(dict(zip(("pixel_values", "image_grid_thw"), joined, strict=True)) if parts else {})
    longest = max(len(row) for row in rows)
    ids, mask = (
        torch.tensor([before + part + [0] * (longest - len(part)) for part in parts])
        for before, parts in ((prompt, rows), ([0] * len(prompt), masks))
    )
    lengths = torch.tensor([len(prompt) + len(row) for row in rows])
    return {
        "input_ids": ids,
        "attention_mask": torch.arange(ids.shape[1]) < lengths[:, None],
        "loss_mask": mask,
        "images": [images],
        "rollout_images": [own],
    }


GROUPS = [
    make_group(0, (1, 2), [[(2, 2)], [], [(1, 1), (2, 3)]]),
    make_group(1, None, [[(1, 2)], [(1, 3)]]),
    make_group(2, (2, 2), [[], []]),
]


def one_by_one(model, batch):
    whole = with_own_images(batch)
    found = torch.zeros(batch["input_ids"].shape, dtype=torch.float64)
    for row, length in enumerate(batch["attention_mask"].sum(-1).tolist()):
        ids = batch["input_ids"][row : row + 1, :length]
        extra = whole[GRIDS][row] | whole[PIXELS][row]
        log_p = model(input_ids=ids, use_cache=False, **extra).logits[0].log_softmax(-1)
        first = int(batch["num_prompt"][row]) - 1
        found[row, first : length - 1] = log_p[first:-1].gather(-1, ids[0, first + 1 :, None])[:, 0]
    return found


def shared(model, batch, limit):
    """As `trains.host.engine` computes them."""
    head, found = ScoringHead(model), torch.zeros(batch["input_ids"].shape, dtype=torch.float64)
    positions = torch.arange(batch["input_ids"].shape[1]).expand_as(batch["input_ids"])
    mb_list = shared_micro_batches(batch, MicroBatchSpec(max_tokens_per_mb=limit), positions)
    order = iter(mb_list.forward_indices)
    for item in mb_list:
        inputs = dict(item.padded_mb)
        row = inputs.pop("row")
        for key, name in ((GRIDS, "image_grid_thw"), (PIXELS, "pixel_values")):
            parts = [images[name] for images in inputs.pop(key) if images]
            inputs |= {name: torch.cat(parts)} if parts else {}
        head.question = Question(row["labels"], 1.0, [], 2048)
        scores = model(
            **inputs, attention_mask=NO_MASK, shared_prompts=row["units"],
            logits_to_keep=row["predicting"], use_cache=False,
        ).logits[0]  # fmt: skip
        head.question = None
        packed, bounds = results(row, scores[:, 0]), item.orig_mb["cu_seqlens"].tolist()
        for start, end in pairwise(bounds):
            found[next(order), : end - start] = packed[start:end]
    return found


@pytest.mark.parametrize("limit", [None, 40])
@torch.no_grad()
def test_each_rollout_sees_its_own_images(limit):
    model = tiny.build_model(config=tiny.build_config()).double()
    batch = concatenated(GROUPS)
    assert [len(own) > 0 for own in batch[OWN]] == [True, False, True, True, True, False, False]
    wanted = one_by_one(model, batch)
    got = shared(model, batch, limit)
    torch.testing.assert_close(got, wanted, atol=1e-11, rtol=1e-11)
    # and it matters which: with another rollout's images the values differ
    swapped = {**batch, OWN: [batch[OWN][4], *batch[OWN][1:3], batch[OWN][3], *batch[OWN][4:]]}
    swapped["input_ids"] = batch["input_ids"]
    with pytest.raises((AssertionError, ValueError)):
        torch.testing.assert_close(shared(model, swapped, limit), wanted, atol=1e-11, rtol=1e-11)
