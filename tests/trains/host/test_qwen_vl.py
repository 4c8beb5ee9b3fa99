"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL through the recipe's encoding, AReaL's engine, and SGLang's server."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from dataset.encode import encode_prompt
from dataset.media_tokens import media_token_ids
from llavaonevision1_5 import sglang_environment
from llavaonevision1_5.tiny import SPECIAL_IDS
from sglang_cpu.process import free_port, running_server
from trains.host import qwen_vl
from trains.rehearsal.tiny_qwen import FAMILIES, build_checkpoint, build_model, build_processor
from utils.sample import Sample

IMAGES = {"text": (), "one image": ((140, 84),), "two images": ((56, 56), (84, 140))}  # width, height
MEDIA = ("vision_start", "vision_end", "image_pad", "video_pad")


def prompt_of(processor, sizes, seed=0):
    """A prompt with noise images of these sizes, as the workflow encodes it."""
    generator = np.random.default_rng(seed)
    images = [Image.fromarray(generator.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    sample = Sample(
        id="noise/0",
        images=tuple(images),
        problem="Compare:" + " <image>" * len(images) + " which?",
        answer=("a",),
        problem_type="noise",
        answer_type="any",
        source="noise",
    )
    return encode_prompt(processor, sample)


def group_of(encoded, num_rollouts=2, seed=0):
    """A group as `trains/workflow.py` makes it: rollouts of different lengths, one pixel tensor for all."""
    generator, num_prompt = torch.Generator().manual_seed(seed), len(encoded.input_ids)
    lengths = [num_prompt + 9 - 4 * rollout for rollout in range(num_rollouts)]
    ids = torch.zeros(num_rollouts, lengths[0], dtype=torch.int64)
    types, mask = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, length in enumerate(lengths):
        ids[row, :num_prompt] = torch.tensor(encoded.input_ids)
        ids[row, num_prompt:length] = torch.randint(0, 256, (length - num_prompt,), generator=generator)
        types[row, :num_prompt] = torch.tensor(encoded.mm_token_type_ids)
        mask[row, :length] = True
    images = encoded.multi_modal_input or {
        "pixel_values": torch.zeros(0, 1),
        "image_grid_thw": torch.zeros(0, 3, dtype=torch.int64),
    }
    generated = mask.int()
    generated[:, :num_prompt] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": types, "loss_mask": generated}
    return {**batch, "images": [images]}


def server_positions(config, ids, grid):
    """Positions `[3, seq]` by SGLang's own function; its file alone is loaded, which needs torch only."""
    folder = Path(importlib.util.find_spec("sglang").submodule_search_locations[0])
    path = folder / "srt/layers/rotary_embedding/mrope_rope_index.py"
    spec = importlib.util.spec_from_file_location("mrope_rope_index", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    positions, _ = module.get_rope_index(
        config.vision_config.spatial_merge_size,
        config.image_token_id,
        config.video_token_id,
        config.vision_start_token_id,
        config.model_type,
        getattr(config.vision_config, "tokens_per_second", None),
        input_ids=torch.tensor([ids]),
        image_grid_thw=grid,
    )
    return positions[:, 0]


@torch.no_grad()
def reference_logprobs(model, row_ids, encoded):
    """Log-probabilities `[seq - 1]` of one sequence alone, by transformers under positions of SGLang."""
    positions = server_positions(model.config, row_ids, encoded.image_grid_thw)
    ids = torch.tensor([row_ids])
    logits = model(input_ids=ids, position_ids=positions[:, None], **encoded.multi_modal_input).logits[0, :-1]
    logits[:, [SPECIAL_IDS[f"<|{name}|>"] for name in MEDIA]] = -torch.inf
    return logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(family, tmp_path_factory):
    return build_checkpoint(family, tmp_path_factory.mktemp("qwen") / family)


@pytest.fixture
def model(family):
    return build_model(family)


@pytest.fixture(scope="module")
def processor(family):
    return build_processor(family)


def positions_of(model, groups):
    """As AReaL asks for them, of all rows at once: `[3, batch, seq]`."""
    longest = max(group["input_ids"].shape[1] for group in groups)

    def padded(key):
        rows = [torch.nn.functional.pad(g[key], (0, longest - g[key].shape[1])) for g in groups]
        return torch.cat(rows)

    grids = [g["images"][0]["image_grid_thw"] for g in groups for _ in g["input_ids"]]
    grids = torch.cat(grids)
    return model.model.compute_3d_position_ids(
        input_ids=padded("input_ids"),
        image_grid_thw=grids if len(grids) else None,
        video_grid_thw=None,
        attention_mask=padded("attention_mask"),
        mm_token_type_ids=padded("mm_token_type_ids"),
        inputs_embeds=None,
        past_key_values=None,
    )


@pytest.mark.parametrize("cases", [["text"], ["one image"], list(IMAGES)], ids=["text", "image", "mixed"])
def test_positions_equal_the_servers(cases, model, processor):
    qwen_vl.adapt(model)
    encoded = [prompt_of(processor, IMAGES[case]) for case in cases]
    groups = [group_of(prompt) for prompt in encoded]
    rows = iter(positions_of(model, groups).unbind(1))
    for prompt, group in zip(encoded, groups, strict=True):
        for ids, mask in zip(group["input_ids"], group["attention_mask"], strict=True):
            expected = server_positions(model.config, ids[mask].tolist(), prompt.image_grid_thw)
            assert torch.equal(next(rows)[:, : mask.sum()], expected)


def test_the_fault_is_found_and_only_there_corrected(model, family):
    inner = model.model
    faulty = family == "qwen2_5_vl"  # in the pinned transformers 5.3.0
    assert qwen_vl.image_starts_are_right(inner) is not faulty
    qwen_vl.adapt(model)
    assert qwen_vl.image_starts_are_right(inner)
    assert ("get_vision_position_ids" in vars(inner)) is faulty
    if faulty:
        with pytest.raises(ValueError, match="3 frames"):
            inner.get_vision_position_ids(0, torch.tensor([3, 2, 2]), 1, 2, 2)


def test_text_alone_reaches_the_tower_and_changes_nothing(model, processor):
    encoded = prompt_of(processor, ())
    ids = torch.tensor([encoded.input_ids])
    positions = torch.arange(ids.shape[1]).expand(3, 1, -1)
    before = model(input_ids=ids, position_ids=positions).logits
    qwen_vl.adapt(model)
    after = model(input_ids=ids, position_ids=positions).logits
    assert torch.equal(before, after)
    after.sum().backward()
    for name, parameter in model.model.visual.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name
    assert model.model.language_model.layers[0].mlp.up_proj.weight.grad.any()


def test_other_models_are_left_alone(tiny_checkpoint):
    from llavaonevision1_5.modeling import LLaVAOneVision1_5_ForConditionalGeneration

    model = LLaVAOneVision1_5_ForConditionalGeneration.from_pretrained(tiny_checkpoint)
    before = dict(vars(model))
    qwen_vl.adapt(model)
    assert vars(model) == before


@pytest.fixture
def actor(checkpoint, monkeypatch):
    """The recipe's actor alone on gloo; micro-batches of at most 600 tokens, so that several sequences share one."""
    from areal.api import FinetuneSpec
    from areal.api.cli_args import MicroBatchSpec, OptimizerConfig

    from trains.actor import VisionActor
    from trains.config import ActorConfig, LossConfig

    for key, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    config = ActorConfig(
        experiment_name="test",
        trial_name="test",
        path=str(checkpoint),
        backend="fsdp:d1",
        attn_impl="sdpa",
        dtype="float32",
        mb_spec=MicroBatchSpec(max_tokens_per_mb=600),
        optimizer=OptimizerConfig(lr=1e-3),
    )
    actor = VisionActor(config, LossConfig(), media_token_ids(str(checkpoint)), 16)
    actor.create_process_group()
    actor.initialize(None, FinetuneSpec(total_train_epochs=1, dataset_size=16, train_batch_size=2))
    yield actor
    actor.destroy()


@pytest.mark.parametrize("share_prompts", [True, False])
@pytest.mark.parametrize("cases", [list(IMAGES), ["text"]], ids=["mixed", "text"])
def test_packed_rollouts_equal_one_by_one(cases, share_prompts, actor, model, processor):
    actor.config.share_prompts = share_prompts
    encoded = [prompt_of(processor, IMAGES[case], seed) for seed, case in enumerate(cases)]
    groups = [group_of(prompt, seed=seed) for seed, prompt in enumerate(encoded)]
    for prompt, group, rows in zip(encoded, groups, actor.compute_logp(groups), strict=True):
        for ids, mask, logprobs in zip(group["input_ids"], group["attention_mask"], rows, strict=True):
            expected = reference_logprobs(model, ids[mask].tolist(), prompt)
            num_prompt = len(prompt.input_ids)  # image marks among the prompt's tokens have no probability
            answer = slice(num_prompt - 1, len(expected))
            torch.testing.assert_close(logprobs[answer], expected[answer], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("model_type", "refused"), [("gemma3", True), ("qwen3_vl", False)])
def test_sdpa_is_refused_where_packed_sequences_would_leak(
    model_type, refused, tiny_checkpoint, digits_data, tmp_path
):
    from trains import config

    for file in tiny_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"model_type": model_type}))
    arguments = ["--config", "configs/digits_cpu_stage1.yaml", f"actor.path={tmp_path}"]
    arguments += [
        f"train_dataset.path={digits_data}/stage1/train.parquet",
        f"valid_dataset.path={digits_data}/stage1/heldout.parquet",
    ]
    if refused:
        with pytest.raises(ValueError, match=r"attn_impl=.sdpa.*gemma3"):
            config.check(arguments)
    else:
        config.check(arguments)


