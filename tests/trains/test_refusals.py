"""Every setting that a launch refuses, one change of a good configuration at a time, with the key that is named."""

import copy
import json
import math
import re
from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest
from areal.api.cli_args import parse_cli_args, to_structured_cfg
from areal.launcher import preflight
from omegaconf import OmegaConf

from trains.config import Config, validate
from trains.file_gate import Missing
from trains.gate import problems, remarks
from trains.limits import CHOICES, NUMBERS
from utils.doctor import machine
from utils.doctor import report as doctor

CONFIG = str(Path(__file__).resolve().parents[2] / "configs/digits_cpu_stage1.yaml")
# (changes by dotted key, what the message begins with)
REFUSED = [
    ({"gconfig.top_p": 0.9}, "gconfig.top_p=0.9"),
    ({"gconfig.top_k": 50}, "gconfig.top_p=1.0, gconfig.top_k=50"),
    ({"gconfig.greedy": True}, "gconfig.greedy=true"),
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
    ({"loss.behavior_cap": None}, "loss.behavior_cap = null"),
    ({"loss.estimator": "rloo"}, "loss.batch_whiten = true"),
    ({"agent.tools": ["zoom"]}, "agent.tools=['zoom'] has no effect with agent.enabled=false"),
    ({"agent.tools": ["drill"]}, "agent.tools: got 'drill'"),
    ({"agent.tool_bonus": -1.0}, "agent.tool_bonus=-1.0"),
    ({"agent.max_turns": 0}, "agent.max_turns=0"),
    ({"agent.enabled": True, "agent.max_tokens": 8}, "agent.max_tokens=8 (a whole conversation"),
    (
        {"agent.enabled": True, "agent.max_tokens": 3000},
        "train_dataset.max_length=1024 + agent.max_tokens=3000",
    ),
    (
        {"agent.enabled": True, "loss.loss_mode": "constant"},
        "loss.loss_mode='constant' with agent.enabled=true",
    ),
    (
        {"agent.enabled": True, "reward.overlong_buffer_tokens": 8},
        "reward.overlong_buffer_tokens=8 with agent",
    ),
    ({"agent.enabled": True, "rehearsal.reference_share": 0.5}, "rehearsal.reference_share=0.5 with agent"),
    ({"agent.enabled": True, "agent.tools": ["search"]}, "agent.corpus=null with the tool search"),
    (
        {"agent.enabled": True, "agent.tools": ["search"], "agent.corpus": "nowhere.sqlite"},
        "agent.corpus='nowhere.sqlite' does not exist",
    ),
    ({"gconfig.stop": ["</answer>"]}, "gconfig.stop=['</answer>']"),
    (
        {
            "gconfig.n_samples": 1,
            "loss.estimator": "reinforce++",
            "loss.batch_whiten": False,
            "buffer.drop_without_signal": True,
        },
        "buffer.drop_without_signal=true with gconfig.n_samples=1",
    ),
    ({"gconfig.min_new_tokens": 4}, "gconfig.min_new_tokens=4"),
    (
        {"rollout.max_concurrent_rollouts": 3},
        "rollout.max_concurrent_rollouts=3 is below train_dataset.batch_size=4",
    ),
    ({"sglang.context_length": 10**6}, "sglang.context_length=1000000 is above the 4096 positions"),
    ({"trial_name": "../x"}, "trial_name='../x'"),
    ({"experiment_name": "a b"}, "experiment_name='a b'"),
    ({"train_dataset.mixture": [{"weight": 1.0}]}, "train_dataset.mixture[0]={'weight': 1.0}: wanted a path"),
    (
        {"train_dataset.mixture": [{"path": "configs/x.csv", "weight": -1}]},
        "train_dataset.mixture[0].weight=-1",
    ),
    ({"train_dataset.path": "data/nowhere"}, "train_dataset.path='data/nowhere' does not exist"),
    ({"train_dataset.path": "a[0%]"}, "train_dataset.path: data path: got 'a[0%]'"),
    ({"cluster.fileroot": "README.md/runs"}, "cluster.fileroot='README.md/runs'"),
    ({"allocation_mode": "d4+d4"}, "allocation_mode='d4+d4'"),
    ({"actor.path": "/path/to/model"}, "actor.path='/path/to/model' is a placeholder"),
    ({"actor.init_from_scratch": True}, "actor.init_from_scratch=True has no effect here"),
    ({"actor.use_lora": True, "actor.target_modules": ["lm_head"]}, "actor.target_modules holds lm_head"),
]


