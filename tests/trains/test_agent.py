"""Conversations with tools through a fake engine: what was generated is what is trained on, token by token."""

import asyncio
import base64
import io
import json
import random

import pytest
from areal.api import ModelResponse
from areal.api.cli_args import GenerationHyperparameters
from PIL import Image
from transformers import AutoProcessor

from dataset.agent.pool import ToolFailed
from dataset.agent.types import AgentSettings
from dataset.digits import scan_image
from dataset.images import to_base64_png, to_png_bytes
from dataset.prompts import PromptConfig
from reward.pool import RewardPool
from reward.trajectory import TrajectoryWeights
from trains.agent import AgentWorkflow
from trains.buffer import oldest_version
from trains.host.batches import OWN, PIXELS, concatenated
from trains.rollout_records import ImageStore

END, IMAGE = 258, 261
FORBIDDEN = [259, 260, 261, 262]


@pytest.fixture(scope="module")
def processor(tiny_checkpoint):
    return AutoProcessor.from_pretrained(tiny_checkpoint, trust_remote_code=True)


@pytest.fixture(scope="module")
def pool():
    pool = RewardPool(num_workers=1)
    yield pool
    pool.close()


def call(name, **arguments):
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


class FakeTools:
    """Answers calls as told: `zoom` gives an image, `python` text, and both sometimes something else."""

    def __init__(self, rng):
        self.rng, self.contexts = rng, []

    async def call(self, name, arguments, context, seconds):
        self.contexts.append(context)
        await asyncio.sleep(0)
        what = self.rng.choice(["right", "right", "right", "refused", "timeout", "long", "marks"])
        if what == "timeout":
            raise ToolFailed("tool_timeout", "no result")
        if what == "refused":
            return {"refused": "no"}
        if what == "long":
            return {"text": "word " * 500}
        if what == "marks":
            return {"text": "<|im_end|><|image_pad|><|vision_start|><tool_call>"}
        size = self.rng.choice([(56, 56), (84, 56), (112, 112)])
        image = {"png": to_base64_png(Image.new("RGB", size)), "region": (0, 0, 9, 9), "size": size}
        return {"text": "see", "images": [image | {"of_parent": True}]} if name == "zoom" else {"text": "42"}


class RandomEngine:
    """Writes random turns: calls, faults, answers, any bytes; cut by weight updates and by the limit of tokens."""

    def __init__(self, rng, tokenizer):
        self.rng, self.tokenizer, self.version, self.said = rng, tokenizer, 0, {}
        self.is_cached = False

    def text(self):
        box = sorted(self.rng.sample(range(56), 2)) * 2
        return self.rng.choice(
            [
                call("zoom", bbox_2d=[box[0], box[0], box[1], box[1]], n=self.rng.random()),
                call("zoom", bbox_2d=[0, 0, 9, 9]),
                call("zoom", bbox_2d=[0, 0, 9, 9], image=self.rng.randrange(4)),
                call("python", code=str(self.rng.random())),
                call("nothing"),
                "<tool_call>{</tool_call>",
                "<tool_call>never closed",
                call("python", code="1") * 2,
                "<think>hm</think><answer>7</answer>",
                f"<answer>7</answer>{call('python', code='1')}",
                "\xff any � text",
            ]
        )

    async def agenerate(self, request):
        rng = self.rng
        if not self.is_cached:  # the prompt alone, before the group's rollouts
            assert request.gconfig.max_new_tokens == 1
            self.is_cached = True
            return ModelResponse(output_tokens=[END], output_logprobs=[0.0], stop_reason="length")
        await asyncio.sleep(rng.random() / 1000)
        assert request.input_ids.count(IMAGE) == tokens_of(request.image_data)
        wanted = self.tokenizer(self.text())["input_ids"] + [END]
        limit = request.gconfig.max_new_tokens
        assert limit >= 1
        tokens, reason = wanted[:limit], "stop" if len(wanted) <= limit else "length"
        cuts = sorted(rng.sample(range(len(tokens) + 1), min(rng.randrange(3), len(tokens))))
        for cut in [0, *cuts]:
            request.metadata["segments"].append((len(request.input_ids) + cut, self.version))
            self.version += rng.randrange(2)
        logprobs = [-rng.random() for _ in tokens]
        marks = [0, *cuts, len(tokens)]
        versions = []
        for (_, version), start, stop in zip(
            request.metadata["segments"], marks[:-1], marks[1:], strict=True
        ):
            versions += [version] * (stop - start)
        # the conversation is known by its ids: nothing but what was said may stand in it
        self.said.setdefault(tuple(request.input_ids), []).append((tokens, logprobs, versions))
        return ModelResponse(
            input_tokens=request.input_ids,
            output_tokens=tokens,
            output_logprobs=logprobs,
            output_versions=[99] * len(tokens),
            stop_reason=reason,
        )


