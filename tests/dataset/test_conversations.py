"""Curation measures by conversations with the tools of the training that the data is for."""

import asyncio

import pytest
from transformers import AutoProcessor

from dataset.curate.conversations import Conversations, read_agent
from dataset.curate.engine import Generation
from dataset.encode import encode_prompt
from dataset.prompts import PromptConfig
from dataset.zoom_digits import build_rows
from utils.sample import Sample

ZOOM = '<tool_call>{"name": "zoom", "arguments": {"bbox_2d": [0, 0, 28, 28]}}</tool_call>'


def write(folder, agent):
    (folder / "base.yaml").write_text(
        "gconfig: {max_new_tokens: 100}\nagent: {max_turns: 2, tool_bonus: 0.25}\n"
    )
    (folder / "run.yaml").write_text(f"defaults: [base, _self_]\nagent: {agent}\n")
    return folder / "run.yaml"


def test_the_section_of_the_training_is_read(tmp_path):
    assert read_agent(write(tmp_path, "{tools: [zoom]}")) is None
    plan = read_agent(write(tmp_path, "{enabled: true, tools: [zoom], max_tokens: 900}"))
    assert (plan.settings.tools, plan.settings.max_turns, plan.settings.max_tokens) == (("zoom",), 2, 900)
    assert (plan.max_turn_tokens, plan.weights.tool_bonus) == (100, 0.25)
    for wrong, message in (
        ("{enabled: true, tools: [drill]}", "drill"),
        ("{enabled: true, depth: 3}", "depth"),
    ):
        with pytest.raises(ValueError, match=message):
            read_agent(write(tmp_path, wrong))


def test_an_attempt_is_a_conversation(tiny_checkpoint, tmp_path):
    processor = AutoProcessor.from_pretrained(tiny_checkpoint, trust_remote_code=True)
    sample = Sample.from_row(build_rows("heldout")[0])
    encoded = encode_prompt(processor, sample, prompts=PromptConfig(tools=("zoom",)), max_pixels=56 * 56)
    asked = []

    async def ask(name, ids, images, max_tokens):
        asked.append((name, len(images)))
        text = ZOOM if name.endswith("turn 1") else f"<answer>{sample.answer[0]}</answer>"
        return Generation([*processor.tokenizer(text)["input_ids"], 258], "stop", None)

    conversations = Conversations(
        read_agent(write(tmp_path, "{enabled: true, tools: [zoom], max_tokens: 900}")), processor, 56 * 56
    )
    try:
        found = asyncio.run(conversations.run(sample, encoded, ask, 2))
    finally:
        conversations.close()
    assert [trajectory.completion for trajectory in found] == [f"<answer>{sample.answer[0]}</answer>"] * 2
    assert [len(trajectory.images) for trajectory in found] == [1, 1]
    assert sorted(asked) == [
        (f"{sample.id}/attempt {attempt}/turn {turn}", turn) for attempt in (0, 1) for turn in (1, 2)
    ]
