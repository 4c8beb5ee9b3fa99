"""AReaL's own FSDP engine on two CPU ranks, one of which has text alone, against the model one by one.

The rank without images must take part in the vision tower's collectives: were it to skip them, this test
would hang.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from llavaonevision1_5 import shims
from sglang_cpu.process import free_port

pytestmark = pytest.mark.slow  # two processes that import AReaL: 20 s on an idle machine

WORKER = Path(__file__).with_name("fsdp_worker.py")


def padded_batch(prompts, num_answer=8):
    """A batch as the workflow makes it; the last `num_answer` tokens of each prompt play the answer."""
    longest = max(len(p.ids) for p in prompts)
    rows = {"input_ids": [], "attention_mask": [], "loss_mask": []}
    for prompt in prompts:
        missing = longest - len(prompt.ids)
        rows["input_ids"].append(prompt.ids + [0] * missing)
        rows["attention_mask"].append([True] * len(prompt.ids) + [False] * missing)
        rows["loss_mask"].append([0] * (len(prompt.ids) - num_answer) + [1] * num_answer + [0] * missing)
    batch = {key: torch.tensor(value) for key, value in rows.items()}
    batch["multi_modal_input"] = [dict(prompt.pixels) for prompt in prompts]
    return batch


@pytest.fixture(scope="module")
def output(checkpoint, prompts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    with_images, text_only = [prompts[2], prompts[1], prompts[3]], [prompts[0], prompts[0]]
    torch.save([padded_batch(with_images), padded_batch(text_only)], folder / "batch.pt")
    environment = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    arguments = [sys.executable, str(WORKER), str(checkpoint), str(folder / "batch.pt"), str(folder)]
    logs = [(folder / f"rank_{rank}.log").open("w") for rank in range(2)]
    ranks = [
        subprocess.Popen(
            arguments,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=logs[rank],
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    try:
        statuses = [rank.wait(timeout=150) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert statuses == [0, 0], (folder / "rank_0.log").read_text()[-3000:]
    return folder, with_images, text_only


def next_token_logprobs(model, prompt):
    ids = torch.tensor([prompt.ids])
    logprobs = model(input_ids=ids, **prompt.pixels).logits[0, :-1].log_softmax(-1)
    return logprobs.gather(-1, ids[0, 1:, None])[:, 0]


def test_logprobs_equal_one_by_one(output, model):
    folder, *shares = output
    for rank, prompts in enumerate(shares):
        rows = torch.load(folder / f"logprobs_{rank}.pt")
        for row, prompt in zip(rows, prompts, strict=True):
            with torch.no_grad():
                expected = next_token_logprobs(model, prompt)
            torch.testing.assert_close(row[: len(expected)], expected, atol=1e-5, rtol=0)


def test_gradients_equal_one_by_one(output, model):
    """Relative to the largest entry of each tensor: those of the tower are far smaller than those of the head."""
    folder, *shares = output
    prompts = [prompt for share in shares for prompt in share]
    loss = -sum(next_token_logprobs(model, prompt)[-8:].sum() for prompt in prompts) / (8 * len(prompts))
    loss.backward()
    gradients = torch.load(folder / "gradients.pt")
    assert set(gradients) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        scale = parameter.grad.abs().max()
        assert scale > 0, name
        torch.testing.assert_close(
            gradients[name] / scale, parameter.grad / scale, atol=1e-5, rtol=0, msg=name
        )


def test_what_the_engine_saves_loads_as_it_is(output, model, processor):
    saved = output[0] / "saved"
    for name, text in shims.FILES.items():
        assert (saved / name).read_text() == text
    again = AutoModelForImageTextToText.from_pretrained(saved, trust_remote_code=True)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert again.config.architectures == ["LLaVAOneVision1_5_ForConditionalGeneration"]
    assert again.config.suppress_media_tokens is True
    loaded = AutoProcessor.from_pretrained(saved, trust_remote_code=True)
    assert type(loaded) is type(processor)
    assert loaded.image_processor.size == processor.image_processor.size
    assert loaded.chat_template == processor.chat_template
