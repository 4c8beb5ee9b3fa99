"""SGLang's own server against transformers: the same tokens must have the same log-probabilities.

The weights are random, so sampled bytes are mostly no valid text: a server that decoded and tokenised again
would fail the test of interruption.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import requests
import torch

from sglang_cpu.process import free_port

TOLERANCE = 1e-5


def generate(server: str, ids: list[int], images: list[str], **sampling: Any) -> dict[str, Any]:
    """One request as AReaL's engine sends it; returns tokens, log-probabilities and finish reason."""
    payload = {
        "input_ids": ids,
        "image_data": images,
        "sampling_params": {"max_new_tokens": 12, "temperature": 1.0, "ignore_eos": True, **sampling},
        "return_logprob": True,
        "stream": False,
    }
    response = requests.post(f"{server}/generate", json=payload, timeout=60)
    assert response.status_code == 200, response.text
    meta = response.json()["meta_info"]
    return {
        "tokens": [entry[1] for entry in meta["output_token_logprobs"]],
        "logprobs": [entry[0] for entry in meta["output_token_logprobs"]],
        "reason": meta["finish_reason"]["type"],
    }


def call(server: str, endpoint: str, **payload: Any) -> None:
    response = requests.post(f"{server}/{endpoint}", json=payload, timeout=60)
    assert response.status_code == 200, response.text


@torch.no_grad()
def reference(model: torch.nn.Module, prompt: Any, tokens: list[int]) -> torch.Tensor:
    """Log-probabilities of `tokens` after the prompt, by transformers."""
    ids = torch.tensor([prompt.ids + tokens])
    logits = model(input_ids=ids, **prompt.pixels).logits[0, len(prompt.ids) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(tokens)[:, None])[:, 0]


def assert_equal_logprobs(model: torch.nn.Module, prompt: Any, output: dict[str, Any]) -> None:
    assert len(output["tokens"]) == len(output["logprobs"]) > 0
    expected = reference(model, prompt, output["tokens"])
    torch.testing.assert_close(torch.tensor(output["logprobs"]), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("index", range(4), ids=["text", "one image", "two images", "wide image"])
def test_logprobs_equal_transformers(server, model, prompts, index):
    output = generate(server, prompts[index].ids, prompts[index].image_data)
    assert output["reason"] == "length"
    assert_equal_logprobs(model, prompts[index], output)


def test_one_mark_per_image_is_expanded(server, model, prompts, processor):
    prompt = prompts[2]
    pad = processor.image_token_id
    marks = [token for place, token in enumerate(prompt.ids) if token != pad or prompt.ids[place - 1] != pad]
    assert marks.count(pad) == 2
    assert_equal_logprobs(model, prompt, generate(server, marks, prompt.image_data))


def test_wrong_number_of_image_tokens_is_refused_with_counts(server, prompts, processor):
    ids = list(prompts[1].ids)
    ids.remove(processor.image_token_id)
    payload = {"input_ids": ids, "image_data": prompts[1].image_data}
    response = requests.post(f"{server}/generate", json=payload, timeout=60)
    assert response.status_code == 400
    assert "3 image tokens" in response.text
    assert "1 images need 4 tokens" in response.text


def test_many_requests_with_one_image(server, model, prompts):
    outputs: list[dict[str, Any]] = []

    def one() -> None:
        outputs.append(generate(server, prompts[3].ids, prompts[3].image_data))

    threads = [threading.Thread(target=one) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outputs) == 16
    assert len({tuple(output["tokens"]) for output in outputs}) > 1
    for output in outputs:
        assert_equal_logprobs(model, prompts[3], output)


@pytest.mark.parametrize("index", [0, 1, 2], ids=["text", "one image", "two images"])
def test_resumed_after_an_interruption(server, model, prompts, index):
    prompt = prompts[index]
    first: dict[str, Any] = {}

    def run() -> None:
        first.update(generate(server, prompt.ids, prompt.image_data, max_new_tokens=3000))

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.7)
    call(server, "pause_generation")
    thread.join()
    call(server, "continue_generation")
    assert first["reason"] == "abort"
    assert 0 < len(first["tokens"]) < 3000
    resumed = generate(server, prompt.ids + first["tokens"], prompt.image_data)
    both = {key: first[key] + resumed[key] for key in ("tokens", "logprobs")}
    assert_equal_logprobs(model, prompt, both)


def test_weight_update_from_disk_reaches_images_seen_before(server, model, checkpoint, prompts, tmp_path):
    prompt = prompts[1]
    before = generate(server, prompt.ids, prompt.image_data)
    old = reference(model, prompt, before["tokens"])
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in model.visual.parameters():  # the tower alone: a stale image feature would show
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(tmp_path)
    call(server, "pause_generation")
    call(server, "update_weights_from_disk", model_path=str(tmp_path), abort_all_requests=True)
    call(server, "continue_generation")
    try:
        assert (reference(model, prompt, before["tokens"]) - old).abs().max() > 1e-3
        assert_equal_logprobs(model, prompt, generate(server, prompt.ids, prompt.image_data))
    finally:
        call(server, "update_weights_from_disk", model_path=str(checkpoint))


def test_weight_update_over_a_process_group(server, model, checkpoint, prompts):
    """The path of NCCL updates, with gloo: weights arrive in buckets, by their names on disk."""
    from areal.engine.core.distributed import init_custom_process_group

    prompt, port = prompts[1], free_port()
    generate(server, prompt.ids, prompt.image_data)
    group_arguments = {"world_size": 2, "group_name": "update_weight_group", "backend": "gloo"}
    joined = threading.Thread(
        target=call,
        args=(server, "init_weights_update_group"),
        kwargs={"master_address": "127.0.0.1", "master_port": str(port), "rank_offset": 1, **group_arguments},
    )
    joined.start()
    group = init_custom_process_group(init_method=f"tcp://127.0.0.1:{port}", rank=0, **group_arguments)
    joined.join()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(2)
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    weights = list(model.named_parameters())
    call(server, "pause_generation")
    for start in range(0, len(weights), 40):
        bucket = weights[start : start + 40]
        update = threading.Thread(
            target=call,
            args=(server, "update_weights_from_distributed"),
            kwargs={
                "names": [name for name, _ in bucket],
                "dtypes": ["float32"] * len(bucket),
                "shapes": [list(weight.shape) for _, weight in bucket],
                "group_name": group_arguments["group_name"],
                "abort_all_requests": True,
            },
        )
        update.start()
        for _, weight in bucket:
            torch.distributed.broadcast(weight.detach(), src=0, group=group)
        update.join()
    call(server, "continue_generation")
    try:
        assert_equal_logprobs(model, prompt, generate(server, prompt.ids, prompt.image_data))
    finally:
        call(server, "update_weights_from_disk", model_path=str(checkpoint))