@pytest.fixture(scope="module")
def good(tiny_checkpoint, tmp_path_factory):
    """The demo's configuration, of which nothing is refused; the data are files that exist."""
    data = tmp_path_factory.mktemp("data") / "rows.parquet"
    held_out = data.with_name("held_out.parquet")
    for file in (data, held_out):
        file.touch()
    words = [f"actor.path={tiny_checkpoint}", f"train_dataset.path={data}", f"valid_dataset.path={held_out}"]
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


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, -1])
@pytest.mark.parametrize("key", [key for keys, _, _ in NUMBERS for key in keys.split()])
def test_a_number_out_of_its_limits_is_refused(key, value, good):
    limit = next(test for keys, test, _ in NUMBERS if key in keys.split())
    if limit(value):
        assert key in ("loss.reward_bias",), "only a bias may be negative"
        return
    found = problems(changed(good, {key: value}))
    assert any(line.startswith(f"{key}={value}: wanted") for line in found), found


@pytest.mark.parametrize(
    "key",
    [
        "total_train_steps",
        "saver.freq_steps",
        "evaluator.freq_steps",
        "train_dataset.batch_size",
        "actor.optimizer.lr",
    ],
)
def test_zero_is_refused_where_it_would_train_nothing_or_never_end(key, good):
    assert any(line.startswith(f"{key}=0: wanted") for line in problems(changed(good, {key: 0})))


@pytest.mark.parametrize("key", CHOICES)
def test_a_word_that_is_no_choice_is_refused(key, good):
    found = problems(changed(good, {key: "fp32"}))
    assert any(line.startswith(f"{key}='fp32': wanted one of {CHOICES[key][0]}") for line in found), found


def test_every_problem_is_named_at_once(good):
    wrong = {"seed": -1, "gconfig.stop": ["x"], "actor.path": "nowhere", "rollout.use_lora": True}
    with pytest.raises(ValueError, match=r"(?s)seed=-1.*gconfig\.stop.*nowhere.*rollout\.use_lora"):
        validate(changed(good, wrong))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"loss.surrogate": "cispo"}, "loss.surrogate=cispo"),
        ({"loss.dual_clip": 3.0}, "loss.dual_clip=3.0"),
        ({"loss.ratio_level": "sequence"}, "loss.ratio_level=sequence"),
        ({"loss.eps_clip": 0.1}, "loss.eps_clip=0.1"),
    ],
    ids=str,
)
def test_options_without_effect_are_named_and_not_refused(changes, named, good):
    assert list(remarks(good)) == []
    (found,) = remarks(changed(good, changes))
    assert found.startswith(named)
    assert list(remarks(changed(good, changes | {"actor.num_minibatches": 2}))) == []


def test_held_out_data_that_is_trained_on_is_named(good, tmp_path):
    data = Path(good.train_dataset.path)
    (tmp_path / "link.parquet").symlink_to(data)
    for place in (str(data), str(data.parent / "*.parquet"), f"{tmp_path}/link.parquet"):
        (found,) = remarks(changed(good, {"valid_dataset.path": place}))
        assert found.startswith(f"{data.resolve()} is both training data and valid_dataset.path")
    mixture = [{"path": "other/set"}, {"path": "some/set[50%]"}]
    for name, expected in (("some/set", 1), ("third/set", 0)):
        found = changed(good, {"valid_dataset.path": name, "train_dataset.mixture": mixture})
        assert len(list(remarks(found))) == expected


def test_unequal_limits_of_images_are_named(good):
    (found,) = remarks(changed(good, {"train_dataset.max_pixels": 10_000}))
    assert found.startswith("train_dataset.max_pixels=10000, the checkpoint's own limit is 50176: ")
    assert "to 10000 pixels" in found
    assert list(remarks(changed(good, {"train_dataset.max_pixels": 50_176}))) == []


def test_a_broken_config_json_is_named_once(good, tmp_path):
    (tmp_path / "model.safetensors").touch()
    for content, message in (
        ('{"model_type": ', "config.json is not JSON"),
        ("[]", "config.json holds a list"),
    ):
        (tmp_path / "config.json").write_text(content)
        (found,) = problems(changed(good, {"actor.path": str(tmp_path)}))
        assert message in found


