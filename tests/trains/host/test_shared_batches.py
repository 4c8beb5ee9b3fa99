"""Rollouts in rows that share their prompts: the log-probabilities, entropies and gradients of the rollouts one by one.

In float64 on a tiny model of each family. Groups of unequal length with one image, two images, none; answers of one
token; rows that had to be cut; one micro-batch and several.
"""

import pytest
import torch
from areal.api.cli_args import MicroBatchSpec

from llavaonevision1_5 import tiny
from trains.host import qwen_vl
from trains.host.head import Question, ScoringHead
from trains.host.shared_batches import results, shared_micro_batches
from trains.rehearsal import tiny_qwen

IMAGE, START, END = (tiny.SPECIAL_IDS[f"<|{name}|>"] for name in ("image_pad", "vision_start", "vision_end"))
# (grids of the prompt's images in merged tokens, text tokens, lengths of the answers)
GROUPS = [([(1, 2), (2, 2)], 7, (1, 6, 3)), ([], 5, (4, 4)), ([(2, 3)], 3, (9, 2, 1, 5))]


def make_group(index, grids, num_text, answers, dim):
    """One prompt and its answers, `[G, seq]`, as the actor hands groups on."""
    random = torch.Generator().manual_seed(index)
    prompt, types, pixels, thw = [11 + index], [0], [], []
    for height, width in grids:
        prompt += [START, *[IMAGE] * (height * width), END]
        types += [0, *[1] * (height * width), 0]
        thw.append([1, 2 * height, 2 * width])
        pixels.append(torch.randn(4 * height * width, dim, generator=random, dtype=torch.float64))
    prompt += torch.randint(20, 90, (num_text,), generator=random).tolist()
    types += [0] * num_text
    longest = len(prompt) + max(answers)
    ids = torch.zeros(len(answers), longest, dtype=torch.int64)
    mask = torch.zeros(len(answers), longest, dtype=torch.bool)
    for row, length in enumerate(answers):
        drawn = torch.randint(20, 90, (length,), generator=random).tolist()
        ids[row, : len(prompt) + length] = torch.tensor(prompt + drawn)
        mask[row, : len(prompt) + length] = True
    images = {"pixel_values": torch.cat(pixels), "image_grid_thw": torch.tensor(thw)} if grids else {}
    types = torch.tensor([types + [0] * (longest - len(types))] * len(answers))
    return {"ids": ids, "mask": mask, "types": types, "num_prompt": len(prompt), "images": images}


def make_batch(groups):
    """The groups as one batch of rollouts, padded to the longest."""
    longest = max(group["ids"].shape[1] for group in groups)
    sizes = [len(group["ids"]) for group in groups]

    def padded(key):
        return torch.cat([torch.nn.functional.pad(g[key], (0, longest - g[key].shape[1])) for g in groups])

    return {
        "input_ids": padded("ids"),
        "attention_mask": padded("mask"),
        "mm_token_type_ids": padded("types"),
        "prompt": torch.arange(len(groups)).repeat_interleave(torch.tensor(sizes)),
        "num_prompt": torch.tensor([g["num_prompt"] for g in groups]).repeat_interleave(torch.tensor(sizes)),
        "multi_modal_input_images": [g["images"] for g in groups for _ in range(len(g["ids"]))],
    }


def images_of(entries):
    keys = ("pixel_values", "image_grid_thw")
    return {key: torch.cat([e[key] for e in entries if e]) for key in keys if any(entries)}


def one_by_one(model, batch, is_qwen):
    """Per rollout the log-probability and entropy at each place that predicts an answer's token; else 0."""
    found = torch.zeros(2, *batch["input_ids"].shape, dtype=torch.float64)
    scores = [[], []]
    for row, length in enumerate(batch["attention_mask"].sum(-1).tolist()):
        ids = batch["input_ids"][row : row + 1, :length]
        extra = images_of(batch["multi_modal_input_images"][row : row + 1])
        if is_qwen:
            extra["mm_token_type_ids"] = batch["mm_token_type_ids"][row : row + 1, :length]
            extra["attention_mask"] = torch.ones_like(ids)
        log_p = model(input_ids=ids, use_cache=False, **extra).logits[0].log_softmax(-1)
        first = int(batch["num_prompt"][row]) - 1
        picked = log_p[first:-1].gather(-1, ids[0, first + 1 :, None])[:, 0]
        entropy = -(log_p.exp() * log_p)[first:-1].sum(-1)
        scores[0].append(picked)
        scores[1].append(entropy)
        found[0, row, first : length - 1], found[1, row, first : length - 1] = (
            picked.detach(),
            entropy.detach(),
        )
    return found, scores


