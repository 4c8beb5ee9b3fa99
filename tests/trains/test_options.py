"""What the recipe leaves off, switched on together in one real run, on two ranks of the trainer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llavaonevision1_5.freezing import part_of_model

ROOT = Path(__file__).resolve().parents[2]
RANK = 4
OPTIONS = [
    "allocation_mode=sglang:d1+fsdp:d2",
    "actor.use_lora=true", f"actor.lora_rank={RANK}", "actor.lora_alpha=8",
    "actor.freeze_vision_tower=true",
    "actor.num_minibatches=2",
    "actor.optimizer.lr=1e-3",
    "loss.kl_coefficient=0.1",
    "reward.overlong_buffer_tokens=24",  # an untrained model earns nothing, but its answers differ in length
    "loss.estimator=rloo", "loss.batch_whiten=false", "loss.loss_mode=sequence-mean",
    "total_train_steps=3", "valid_dataset=null", "evaluator.eval_before_train=false",
]  # fmt: skip


@pytest.mark.long
@pytest.mark.timeout(600)
def test_options_together(overrides, tiny_checkpoint, tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "areal.launcher.local", "trains/grpo.py", "--config"]
    command += ["configs/digits_cpu_stage1.yaml", *overrides, *OPTIONS]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "runs" / "digits-stage1" / "demo"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in steps] == [1, 2, 3]
    assert all(record["num_groups"] == 4 for record in steps)
    assert max(record["parity_max"] for record in steps) < 1e-4, "the servers compute what the adapters do"

    norms = steps[-1]["gradient_norms"]
    assert norms["language_model"] > 0
    assert norms["projector"] > 0
    assert all(norm == 0 for name, norm in norms.items() if name.startswith("vision_"))

    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_checkpoint, run / "final"))
    assert before.keys() == after.keys(), "merged, under the names of the model"
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {part_of_model(name) for name in changed} == {"language_model", "projector"}
    for name in changed:
        change = after[name] - before[name]
        assert torch.linalg.matrix_rank(change, rtol=1e-3) <= RANK, name
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert steps[-1]["reference_kl"] > steps[0]["reference_kl"] >= 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_weights_straight_to_the_servers(overrides, tmp_path):
    """GPUs' default exchange, over gloo: two ranks, whose shards differ in size, to two servers. Evaluation before
    training stays on, as shipped, and there is no held-out data.
    """
    command = [sys.executable, "-W", "ignore", "-m", "areal.launcher.local", "trains/grpo.py", "--config"]
    command += ["configs/digits_cpu_stage1.yaml", *overrides, "total_train_steps=3", "valid_dataset=null"]
    command += ["allocation_mode=sglang:d2+fsdp:d2", "actor.weight_update_mode=xccl"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (tmp_path / "runs" / "digits-stage1" / "demo" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["version"] for line in lines] == [0, 1, 2]
    assert max(json.loads(line)["parity_max"] for line in lines) < 1e-4
