"""The rollout workflow and client against an engine that answers from a script."""

import asyncio
import threading
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from areal.api import ModelResponse
from areal.api.cli_args import GenerationHyperparameters, InferenceEngineConfig
from areal.infra import remote_inf_engine
from areal.utils.data import concat_padded_tensors
from PIL import Image
from transformers import AutoProcessor

from dataset.digits import scan_image
from dataset.images import to_png_bytes
from dataset.media_tokens import NEVER, media_token_ids
from reward.pool import RewardPool
from reward.settings import make_settings
from trains.config import BufferConfig
from trains.host.rollout import BoundedRollout, RecordingBackend, token_versions
from trains.image_files import ImageFiles
from trains.turns import Turns
from trains.workflow import VisionRolloutWorkflow

END = 258


@pytest.fixture(scope="module")
def processor(tiny_checkpoint):
    return AutoProcessor.from_pretrained(tiny_checkpoint, trust_remote_code=True)


@pytest.fixture(scope="module")
def pool():
    pool = RewardPool(num_workers=1)
    yield pool
    pool.close()


class ScriptedEngine:
    """Answers the n-th request with the n-th script: pieces of text, each under its own version."""

    def __init__(self, tokenizer, scripts):
        self.tokenizer, self.scripts, self.requests = tokenizer, list(scripts), []
        self.cached = []  # prompts of which a single token was wanted

    async def agenerate(self, request):
        if request.gconfig.max_new_tokens == 1:
            assert not self.requests, "the prompt of a group is in the cache before its rollouts ask"
            self.cached.append((request.rid, request.input_ids, request.image_data))
            await asyncio.sleep(0.01)  # nobody else asks meanwhile
            return ModelResponse(output_tokens=[END], output_logprobs=[0.0], stop_reason="length")
        pieces = self.scripts[len(self.requests)]
        self.requests.append(request)
        if isinstance(pieces, Exception):
            raise pieces
        output, known = [], list(request.input_ids)
        for index, (text, version) in enumerate(pieces):
            request.metadata["segments"].append((len(known), version))
            tokens = self.tokenizer(text)["input_ids"] + ([END] if index == len(pieces) - 1 else [])
            output, known = output + tokens, known + tokens
        return ModelResponse(
            input_tokens=request.input_ids,
            output_tokens=output,
            output_logprobs=[-0.5] * len(output),
            output_versions=[99] * len(output),  # AReaL's own tags are not used
            stop_reason="stop",
        )


def row(answer="7", images=1, **changes):
    image = {"bytes": to_png_bytes(scan_image(0)), "path": None}
    return {
        "id": "digits/0",
        "images": [image] * images,
        "problem": "<image>" * images + "Which digit is this?",
        "answer": [answer],
        "problem_type": "digits",
        "answer_type": "number",
        "source": "digits-number",
        "prompt_type": "answer",
        "spec": None,
    } | changes


def roll_out(processor, pool, scripts, prompt):
    workflow = VisionRolloutWorkflow(
        processor,
        GenerationHyperparameters(n_samples=len(scripts), stop_token_ids=[END], max_new_tokens=32),
        pool,
        forbidden_token_ids=[259, 260, 261, 262],
    )
    engine = ScriptedEngine(processor.tokenizer, scripts)
    return asyncio.run(workflow.arun_episode(engine, {"key": 5, "prompt": prompt})), engine


