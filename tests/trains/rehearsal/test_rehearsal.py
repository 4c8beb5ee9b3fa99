"""What a rehearsal finds before it starts anything, what it changes, and what it puts in place of model and answers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from areal.api import ModelRequest
from areal.api.cli_args import GenerationHyperparameters
from areal.utils.hf_utils import load_hf_processor_and_tokenizer

from dataset.encode import encode_prompt
from dataset.loader import create_dataloader
from llavaonevision1_5 import tiny
from reward import score
from trains import gate
from trains.arguments import read
from trains.config import Config
from trains.file_gate import Missing
from trains.host.rollout import RecordingBackend
from trains.rehearsal import all as every
from trains.rehearsal import model, tiny_qwen
from trains.rehearsal.answers import reference_completion
from trains.rehearsal.changes import changes
from trains.rehearsal.published import published_rows
from utils.sample import Sample

STAGE1, STAGE2 = "llavaov15-8b_stage1_grpo", "llavaov15-8b_stage2_grpo"
NAMES = [name for chain in every.CHAINS for name in chain]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The data of every shipped configuration."""
    output = tmp_path_factory.mktemp("shipped") / "all"
    every.write_data(output)
    return output


@pytest.fixture(scope="module")
def built_in(tmp_path_factory):
    target = tmp_path_factory.mktemp("model") / "tiny"
    model.built_in("pretrained/anything", target, 0, None)
    return target


def rehearsed(argv, path, tmp_path, ranks=(1, 1)):
    """(configuration, overrides, what they become)."""
    config, _ = read(argv, Config)
    overrides = [
        change.override
        for change in changes(
            config, root=tmp_path, model=path, end_token=model.end_token(path), ranks=ranks, is_built_in=True
        )
    ]
    return config, overrides, read([*argv, *overrides], Config)[0]


def test_every_configuration_is_rehearsed():
    """`make rehearse` walks through the files of `CHAINS`; a new file in configs/ belongs into one."""
    files = {path.stem for path in Path("configs").glob("*.yaml")} - {"base"}
    assert sorted(NAMES) == sorted(files)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_reaches_its_first_batch(name, shipped, built_in, tmp_path):
    argv = every.arguments_for(name, shipped)
    config, _, small = rehearsed(argv, built_in, tmp_path)
    problems = gate.problems(config)
    assert all(isinstance(text, Missing) and text.startswith("actor.path") for text in problems)
    assert gate.problems(small) == []
    kept = ("loss", "prompts", "buffer", "reward")
    assert all(getattr(small, key) == getattr(config, key) for key in kept)
    assert (small.actor.dtype, small.actor.weight_update_mode) == (
        config.actor.dtype,
        config.actor.weight_update_mode,
    )
    processor, _ = load_hf_processor_and_tokenizer(str(built_in))
    prompts = small.prompts.settings(small.seed)
    options = small.train_dataset
    loader = create_dataloader(
        options.mixture or options.path,
        processor,
        batch_size=options.batch_size,
        max_length=options.max_length,
        max_pixels=options.max_pixels,
        prompts=prompts,
        seed=small.seed,
        cache_dir=str(tmp_path),
    )
    batch = next(iter(loader))
    assert len(batch) == options.batch_size
    encoded = encode_prompt(
        processor, Sample.from_row(batch[0]), prompts=prompts, max_pixels=options.max_pixels
    )
    assert 0 < len(encoded.input_ids) <= options.max_length


@pytest.mark.parametrize("row", published_rows("default")[::2], ids=lambda row: row["answer_type"])
def test_a_reference_answer_is_rewarded_in_full(row):
    sample = Sample.from_row(row | {"prompt_type": "think"})
    output = score(
        reference_completion(sample),
        sample.answer,
        sample.answer_type,
        problem_type=sample.problem_type,
        prompt_type=sample.prompt_type,
    )
    assert output.parts["accuracy"] == 1.0, output


def test_functions_named_by_tests_are_looked_up_too():
    reference = json.dumps(
        {
            "tests": [
                {"call": "add", "args": [2, 3], "expected": 5},
                {"call": "add", "args": [0, 1], "expected": 1},
            ]
        }
    )
    row = {"id": "a", "images": [], "problem": "Add.", "answer": [reference], "problem_type": "coding"}
    sample = Sample.from_row(row | {"answer_type": "general-code", "source": "s", "prompt_type": "answer"})
    assert score(reference_completion(sample), sample.answer, "general-code").total == 1.0


