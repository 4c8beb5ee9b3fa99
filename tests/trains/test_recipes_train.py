"""Every file of configs/recipes/ trains two steps with real servers; and PPO, with a critic in its records."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trains.metrics import flat
from utils import metric_names

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "configs/recipes").glob("*.yaml"))
# What forces a file for eight GPUs onto a CPU, and the demo's model.
SMALL = [
    "allocation_mode=sglang:d1+fsdp:d1", "cluster.n_gpus_per_node=1", "actor.attn_impl=sdpa", "actor.dtype=float32",
    "actor.gradient_checkpointing=false", "actor.weight_update_mode=disk",
    "actor.mb_spec.max_tokens_per_mb=2048", "sglang.context_length=2048", "train_dataset.max_length=1024",
    "train_dataset.num_workers=0", "reward.num_workers=1", "prompts.layout=recipe", "total_train_steps=2",
    "rollout.max_concurrent_rollouts=16", "recover.mode='off'", "saver.freq_steps=null",
    "evaluator.eval_before_train=false",
    # an untrained model earns nothing, but its answers differ in length: an eighth of its tokens end one
    "reward.overlong_buffer_tokens=24", f"gconfig.stop_token_ids=[258,{','.join(map(str, range(32)))}]",
]  # fmt: skip


def train(config, overrides, tmp_path):
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "areal.launcher.local",
        "trains/grpo.py",
        "--config",
        str(config),
    ]
    done = subprocess.run(
        [*command, *overrides], check=False, cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (records,) = (tmp_path / "runs").glob("*/*/metrics.jsonl")
    return [json.loads(line) for line in records.read_text().splitlines()]


@pytest.mark.long
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_trains_two_steps(path, overrides, tmp_path):
    words = [word for word in overrides if not word.startswith("valid_dataset")]  # the files have none
    steps = train(path, [*SMALL, *words], tmp_path)
    assert [record["step"] for record in steps] == [1, 2]
    for record in steps:
        assert metric_names.differences(flat(record)) == ([], [])
        assert record["num_skipped"] == 0
        assert record["grad_norm"] > 0
        assert record["parity_max"] < 1e-4


@pytest.mark.long
@pytest.mark.timeout(1000)
def test_ppo_trains_a_policy_and_a_critic_on_two_ranks(overrides, tmp_path):
    """One rollout a prompt; two minibatches of the critic, a frozen tower, and a resume."""
    words = [
        *overrides, "loss.estimator=gae", "gconfig.n_samples=1", "allocation_mode=sglang:d1+fsdp:d2",
        "critic.num_minibatches=2", "critic.num_epochs=2", "critic.freeze_vision_tower=true", "critic.lr=1e-3",
        "recover.mode=on", "reward.overlong_buffer_tokens=24", "evaluator.eval_before_train=false",
        "recover.freq_steps=1",
    ]  # fmt: skip
    steps = train("configs/digits_cpu_stage1.yaml", [*words, "total_train_steps=2"], tmp_path)
    for record in steps:
        assert metric_names.differences(flat(record)) == ([], [])
        assert record["critic"]["grad_norm"] > 0
        assert record["critic"]["lr"] == pytest.approx(1e-3)
    first, second = (record["critic"] for record in steps)
    assert first["value_mean"] == 0.0, "the head begins at zero"
    assert 0 < second["value_mean"] / first["return_mean"] < 1, "towards the returns of the first step"
    resumed = train("configs/digits_cpu_stage1.yaml", [*words, "total_train_steps=3"], tmp_path)
    assert [record["step"] for record in resumed] == [1, 2, 3]
    assert resumed[2]["critic"]["value_mean"] != 0.0, "the critic goes on too"