def test_a_group_of_two(processor, pool):
    scripts = [[("<answer>7</answer>", 3)], [("<answer>", 3), ("41</answer>", 4)]]
    group, engine = roll_out(processor, pool, scripts, row())
    num_prompt = len(engine.requests[0].input_ids)
    lengths = [
        len(processor.tokenizer(text)["input_ids"])
        for text in ("<answer>7</answer>", "<answer>", "41</answer>")
    ]
    long = lengths[1] + lengths[2] + 1
    assert group["input_ids"].shape == (2, num_prompt + max(long, lengths[0] + 1))
    assert group["rewards"].tolist() == [1.0, 0.0]
    assert group["loss_mask"].sum(-1).tolist() == [lengths[0] + 1, long]
    assert group["attention_mask"].sum(-1).tolist() == [num_prompt + lengths[0] + 1, num_prompt + long]
    versions = group["versions"]
    assert (versions[:, :num_prompt] == -1).all()
    assert versions[0][group["loss_mask"][0].bool()].unique().tolist() == [3]
    generated = versions[1][group["loss_mask"][1].bool()].tolist()
    assert generated == [3] * lengths[1] + [4] * (lengths[2] + 1)
    assert (group["logprobs"][group["loss_mask"] == 1] == -0.5).all()
    assert (group["logprobs"][group["loss_mask"] == 0] == 0.0).all()
    info = group["info"][0]
    assert (info.key, info.source, info.num_interruptions) == (5, "digits-number", 1)
    assert [score.status for score in info.scores] == ["ok", "ok"]
    assert info.completions == ["<answer>7</answer>", "<answer>41</answer>"]


def test_one_pixel_tensor_per_prompt(processor, pool):
    group, _ = roll_out(processor, pool, [[("<answer>7</answer>", 0)]] * 4, row())
    assert len(group["images"]) == 1
    assert group["images"][0]["pixel_values"].shape == (16, 588)  # 56 x 56 pixels are 16 patches
    batch = concat_padded_tensors([group, group])
    assert len(batch["images"]) == 2


def test_text_only_rows_keep_the_same_keys(processor, pool):
    with_image, _ = roll_out(processor, pool, [[("<answer>7</answer>", 0)]] * 2, row())
    without, engine = roll_out(processor, pool, [[("<answer>7</answer>", 0)]] * 2, row(images=0))
    assert without.keys() == with_image.keys()
    assert without["images"][0].keys() == with_image["images"][0].keys()
    assert without["images"][0]["pixel_values"].shape == (0, 588)
    assert engine.requests[0].image_data == []


def test_media_tokens_among_the_answer_are_refused(processor, pool):
    result, _ = roll_out(processor, pool, [[("<|image_pad|>", 0)]], row())
    assert "media tokens [261]" in result["failure"].message
    assert not result["failure"].is_data_error


def test_a_wrong_reference_is_a_data_error_and_a_broken_connection_is_not(processor, pool):
    result, _ = roll_out(processor, pool, [[("<answer>7</answer>", 0)]], row(answer="no number"))
    assert result["failure"].is_data_error
    assert result["failure"].key == 5
    result, _ = roll_out(processor, pool, [ConnectionError("gone")], row())
    assert not result["failure"].is_data_error
    assert "gone" in result["failure"].message
    # AReaL raises this where a server or proxy answers with a page instead of JSON
    result, _ = roll_out(processor, pool, [ValueError("Expected JSON dict response, got str")], row())
    assert not result["failure"].is_data_error


@pytest.mark.parametrize(("num_rollouts", "turns"), [(3, None), (1, None), (3, Turns())])
def test_one_token_fills_the_cache_before_the_group_asks(processor, pool, num_rollouts, turns):
    """Not for a single rollout, nor where one request follows the other anyway."""
    if turns is not None:
        turns.expect(0)
    workflow = VisionRolloutWorkflow(
        processor,
        GenerationHyperparameters(n_samples=num_rollouts, stop_token_ids=[END], max_new_tokens=32),
        pool,
        forbidden_token_ids=[261],
        turns=turns,
    )
    engine = ScriptedEngine(processor.tokenizer, [[("<answer>7</answer>", 0)]] * num_rollouts)
    group = asyncio.run(workflow.arun_episode(engine, {"key": 0, "prompt": row()}))
    assert group["input_ids"].shape[0] == len(engine.requests) == num_rollouts
    assert all(request.gconfig.max_new_tokens == 32 for request in engine.requests)
    asked = [(request.rid, request.input_ids, request.image_data) for request in engine.requests]
    assert engine.cached == (asked[:1] if num_rollouts > 1 and turns is None else [])


