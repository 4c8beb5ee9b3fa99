"""Every setting that a launch refuses, one change of a good configuration at a time, with the key that is named."""

import copy
import json
import re
from functools import reduce
from pathlib import Path

import pytest
from areal.api.cli_args import parse_cli_args, to_structured_cfg
from omegaconf import OmegaConf

from trains.config import Config, validate

CONFIG = str(Path(__file__).resolve().parents[2] / "configs/digits_cpu_stage1.yaml")
# (changes by dotted key, what the message begins with)
REFUSED = [
    ({"gconfig.top_p": 0.9}, "gconfig.top_p=0.9"),
    ({"gconfig.top_k": 50}, "gconfig.top_p=1.0, gconfig.top_k=50"),
    ({"gconfig.greedy": True}, "gconfig: greedy"),
    ({"gconfig.frequency_penalty": 0.1}, "gconfig.frequency_penalty=0.1"),
    ({"actor.temperature": 0.5}, "actor.temperature=0.5"),
    ({"gconfig.stop_token_ids": []}, "gconfig.stop_token_ids=[]"),
    ({"sglang.context_length": 1024}, "train_dataset.max_length=1024 + gconfig.max_new_tokens="),
    ({"eval_gconfig.n_samples": 2}, "eval_gconfig.n_samples=2"),
    ({"allocation_mode": "sglang:d1+fsdp:d3"}, "train_dataset.batch_size=4"),
    ({"rollout.consumer_batch_size": 5}, "rollout.consumer_batch_size=5"),
    ({"actor.num_minibatches": 0}, "actor.num_minibatches=0"),
    ({"actor.num_minibatches": 3}, "actor.num_minibatches=3"),
    ({"loss.proximal_pass": "fused", "actor.num_minibatches": 2}, "loss.proximal_pass='fused'"),
    ({"buffer.max_attempts_per_batch": 0}, "buffer.max_attempts_per_batch=0"),
    ({"loss.reward_scaling": 0.0}, "loss.reward_scaling=0.0"),
    ({"reward.overlong_buffer_tokens": -1}, "reward.overlong_buffer_tokens=-1"),
    ({"reward.overlong_buffer_tokens": 4096}, "reward.overlong_buffer_tokens=4096"),
    ({"rollout.max_head_offpolicyness": -1}, "rollout.max_head_offpolicyness=-1"),
    ({"actor.mb_spec.max_tokens_per_mb": 1024}, "train_dataset.max_length=1024 + gconfig.max_new_tokens="),
    ({"loss.kl_coefficient": 0.1, "ref.path": None}, "ref.path=null with loss.kl_coefficient=0.1"),
    ({"loss.kl_coefficient": 0.1, "ref.path": "nowhere"}, "ref.path='nowhere'"),
    ({"actor.path": "nowhere"}, "actor.path='nowhere': there is no checkpoint"),
    ({"train_dataset.path": "./nowhere"}, "train_dataset.path='./nowhere' does not exist"),
    ({"train_dataset.mixture": [{"path": "./nowhere"}]}, "train_dataset.mixture[0].path='./nowhere'"),
    ({"valid_dataset.path": "./nowhere"}, "valid_dataset.path='./nowhere'"),
    ({"allocation_mode": "vllm:d1+fsdp:d1"}, "allocation_mode='vllm:d1+fsdp:d1'"),
    ({"allocation_mode": "sglang:d1+megatron:d1"}, "allocation_mode='sglang:d1+megatron:d1'"),
    ({"allocation_mode": "sglang:d1+fsdp:d1t2"}, "allocation_mode='sglang:d1+fsdp:d1t2'"),
    ({"actor.enable_tree_training": True}, "actor.enable_tree_training=true"),
    ({"rollout.check_trajectory_format": True}, "rollout.check_trajectory_format=true"),
    ({"actor.optimizer": None}, "actor.optimizer=null"),
    ({"actor.use_lora": True, "actor.weight_update_mode": "xccl"}, "actor.weight_update_mode='xccl'"),
    ({"rollout.use_lora": True}, "rollout.use_lora=true"),
    ({"loss.behavior_cap": None}, "behavior_cap = null"),
]


@pytest.fixture(scope="module")
def good(tiny_checkpoint, tmp_path_factory):
    """The demo's configuration, of which nothing is refused; the data are files that exist."""
    data = tmp_path_factory.mktemp("data") / "rows.parquet"
    data.touch()
    words = [f"actor.path={tiny_checkpoint}", f"train_dataset.path={data}", f"valid_dataset.path={data}"]
    raw, _ = parse_cli_args(["--config", CONFIG, *words, "train_dataset.batch_size=4"])
    config = OmegaConf.to_object(to_structured_cfg(raw, Config))
    validate(config)
    return config


def changed(config, changes):
    config = copy.deepcopy(config)
    for key, value in changes.items():
        *path, name = key.split(".")
        setattr(reduce(getattr, path, config), name, value)
    return config


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=str)
def test_refused_by_name(changes, message, good):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        validate(changed(good, changes))


def test_a_checkpoint_has_weights_and_a_known_model_where_attention_is_sdpa(good, tiny_checkpoint, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    elsewhere = {"actor.path": str(tmp_path)}
    with pytest.raises(ValueError, match="holds no weights"):
        validate(changed(good, elsewhere))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"actor\.attn_impl='sdpa'.* 'llama' attend to each other"):
        validate(changed(good, elsewhere))
    validate(changed(good, elsewhere | {"actor.attn_impl": "flash_attention_2"}))
    run = {"actor.path": f"{tmp_path}/experiment/trial", "cluster.fileroot": str(tmp_path)}
    with pytest.raises(ValueError, match="that run has to be trained first"):
        validate(changed(good, run))