@pytest.mark.slow
def test_server_and_trainer_agree_also_after_an_interruption(tmp_path):
    """Qwen2.5-VL, whose positions were wrong. Random weights write bytes that are no text: a server that decoded
    and tokenised a resumed sequence would go on from another one.
    """
    family = "qwen2_5_vl"
    checkpoint, model = build_checkpoint(family, tmp_path / family), build_model(family)
    options, log = {"max-total-tokens": 8192}, tmp_path / "server.log"
    with running_server(checkpoint, log_path=log, options=options, environment=sglang_environment()) as url:
        assert_equal_to_the_server(url, family, model)
        with torch.no_grad():
            for parameter in model.model.visual.parameters():
                parameter.add_(
                    0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
                )
        model.save_pretrained(tmp_path / "newer")
        newer = {"model_path": str(tmp_path / "newer"), "abort_all_requests": True}
        requests.post(f"{url}/update_weights_from_disk", json=newer, timeout=60).raise_for_status()
        assert_equal_to_the_server(
            url, family, model
        )  # the images are those of before, their features are not


def assert_equal_to_the_server(url, family, model):
    for sizes in IMAGES.values():
        encoded = prompt_of(build_processor(family), sizes)
        ids = encoded.input_ids
        for _ in range(2):  # the second request resumes behind the answer to the first
            sampling = {"max_new_tokens": 12, "temperature": 1.0, "ignore_eos": True}
            payload = {"input_ids": ids, "return_logprob": True, "sampling_params": sampling}
            payload["image_data"] = encoded.image_data or None
            response = requests.post(f"{url}/generate", json=payload, timeout=60)
            response.raise_for_status()
            entries = response.json()["meta_info"]["output_token_logprobs"]
            known, ids = len(ids), ids + [entry[1] for entry in entries]
            expected = reference_logprobs(model, ids, encoded)[known - 1 :]
            served = torch.tensor([entry[0] for entry in entries])
            torch.testing.assert_close(served, expected, atol=5e-5, rtol=0)
