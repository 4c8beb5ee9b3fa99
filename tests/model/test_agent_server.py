"""A conversation of three turns with two images that a tool put in, on a real server, against the trainer's rows."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import aiohttp
import pytest
import requests
import torch
from areal.api import ModelResponse
from areal.api.cli_args import GenerationHyperparameters

import dataset.agent.conversation
import trains.parity
from dataset.agent.pool import ToolPool
from dataset.agent.types import AgentSettings, Call, Turn
from dataset.images import to_png_bytes
from dataset.prompts import PromptConfig
from llavaonevision1_5 import sglang_environment
from reward.pool import RewardPool
from sglang_cpu.process import running_server
from tests.model.conftest import make_image
from tests.trains.host.test_own_images import shared
from trains.agent import AgentWorkflow
from trains.host.batches import concatenated
from trains.image_files import ImageFiles

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
TOLERANCE = 1e-5
TOKENS = (30, 2000, 30)  # of each turn


@pytest.fixture
def own_server(checkpoint, tmp_path):
    """A server whose weights these tests may change."""
    options = {"max-total-tokens": 16384}
    with running_server(
        checkpoint,
        log_path=tmp_path / "server.log",
        options=options,
        environment=sglang_environment(),
        timeout_seconds=600,
    ) as url:
        yield url


class ServerEngine:
    """AReaL's engine in short: asks the server, and asks again for the rest when a weight update has cut an answer."""

    def __init__(self, url):
        self.url, self.version, self.paused, self.turn, self.pieces = url, 0, False, 0, []

    async def agenerate(self, request):
        limit, tokens, logprobs = TOKENS[self.turn], [], []
        while len(tokens) < limit:
            while self.paused:
                await asyncio.sleep(0.05)
            request.metadata["segments"].append((len(request.input_ids) + len(tokens), self.version))
            payload = {
                "input_ids": request.input_ids + tokens,
                "image_data": request.image_data,
                "sampling_params": {
                    "max_new_tokens": limit - len(tokens),
                    "temperature": 1.0,
                    "ignore_eos": True,
                },
                "return_logprob": True,
            }
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{self.url}/generate", json=payload) as reply,
            ):
                assert reply.status == 200, await reply.text()
                meta = (await reply.json())["meta_info"]
            tokens += [entry[1] for entry in meta["output_token_logprobs"]]
            logprobs += [entry[0] for entry in meta["output_token_logprobs"]]
            self.pieces.append((self.turn, meta["finish_reason"]["type"], len(meta["output_token_logprobs"])))
        self.turn += 1
        return ModelResponse(output_tokens=tokens, output_logprobs=logprobs, stop_reason="stop")


def changed(model, folder, processor):
    """The same model a step later, saved for the server."""
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def update_in_the_middle(engine, folder):
    """Pause, hand over, go on, while turn two is being written."""
    while engine.turn != 1:
        time.sleep(0.01)
    time.sleep(0.5)
    engine.paused = True
    for endpoint, payload in (
        ("pause_generation", {}),
        ("update_weights_from_disk", {"model_path": str(folder), "abort_all_requests": True}),
        ("continue_generation", {}),
    ):
        assert requests.post(f"{engine.url}/{endpoint}", json=payload, timeout=60).status_code == 200
    engine.version, engine.paused = 1, False


def test_three_turns_two_images_and_a_weight_update(  # noqa: PLR0917 - fixtures
    own_server, checkpoint, model, processor, tmp_path, monkeypatch
):
    """The turns are random bytes, mostly no valid text: whoever tokenised them again would be found out."""
    boxes = iter([[0, 0, 40, 40], [20, 10, 56, 40]])
    turns = iter([Call("zoom", {"bbox_2d": next(boxes)}) for _ in range(2)])
    monkeypatch.setattr(
        dataset.agent.conversation, "read_turn", lambda text, tools: Turn(call=next(turns, None))
    )
    old, new = model, type(model).from_pretrained(checkpoint).eval()
    changed(new, tmp_path / "new", processor)
    with RewardPool(1) as rewards:
        tools = ToolPool(1, with_python=False)
        workflow = AgentWorkflow(
            processor,
            GenerationHyperparameters(n_samples=1, stop_token_ids=[258], max_new_tokens=2000),
            rewards,
            forbidden_token_ids=[259, 260, 261, 262],
            prompts=PromptConfig(tools=("zoom",)),
            image_files=ImageFiles(tmp_path / "images"),
            settings=AgentSettings(tools=("zoom",), max_tokens=4000),
            tools=tools,
        )
        engine = ServerEngine(own_server)
        updating = threading.Thread(target=update_in_the_middle, args=(engine, tmp_path / "new"))
        updating.start()
        image = {"bytes": to_png_bytes(make_image(7, 112, 84)), "path": None}
        row = {
            "id": "a", "images": [image], "problem": "<image>Which digit is this?", "answer": ["7"], "spec": None,
            "problem_type": "digits", "answer_type": "number", "source": "digits", "prompt_type": "answer",
        }  # fmt: skip
        group = asyncio.run(workflow.arun_episode(engine, {"key": 0, "prompt": row}))
        updating.join()
        tools.close()
    assert "failure" not in group, group
    assert [turn["num_images"] for turn in group["info"][0].trajectories[0]["turns"]] == [1, 1, 0]
    cut = [(turn, count) for turn, reason, count in engine.pieces if reason == "abort"]
    assert len(cut) == 1, engine.pieces
    assert cut[0][0] == 1
    assert 0 < cut[0][1] < TOKENS[1]

    mask, versions = group["loss_mask"][0].bool(), group["versions"][0]
    assert int(mask.sum()) == sum(TOKENS)
    assert sorted(versions[mask].unique().tolist()) == [0, 1]
    assert group["info"][0].num_interruptions == 1
    batch = concatenated([group])
    with torch.no_grad():
        trainer = {version: shared(m, batch, None)[0].float() for version, m in ((0, old), (1, new))}
    for version in (0, 1):
        places = (mask & (versions == version)).nonzero()[:, 0]
        server = group["logprobs"][0, places]
        torch.testing.assert_close(server, trainer[version][places - 1], atol=TOLERANCE, rtol=0)
        other = trainer[1 - version][places - 1]
        assert (server - other).abs().max() > 1e-2  # the weights differ enough to be told apart

    # the probe of the parity asks the server for the whole trajectory under the weights that it has now
    rollout = SimpleNamespace(server_url=own_server)
    actor = SimpleNamespace(compute_full_logp=lambda rows: trainer[1][None, : rows["input_ids"].shape[1]])
    trains.parity.probe(actor, rollout, [group], 1.0).finish()
    assert len(group["server_gap"]) == sum(TOKENS)
    assert group["server_gap"].max() < TOLERANCE
