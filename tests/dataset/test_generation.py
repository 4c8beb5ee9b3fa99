"""Requests, retries and seeds of the generation client, and the command lines of servers."""

import asyncio
import json
import math
import types

import pytest
import torch
from aiohttp import web

from dataset.curate.engine import Engine, EngineDead, RequestFailed, SamplingOptions, accepts_seeds
from dataset.curate.sampling import attempt_seed, seeded_processor
from dataset.curate.server import PORTS, ServerOptions, command_line, free_port, split_addresses

OPTIONS = SamplingOptions(3, 1.0, 20, seed=219, seeded=True, stop_token_ids=(2, 1), forbidden_token_ids=(7,))


def ask(replies, options=OPTIONS, *, images=("aGk=",), healthy=True):
    """(answers or exception, payloads) of one prompt against a server that gives these (status, body) in turn."""
    payloads = []

    async def scenario():
        async def generate(request):
            payloads.append(await request.json())
            status, body = replies[min(len(payloads), len(replies)) - 1]
            return web.json_response(body, status=status)

        async def health(request):
            return web.Response(status=200 if healthy else 503)

        app = web.Application()
        app.add_routes([web.post("/generate", generate), web.get("/health", health)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        engine = Engine(f"127.0.0.1:{site._server.sockets[0].getsockname()[1]}", request_timeout_seconds=20)
        await engine.open()
        try:
            return await engine.generate("id/1", [5, 6], list(images), options)
        except (RequestFailed, EngineDead) as error:
            return error
        finally:
            await engine.close()
            await runner.cleanup()

    return asyncio.run(scenario()), payloads


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch):
    monkeypatch.setattr("dataset.curate.engine.BACKOFF_SECONDS", 0.001)


def reply(ids, kind="stop"):
    return {"output_ids": ids, "meta_info": {"finish_reason": {"type": kind}}}


def test_seeded_requests_carry_one_seed_per_attempt():
    answers, payloads = ask([(200, reply([1, 2]))])
    seeds = [attempt_seed(219, "id/1", i) for i in range(3)]
    assert [answer.seed for answer in answers] == seeds
    assert sorted(p["sampling_params"]["custom_params"]["seed"] for p in payloads) == sorted(seeds)
    for payload in payloads:
        assert payload["input_ids"] == [5, 6]
        assert payload["image_data"] == ["aGk="]
        assert payload["custom_logit_processor"] == seeded_processor()
        assert payload["sampling_params"]["max_new_tokens"] == 20
        assert payload["sampling_params"]["stop_token_ids"] == [2, 1]
        assert payload["sampling_params"]["logit_bias"] == {"7": -1e4}
        assert "n" not in payload["sampling_params"]


def test_several_images_of_one_prompt_are_no_batch_of_prompts():
    """SGLang takes a flat list beside `n` for one image each of so many prompts, and refuses it."""
    for attempts, sent in ((3, [["a", "b"]]), (1, ["a", "b"])):
        options = SamplingOptions(attempts, 1.0, 20, seed=219, seeded=False)
        _, (payload,) = ask([(200, [reply([1])] * attempts)], options, images=("a", "b"))
        assert payload["image_data"] == sent


def test_a_grouped_request_asks_once_for_all_attempts():
    grouped = SamplingOptions(3, 1.0, 20, seed=219, seeded=False)
    answers, payloads = ask([(200, [reply([1]), reply([2], "length"), reply([3])])], grouped, images=())
    assert [a.output_ids for a in answers] == [[1], [2], [3]]
    assert [a.finish_reason for a in answers] == ["stop", "length", "stop"]
    assert len(payloads) == 1
    assert payloads[0]["sampling_params"]["n"] == 3
    assert "image_data" not in payloads[0]
    assert "custom_logit_processor" not in payloads[0]


def test_greedy_sampling_needs_no_processor():
    _, payloads = ask([(200, reply([1]))], SamplingOptions(1, 0.0, 20, seed=1, seeded=True))
    assert "custom_logit_processor" not in payloads[0]


def test_aborted_and_failed_requests_are_tried_again():
    one = SamplingOptions(1, 1.0, 20, seed=1, seeded=True)
    answers, payloads = ask([(200, reply([1], "abort")), (503, {}), (200, reply([7]))], one)
    assert [a.output_ids for a in answers] == [[7]]
    assert len(payloads) == 3


@pytest.mark.parametrize(
    ("replies", "healthy", "kind", "message", "num_requests"),
    [
        ([(400, {"error": "too long"})], True, RequestFailed, "too long", 1),  # no second try for a refusal
        ([(500, {"error": "boom"})], True, RequestFailed, "boom", 4),
        ([(500, {"error": "boom"})], False, EngineDead, "does not answer", 4),
        ([(200, {"text": "no ids"})], True, RequestFailed, "no output_ids", 1),
        ([(200, [reply([1]), reply([2])])], True, RequestFailed, "asked for 1 answers, got 2", 1),
    ],
)
def test_what_cannot_be_served_is_told_apart(replies, healthy, kind, message, num_requests):
    grouped = SamplingOptions(1, 1.0, 20, seed=1, seeded=False)
    error, payloads = ask(replies, grouped, healthy=healthy)
    assert type(error) is kind
    assert message in str(error)
    assert len(payloads) == num_requests


def test_nobody_listening_is_a_dead_engine():
    async def scenario():
        engine = Engine(f"127.0.0.1:{free_port()}")
        await engine.open()
        try:
            await engine.generate("x", [1], [], OPTIONS)
        finally:
            await engine.close()

    with pytest.raises(EngineDead, match="does not answer"):
        asyncio.run(scenario())
    assert accepts_seeds(f"127.0.0.1:{free_port()}") is False


def test_seeds_differ_by_sample_attempt_and_run_and_fit_31_bits():
    seeds = {attempt_seed(s, f"id{i}", a) for s in (1, 2) for i in range(50) for a in range(10)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert attempt_seed(219, "virl39k/train/0000001", 3) == attempt_seed(219, "virl39k/train/0000001", 3)


def load_processor():
    import dill

    return dill.loads(bytes.fromhex(json.loads(seeded_processor())["callable"]))()


def parameters(seed, num_tokens, temperature=1.0):
    request = types.SimpleNamespace(output_ids=[0] * num_tokens)
    return {"seed": seed, "temperature": temperature, "__req__": request}


def test_the_processor_leaves_one_token_and_depends_on_seed_and_position_alone():
    processor, generator = load_processor(), torch.Generator().manual_seed(0)
    logits = torch.randn(4, 50, generator=generator)
    first = processor(logits.clone(), [parameters(i, 3) for i in range(4)])
    assert ((first == 0).sum(-1) == 1).all()
    assert torch.isinf(first[first != 0]).all()
    # Another place in the batch and other neighbours change nothing.
    alone = processor(logits[2:3].clone(), [parameters(2, 3)])
    assert alone.argmax() == first[2].argmax()
    chosen = {int(processor(logits[:1].clone(), [parameters(9, n)]).argmax()) for n in range(30)}
    assert len(chosen) > 5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_processor_samples_from_the_softmax(temperature):
    processor = load_processor()
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5])
    expected = torch.softmax(logits.double() / temperature, 0)
    num = 4000
    chosen = processor(
        logits.repeat(num, 1), [parameters(seed, 0, temperature) for seed in range(num)]
    ).argmax(-1)
    found = torch.bincount(chosen, minlength=4) / num
    for p, q in zip(expected.tolist(), found.tolist(), strict=True):
        assert abs(p - q) < 4 * math.sqrt(p * (1 - p) / num)  # four standard errors


def test_command_lines_of_servers():
    pytest.importorskip("llavaonevision1_5")
    cpu = command_line(ServerOptions("m", "cpu", "logs", seeded=True), 1234)
    assert cpu[1:3] == ["-m", "sglang_cpu.launch_server"]
    assert "--enable-custom-logit-processor" in cpu
    assert "--disable-overlap-schedule" in cpu
    gpu = command_line(ServerOptions("m", "cuda", "logs", extra_arguments=("--tp", "2")), 1234)
    assert gpu[1:3] == ["-m", "sglang.launch_server"]
    assert gpu[-2:] == ["--tp", "2"]
    assert "--enable-custom-logit-processor" not in gpu
    assert gpu[gpu.index("--host") + 1] == "127.0.0.1"
    assert gpu[gpu.index("--mem-fraction-static") + 1] == "0.8"


def test_ports_and_addresses():
    assert free_port() in PORTS
    assert split_addresses(["a:1,b:2", "c:3"]) == ("a:1", "b:2", "c:3")