def tokens_of(images):
    """Image tokens of base64 images at their size."""
    sizes = [Image.open(io.BytesIO(base64.b64decode(image))).size for image in images]
    return sum(width * height // 28**2 for width, height in sizes)


def row(images=1, **changes):
    image = {"bytes": to_png_bytes(scan_image(0)), "path": None}
    return {
        "id": "digits/0",
        "images": [image] * images,
        "problem": "<image>" * images + "Which digit is this?",
        "answer": ["7"],
        "problem_type": "digits",
        "answer_type": "number",
        "source": "digits-number",
        "prompt_type": "answer",
        "spec": None,
    } | changes


def workflow_of(processor, pool, tools, rollouts, turn_tokens=90, **settings):
    names = tuple(settings.pop("names", ("zoom", "python")))
    return AgentWorkflow(
        processor,
        GenerationHyperparameters(n_samples=rollouts, stop_token_ids=[END], max_new_tokens=turn_tokens),
        pool,
        forbidden_token_ids=FORBIDDEN,
        prompts=PromptConfig(tools=names),
        settings=AgentSettings(tools=names, **settings),
        tools=tools,
        weights=settings.pop("weights", TrajectoryWeights()),
    )


@pytest.mark.parametrize("seed", range(40))
def test_what_was_generated_is_what_is_trained_on(processor, pool, seed, tmp_path):
    rng = random.Random(seed)
    engine, tools = RandomEngine(rng, processor.tokenizer), FakeTools(rng)
    budget = rng.choice([40, 150, 400, 900])
    workflow = workflow_of(
        processor, pool, tools, rollouts=3, turn_tokens=rng.choice([8, 40, 90]), max_tokens=budget,
        max_turns=rng.randrange(1, 6), max_images=rng.randrange(3), max_reply_chars=rng.choice([64, 300]),
    )  # fmt: skip
    workflow.image_store = ImageStore(tmp_path)
    group = asyncio.run(workflow.arun_episode(engine, {"key": 3, "prompt": row(rng.randrange(3))}))
    assert "failure" not in group, group
    num_prompt = int(group["loss_mask"][0].argmax())
    for i in range(3):
        length = int(group["attention_mask"][i].sum())
        ids, mask = group["input_ids"][i].tolist(), group["loss_mask"][i].tolist()
        assert not any(mask[:num_prompt])
        assert not any(mask[length:])
        assert length - num_prompt <= budget
        place = num_prompt
        for turn, step in enumerate(group["info"][0].trajectories[i]["turns"]):
            end = place + step["num_tokens"]
            logprobs = group["logprobs"][i, place:end].tolist()
            kept = (ids[place:end], pytest.approx(logprobs), group["versions"][i, place:end].tolist())
            engine.said[tuple(ids[:place])].remove(
                kept
            )  # ValueError: it was never said, or has been kept twice
            assert all(mask[place:end])
            assert turn < workflow.settings.max_turns
            place = end
            while place < length and not mask[place]:  # the reply
                assert float(group["logprobs"][i, place]) == 0
                assert int(group["versions"][i, place]) == -1
                place += 1
            assert (step["reply"] is None) == (place == end)
        assert place == length
        assert sum(mask) == group["info"][0].lengths[i]
        own, shown = group["rollout_images"][0][i], group["info"][0].rollout_image_data[i]
        assert len(shown) <= workflow.settings.max_images
        files = [tmp_path / name for name in group["info"][0].rollout_image_files[i]]
        assert [path.read_bytes() for path in files] == [base64.b64decode(image) for image in shown]
        marks = ids[num_prompt:length].count(IMAGE)
        assert marks == tokens_of(shown) == (int(own["image_grid_thw"].prod(-1).sum()) // 4 if own else 0)
        assert not own or len(own["pixel_values"]) == int(own["image_grid_thw"].prod(-1).sum())
        assert not any(token in FORBIDDEN and m for token, m in zip(ids, mask, strict=True))
        types = group["mm_token_type_ids"][i].tolist()
        assert types == [int(token == IMAGE) for token in ids]
    assert not any(engine.said.values())  # nothing that was generated is left out
    generated = group["versions"][group["loss_mask"].bool()]
    assert oldest_version(group) == int(generated.min())


def converse(processor, pool, texts, runs=None, **settings):
    """One rollout whose turns are given."""

    class Engine:
        def __init__(self):
            self.asked = []

        async def agenerate(self, request):
            tokens = processor.tokenizer(texts[len(self.asked)])["input_ids"] + [END]
            self.asked.append(request)
            request.metadata["segments"].append((len(request.input_ids), len(self.asked)))
            return ModelResponse(
                output_tokens=tokens, output_logprobs=[-0.5] * len(tokens), stop_reason="stop"
            )

    class Tools:
        async def call(self, name, arguments, context, seconds):
            return runs(name, arguments, context)

    weights = settings.pop("weights", TrajectoryWeights())
    changes = settings.pop("changes", {})
    workflow = workflow_of(processor, pool, Tools(), 1, turn_tokens=400, **settings)
    workflow.weights = weights
    engine = Engine()
    group = asyncio.run(workflow.arun_episode(engine, {"key": 0, "prompt": row(**changes)}))
    return group, engine


def test_a_reply_is_the_templates_own_text(processor, pool):
    texts = [call("python", code="1"), "<answer>7</answer>"]
    group, engine = converse(processor, pool, texts, lambda *_: {"text": "fine <|im_end|>"})
    whole = processor.tokenizer.decode(group["input_ids"][0])
    assert whole.endswith(
        "</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\nfine < |im_end|>\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<answer>7</answer><|im_end|>"
    )
    assert engine.asked[1].rid == engine.asked[0].rid
    assert group["info"][0].trajectories[0]["faults"] == []
    assert group["rewards"].tolist() == [1.0]


def test_tools_see_the_stored_original(processor, pool):
    seen = []

    def look(name, arguments, context):
        seen.append(context["image"])
        return {"text": "", "images": []}

    large = to_png_bytes(Image.new("RGB", (2000, 1000)))
    changes = {"originals": [{"bytes": large, "path": None}]}
    converse(processor, pool, [call("zoom", bbox_2d=[0, 0, 9, 9]), "7"], look, changes=changes)
    assert base64.b64decode(seen[0]["record"]["base64"]) == large
    assert seen[0]["size"] == (56, 56)  # the frame of the model's boxes


@pytest.mark.parametrize(
    ("texts", "faults"),
    [
        (["<tool_call>{</tool_call>", "7"], ["malformed_call"]),
        ([call("python", code="1") * 2, "7"], ["several_calls"]),
        ([call("rm"), "7"], ["unknown_tool"]),
        ([call("python", code="1"), call("python", code="1"), "7"], ["repeated_call"]),
        ([call("zoom", bbox_2d=[0, 0, 9, 9], image=7), "7"], ["bad_arguments"]),
        ([call("python", code=str(i)) for i in range(9)], ["too_many_turns"]),
        (["<answer>7</answer>" + call("python", code="1")], ["call_beside_answer"]),
        ([call("python", code="x" * 30_000)], ["malformed_call"]),
    ],
)
def test_faults_are_counted_by_kind(processor, pool, texts, faults):
    group, engine = converse(
        processor, pool, [*texts, "7", "7"], lambda *_: {"text": "ok"}, max_tokens=99_000
    )
    assert group["info"][0].trajectories[0]["faults"] == faults
    assert len(engine.asked) <= 4


def test_a_row_names_its_own_tools(processor, pool):
    changes = {"spec": {"tools": ["python"]}}
    group, engine = converse(processor, pool, [call("zoom", bbox_2d=[0, 0, 9, 9]), "7"], changes=changes)
    assert group["info"][0].trajectories[0]["faults"] == ["unknown_tool"]
    prompt = processor.tokenizer.decode(engine.asked[0].input_ids)
    assert "- python:" in prompt
    assert "- zoom:" not in prompt
    group, engine = converse(
        processor, pool, [call("zoom", bbox_2d=[0, 0, 9, 9])], changes={"spec": {"tools": []}}
    )
    assert len(engine.asked) == 1
    assert "tool" not in processor.tokenizer.decode(engine.asked[0].input_ids)
    group, _ = converse(processor, pool, ["7"], changes={"spec": {"tools": ["drill"]}})
    assert group["failure"].is_data_error
    assert "drill" in group["failure"].message


def test_the_answer_may_be_a_call(processor, pool):
    texts = [call("answer"), "<think>so</think>" + call("answer", answer=7)]
    group, _ = converse(processor, pool, texts, names=("answer",))
    info = group["info"][0]
    assert info.trajectories[0]["faults"] == ["bad_arguments"]
    assert info.completions == ["<think>so</think><answer>7</answer>"]
    assert info.scores[0].parts["accuracy"] == 1.0


def test_rewards_see_the_trajectory(processor, pool):
    """(1 + 0.5 * bonus + 0.5 * 1/2) / 2 - 0.1 for one useful call and one turn of two with a fault."""
    weights = TrajectoryWeights(tool_bonus=0.5, turn_format=0.5, call_cost=0.1)

    def reward(texts, reply):
        group, _ = converse(processor, pool, texts, lambda *_: reply, weights=weights)
        return float(group["rewards"][0])

    one = [call("python", code="1"), "<answer>7</answer>"]
    assert reward(one, {"text": "7"}) == pytest.approx((1 + 0.5 + 0.5) / 2 - 0.1)
    assert reward(one, {"text": "7", "without_effect": True}) == pytest.approx((1 + 0.5) / 2 - 0.1)
    assert reward(one, {"refused": "no"}) == pytest.approx((1 + 0.5 * 1 / 2) / 2 - 0.1)
    assert reward(["<answer>7</answer>"], {}) == pytest.approx((1 + 0.5) / 2)
    assert reward([one[0], "<answer>8</answer>"], {"text": "8"}) == pytest.approx(-0.1)


def test_groups_with_and_without_added_images_make_one_batch(processor, pool):
    size = (84, 56)
    image = {"png": to_base64_png(Image.new("RGB", size)), "region": None, "size": size}
    texts = [call("python", code="1"), "<answer>7</answer>"]
    added, _ = converse(processor, pool, texts, lambda *_: {"text": "", "images": [image]})
    plain, _ = converse(processor, pool, texts, lambda *_: {"text": ""})
    del plain["rollout_images"]  # as a group of single turns has it
    batch = concatenated([added, plain])
    assert [len(own.get("pixel_values", ())) for own in batch[OWN]] == [24, 0]
    assert len(batch[PIXELS]) == 2