NO_MASK = {"full_attention": None, "sliding_attention": None}  # as AReaL says it; to Qwen3-VL it says None


def shared(model, head, batch, positions, *, limit=None, backward=None, mask=NO_MASK):
    """The same through shared rows. `backward(logprobs, entropies)` makes a scalar of a micro-batch's predictions."""
    found = torch.zeros(2, *batch["input_ids"].shape, dtype=torch.float64)
    mb_list = shared_micro_batches(batch, MicroBatchSpec(max_tokens_per_mb=limit), positions)
    order, num_tokens = iter(mb_list.forward_indices), []
    for item in mb_list:
        inputs = dict(item.padded_mb)
        row = inputs.pop("row")
        inputs |= images_of(inputs.pop("multi_modal_input_images"))
        num_tokens.append(inputs["input_ids"].shape[1])
        head.question = Question(row["labels"], 1.0, [], 2048)
        output = model(
            **inputs, attention_mask=mask, shared_prompts=row["units"],
            logits_to_keep=row["predicting"], use_cache=False,
        ).logits[0]  # fmt: skip
        head.question = None
        if backward is not None:
            backward(*output.unbind(-1)).backward()
        packed = [results(row, values.detach()) for values in output.unbind(-1)]
        for start, end in torch.stack(
            [item.orig_mb["cu_seqlens"][:-1], item.orig_mb["cu_seqlens"][1:]], 1
        ).tolist():
            rollout = next(order)
            for which in (0, 1):
                found[which, rollout, : end - start] = packed[which][start:end]
    return found, num_tokens


@pytest.mark.parametrize("limit", [None, 40, 24])
def test_llava_onevision(limit):
    model = tiny.build_model(config=tiny.build_config()).double()
    groups = [make_group(i, *group, dim=588) for i, group in enumerate(GROUPS)]
    batch = make_batch(groups)
    positions = torch.arange(batch["input_ids"].shape[1]).expand_as(batch["input_ids"])
    wanted, scores = one_by_one(model, batch, is_qwen=False)
    (torch.cat(scores[0]).sum() + torch.cat(scores[1]).square().sum()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    head = ScoringHead(model)
    got, sizes = shared(
        model, head, batch, positions, limit=limit, backward=lambda p, h: p.sum() + h.square().sum()
    )
    torch.testing.assert_close(got, wanted, atol=1e-11, rtol=1e-11)
    for name, parameter in model.named_parameters():
        # the tower turns its queries and keys in float32, whatever the model's dtype
        difference = (parameter.grad - gradients[name]).norm() / gradients[name].norm()
        assert difference < 1e-6, (name, difference)
    if limit is None:  # prompts of 18, 6 and 12 tokens, without their last one
        assert sizes == [17 + 10 + 5 + 8 + 11 + 17]
    else:
        assert len(sizes) > 1
        assert max(sizes) <= limit


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_qwen_vl(family):
    model = tiny_qwen.build_model(family).double()
    model.set_attn_implementation("sdpa")
    qwen_vl.adapt(model)
    vision = model.config.vision_config
    dim = getattr(vision, "in_channels", 3) * vision.temporal_patch_size * vision.patch_size**2
    groups = [make_group(i, *group, dim=dim) for i, group in enumerate(GROUPS)]
    batch = make_batch(groups)
    grids = [entry["image_grid_thw"] for entry in batch["multi_modal_input_images"] if entry]
    positions = model.model.compute_3d_position_ids(
        input_ids=batch["input_ids"], image_grid_thw=torch.cat(grids), video_grid_thw=None, inputs_embeds=None,
        attention_mask=batch["attention_mask"], mm_token_type_ids=batch["mm_token_type_ids"], past_key_values=None,
    ).permute(1, 2, 0)  # fmt: skip
    with torch.no_grad():
        wanted, _ = one_by_one(model, batch, is_qwen=True)
        mask = None if family == "qwen3_vl" else NO_MASK
        got, _ = shared(model, ScoringHead(model), batch, positions, limit=40, mask=mask)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-6)  # positions turn in float32