@pytest.mark.parametrize("fails", [False, True])
def test_images_lie_in_files_while_a_group_is_generated(processor, pool, tmp_path, fails):
    left = tmp_path / "images" / "of-a-killed-run.png"
    left.parent.mkdir()
    left.touch()
    files, seen = ImageFiles(left.parent), []
    assert not left.exists()

    class Looking(ScriptedEngine):
        async def agenerate(self, request):
            seen.append([Image.open(path).size for path in request.image_data])
            return await super().agenerate(request)

    workflow = VisionRolloutWorkflow(
        processor,
        GenerationHyperparameters(n_samples=2, stop_token_ids=[END], max_new_tokens=32),
        pool,
        forbidden_token_ids=[259, 260, 261, 262],
        image_files=files,
    )
    engine = Looking(
        processor.tokenizer, [[("<answer>7</answer>", 0)], OSError("gone") if fails else [("7", 0)]]
    )
    group = asyncio.run(workflow.arun_episode(engine, {"key": 0, "prompt": row(images=2)}))
    assert ("failure" in group) == fails
    assert seen == [[(56, 56)] * 2] * 3
    first, second = engine.requests
    assert first.image_data == second.image_data
    assert list(files.folder.iterdir()) == []
    if not fails:  # for the probe of the parity, which any server may answer later
        assert all(len(image) > 100 for image in group["info"][0].image_data)


def test_the_rollouts_of_a_group_go_to_one_server_and_groups_to_all(processor, pool, monkeypatch):
    addresses, asked = [f"127.0.0.1:{port}" for port in (1, 2, 3)], {}
    client = BoundedRollout(InferenceEngineConfig(backend="sglang"), BufferConfig(), [261])
    inner = client._engine
    inner.addresses, inner._executor = addresses, None
    monkeypatch.setattr(
        type(inner), "workflow_executor", SimpleNamespace(is_paused=lambda: False), raising=False
    )

    async def answer(addr, payload, **_):
        asked.setdefault(tuple(payload["input_ids"]), []).append(addr)
        tokens = processor.tokenizer("<answer>7</answer>")["input_ids"] + [END]
        tokens = tokens[: payload["sampling_params"]["max_new_tokens"]]
        return {"meta_info": {
            "finish_reason": {"type": "stop"}, "output_token_logprobs": [(-0.5, token) for token in tokens],
        }}  # fmt: skip

    async def session():
        return None

    monkeypatch.setattr(remote_inf_engine, "arequest_with_retry", answer)
    monkeypatch.setattr(remote_inf_engine.workflow_context, "get_aiohttp_session", session)
    workflow = VisionRolloutWorkflow(
        processor,
        GenerationHyperparameters(n_samples=4, stop_token_ids=[END], max_new_tokens=32),
        pool,
        forbidden_token_ids=[259, 260, 261, 262],
    )

    async def groups():
        prompts = [row(problem=f"<image>Which digit is this, {i}?") for i in range(9)]
        return await asyncio.gather(
            *(workflow.arun_episode(inner, {"key": i, "prompt": prompt}) for i, prompt in enumerate(prompts))
        )

    assert all(group["rewards"].tolist() == [1.0] * 4 for group in asyncio.run(groups()))
    assert all(len(servers) == 1 + 4 and len(set(servers)) == 1 for servers in asked.values())
    assert Counter(servers[0] for servers in asked.values()) == dict.fromkeys(addresses, 3)


def test_versions_follow_requests_and_not_responses():
    # asked under version 2, cut before any token, then under 3 and, after two tokens, under 4
    assert token_versions([(4, 2), (4, 3), (6, 4)], num_prompt=4, num_tokens=7) == [-1] * 4 + [3, 3, 4]


def test_the_client_forbids_tokens_and_notes_versions():
    from areal.api import ModelRequest

    backend = RecordingBackend([261])
    request = ModelRequest(input_ids=[1, 2, 3], metadata={"segments": []})
    payload = backend.build_generation_request(request, with_lora=False, version=6).payload
    assert payload["sampling_params"]["logit_bias"] == {"261": NEVER}
    assert request.metadata["segments"] == [(3, 6)]