# Commands, each with the faults of its overrides; both doors name all of them in the same words.
BOTH_DOORS = {
    "one command with everything wrong": {
        "++gconfig.stop=[x]": "gconfig.stop=['x']: the servers have no tokenizer; write gconfig.stop_token_ids",
        "++gconfig.min_new_tokens=4": "gconfig.min_new_tokens=4: the server would forbid",
        "total_train_steps=-1": "total_train_steps=-1: wanted 1 or more",
        "saver.freq_steps=0": "saver.freq_steps=0: wanted 1 or more, or null for never",
        "evaluator.freq_steps=-1": "evaluator.freq_steps=-1: wanted 1 or more, or null for never",
        "actor.weight_update_mode=nccl": "actor.weight_update_mode='nccl': wanted one of xccl, disk",
        "train_dataset.batch_size=0": "train_dataset.batch_size=0: wanted 1 or more",
        "rollout.max_concurrent_rollouts=0": "rollout.max_concurrent_rollouts=0: wanted 1 or more",
        "actor.optimizer.lr=nan": "actor.optimizer.lr=nan: wanted a finite number above 0",
        "seed=-1": "seed=-1: wanted 0 to 4294967295",
        "actor.dtype=fp32": "sglang.dtype='fp32': wanted one of bfloat16, float16, float32 (it is actor.dtype,",
        "sglang.context_length=100000": "sglang.context_length=100000 is above the 4096 positions",
        "trial_name=../x": "trial_name='../x': wanted letters, digits",
        "train_dataset.mixture=[{weight: 1.0}]": "train_dataset.mixture[0]={'weight': 1.0}: wanted a path",
        "valid_dataset.path=./nowhere": "valid_dataset.path='./nowhere' does not exist or holds no data",
        "cluster.fileroot=README.md/runs": "cluster.fileroot='README.md/runs': ",
        "loss.eps_clip=2": "loss.eps_clip = 2.0: wanted a number in [0, 1)",
        "loss.estimator=rloo": "loss.batch_whiten = true: wanted false: normalised over the batch, rloo",
        "loss.without_signal=mean": "loss.without_signal = 'mean': wanted one of zero, batch_mean",
        "++enable_offload=true": "enable_offload=True has no effect here",
        "rollout.pause_grace_period=-1": "rollout.pause_grace_period=-1.0: wanted seconds, 0 or more",
        "++sglang.max_prefill_tokens=0": "sglang.max_prefill_tokens=0: wanted 1 or more",
        "prompts.num_thinking_prompts=0": "prompts.num_thinking_prompts=0: wanted 1 (the recipe's own) to 6",
        "prompts.layout=before": "prompts.layout='before': wanted one of recipe, release",
    },
    "data and steps": {
        "total_train_steps=0": "total_train_steps=0: wanted 1 or more",
        "train_dataset.path=./nowhere": "train_dataset.path='./nowhere' does not exist or holds no data",
    },
    "keys that are none": {
        "train_dataset.num_thinking_prompts=2": "train_dataset.num_thinking_prompts is not a key",
        "loss.signal=zero": "loss.signal is not a key",
    },
    "what needs a plan": {
        "sglang.dtype=float16": "sglang.dtype=float16 differs from actor.dtype=float32",
    },
}


@pytest.mark.parametrize("command", BOTH_DOORS)
def test_launchers_and_doctor_refuse_alike(command, overrides, monkeypatch):
    monkeypatch.chdir(Path(CONFIG).parents[1])
    arguments = ["--config", CONFIG, *overrides, *BOTH_DOORS[command]]
    diagnosis, said = doctor.examine(arguments), {}
    for launcher in ("local", "slurm"):
        with pytest.raises(preflight.ConfigurationError) as refused:
            preflight.load(["trains/grpo.py", *arguments], launcher)
        said[launcher] = str(refused.value).removeprefix(f"{CONFIG}: ").splitlines()
    assert sorted(diagnosis.problems + diagnosis.missing) == sorted(said["local"]) == sorted(said["slurm"])
    for word, message in BOTH_DOORS[command].items():
        assert any(message in line for line in said["local"]), (word, said["local"])


def test_a_login_node_does_not_judge_the_nodes(overrides, monkeypatch):
    """Ports and versions are this machine's; the disk is that of the run, wherever it is looked at."""
    monkeypatch.chdir(Path(CONFIG).parents[1])
    here = replace(machine.look("."), num_free_ports=0, versions={"sglang": "0.1"}, free_disk_bytes=10)
    monkeypatch.setattr(machine, "look", lambda folder: here)
    arguments = ["--config", CONFIG, *overrides]
    on_the_node, elsewhere = (doctor.problems_here(arguments, name) for name in ("local", "ray"))
    assert [line.split()[0] for line in on_the_node] == [elsewhere[0].split()[0], "only", "sglang"]
    assert len(elsewhere) == 1
    assert elsewhere[0].startswith("cluster.fileroot=")


def test_a_config_without_a_model_type_is_one_message(good, tmp_path):
    (tmp_path / "model.safetensors").touch()
    for content in ("{}", '{"model_type": 7, "text_config": null}'):
        (tmp_path / "config.json").write_text(content)
        (found,) = problems(changed(good, {"actor.path": str(tmp_path)}))
        assert found.startswith(f"actor.path='{tmp_path}': config.json gives no model_type")


def test_what_is_only_missing_stops_a_run_and_no_plan(good):
    absent = changed(good, {"actor.path": "./nowhere", "train_dataset.path": "./nothing"})
    assert all(isinstance(text, Missing) for text in problems(absent))
    validate(absent, planning=True)
    with pytest.raises(ValueError, match=r"(?s)nowhere.*nothing"):
        validate(absent)
    with pytest.raises(ValueError, match=r"^seed=-1"):
        validate(changed(absent, {"seed": -1}), planning=True)