def test_a_given_answer_is_scored_and_asked_for_again_after_an_interruption():
    backend = RecordingBackend([])
    request = ModelRequest(
        input_ids=[5, 6, 7],
        gconfig=GenerationHyperparameters(max_new_tokens=2),
        metadata={"segments": [], "answer": [8, 9]},
    )
    for _ in range(2):
        payload = backend.build_generation_request(request, False, version=3).payload
        assert payload["input_ids"] == [5, 6, 7, 8, 9]
        assert payload["logprob_start_len"] == 2
        assert payload["sampling_params"]["max_new_tokens"] == 1
        meta = {"id": payload["rid"], "finish_reason": {"type": "abort"}, "input_token_logprobs": []}
        result = backend.parse_generation_response({"meta_info": meta, "output_ids": []})
        assert (result.output_tokens, result.stop_reason) == ([], "abort")
    payload = backend.build_generation_request(request, False, version=4).payload
    scored = [(None, 7, None), (-0.5, 8, None), (-0.25, 9, None)]
    meta = {"id": payload["rid"], "finish_reason": {"type": "length"}, "input_token_logprobs": scored}
    result = backend.parse_generation_response({"meta_info": meta})
    assert (result.output_tokens, result.output_logprobs, result.stop_reason) == (
        [8, 9],
        [-0.5, -0.25],
        "stop",
    )
    assert request.metadata["segments"] == [(3, 3), (3, 3), (3, 4)]
    assert backend.num_open == 0


def large_llava(folder):
    """Configuration, tokenizer and processor of a checkpoint with the published widths; no weights."""
    config = tiny.build_config(
        hidden_size=4096, intermediate_size=12288, num_layers=36, num_heads=32, num_kv_heads=8
    )
    tiny.build_processor().save_pretrained(folder)
    config.save_pretrained(folder)


def large_qwen(folder):
    model_config = tiny_qwen.build_model("qwen2_5_vl").config
    text, vision = model_config.text_config, model_config.vision_config
    text.hidden_size, text.num_hidden_layers, text.num_attention_heads = 2048, 36, 16
    text.rope_parameters["mrope_section"], text.head_dim = [16, 24, 24], 128
    text.layer_types = ["full_attention"] * 36
    vision.depth, vision.hidden_size, vision.out_hidden_size, vision.fullatt_block_indexes = (
        32,
        1280,
        2048,
        [7, 31],
    )
    tiny_qwen.build_processor("qwen2_5_vl").save_pretrained(folder)
    model_config.save_pretrained(folder)


@pytest.mark.parametrize("write", [large_llava, large_qwen])
def test_a_reduced_copy_keeps_all_but_sizes_and_weights(write, tmp_path):
    from transformers import AutoModelForImageTextToText

    folder, copies = tmp_path / "large", [tmp_path / "one", tmp_path / "two"]
    write(folder)
    assert not model.is_small(folder)
    for copy in copies:
        shutil.copytree(folder, copy)  # what was there goes
        (copy / "left-over.txt").touch()
        what = model.reduce(folder, copy, seed=1)
    assert "36 layers" in what
    assert model.is_small(copies[0])
    assert not (copies[0] / "left-over.txt").exists()
    for file in folder.iterdir():
        if file.name != "config.json":
            assert (copies[0] / file.name).read_bytes() == file.read_bytes(), file.name
    before, after = (json.loads((path / "config.json").read_text()) for path in (folder, copies[0]))
    changed = {"text_config", "vision_config", "transformers_version", "dtype"}
    assert {key: before[key] for key in before.keys() - changed} == {
        key: after[key] for key in before.keys() - changed
    }
    assert before["text_config"]["vocab_size"] == after["text_config"]["vocab_size"]
    one, two = (AutoModelForImageTextToText.from_pretrained(copy, trust_remote_code=True) for copy in copies)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert sum(parameter.numel() for parameter in one.parameters()) < 3e6


def test_changes_name_what_differs_and_nothing_else(shipped, built_in, tmp_path):
    argv = every.arguments_for(STAGE2, shipped)
    config, overrides, small = rehearsed(argv, built_in, tmp_path, ranks=(2, 2))
    assert small.allocation_mode == "sglang:d2+fsdp:d2"
    assert small.train_dataset.batch_size == small.rollout.consumer_batch_size == 16
    assert small.train_dataset.mixture == config.train_dataset.mixture
    assert len({text.split("=")[0] for text in overrides}) == len(overrides)
    assert not {"actor.dtype", "actor.weight_update_mode"} & {text[2:].split("=")[0] for text in overrides}