def test_the_client_is_areals_with_our_backend():
    client = BoundedRollout(InferenceEngineConfig(backend="sglang"), BufferConfig(), [261])
    assert isinstance(client._engine.backend, RecordingBackend)


def test_requests_are_aborted_and_answered_before_the_server_is_asked_to_pause(monkeypatch):
    client = BoundedRollout(InferenceEngineConfig(backend="sglang"), BufferConfig(), [261])
    inner, asked = client._engine, []

    def ask(request):
        asked.append((request.endpoint, inner.backend.num_open))
        if request.endpoint == "/abort_request":
            threading.Timer(0.05, setattr, (inner.backend, "num_open", 0)).start()

    monkeypatch.setattr(inner, "_run_request_on_all_servers", ask)
    inner.backend.num_open = 3
    client.pause_generation()
    assert asked == [("/abort_request", 3), ("/pause_generation", 0), ("/flush_cache?timeout=60", 0)]


def test_a_request_counts_as_open_until_its_answer():
    from areal.api import ModelRequest

    backend = RecordingBackend([])
    backend.build_generation_request(ModelRequest(input_ids=[1], metadata={"segments": []}), False, 0)
    assert backend.num_open == 1
    answer = {"finish_reason": {"type": "abort", "message": "x"}, "output_token_logprobs": []}
    backend.parse_generation_response({"meta_info": answer})
    assert backend.num_open == 0


@pytest.mark.parametrize(("last", "reason"), [(258, "stop"), (7, "abort")])
def test_an_answer_that_was_aborted_at_its_end_has_ended(last, reason):
    """Asked for the rest, a server would go on behind the end of the answer."""
    from areal.api import ModelRequest
    from areal.api.cli_args import GenerationHyperparameters

    backend = RecordingBackend([])
    settings = GenerationHyperparameters(stop_token_ids=[258])
    backend.build_generation_request(
        ModelRequest(input_ids=[1], metadata={"segments": []}, gconfig=settings), False, 0
    )
    answer = {
        "finish_reason": {"type": "abort", "message": "x"},
        "output_token_logprobs": [(-0.5, 9, None), (-0.1, last, None)],
    }
    result = backend.parse_generation_response({"meta_info": answer})
    assert (result.output_tokens, result.stop_reason) == ([9, last], reason)


def test_media_tokens_come_from_the_checkpoint(tiny_checkpoint):
    assert media_token_ids(tiny_checkpoint) == [259, 260, 261, 262]


def test_tensor_types(processor, pool):
    group, _ = roll_out(processor, pool, [[("<answer>7</answer>", 0)]], row())
    types = {key: value.dtype for key, value in group.items() if torch.is_tensor(value)}
    assert types == {
        "input_ids": torch.int64, "attention_mask": torch.bool, "loss_mask": torch.int32,
        "logprobs": torch.float32, "versions": torch.int32, "rewards": torch.float32,
        "mm_token_type_ids": torch.int64,
    }  # fmt: skip


def test_long_answers_lose_reward_unless_the_sample_says_otherwise(processor, pool):
    """Limit 32, buffer 32: an answer of n tokens loses n / 32."""

    def reward(**changes):
        workflow = VisionRolloutWorkflow(
            processor,
            GenerationHyperparameters(n_samples=1, stop_token_ids=[END], max_new_tokens=32),
            pool,
            forbidden_token_ids=[261],
            reward_settings=make_settings({}, 32, 32),
        )
        engine = ScriptedEngine(processor.tokenizer, [[("<answer>7</answer>", 0)]])
        group = asyncio.run(workflow.arun_episode(engine, {"key": 0, "prompt": row(**changes)}))
        return float(group["rewards"][0]), group["info"][0].lengths[0]

    total, length = reward()
    assert total == pytest.approx(1 - length / 32)
    assert reward(spec={"overlong": {"max_tokens": 1000, "buffer_tokens": 10}})[0] == 1.0
