"""The doctor: every shipped configuration is healthy, every broken one gets the one right message; the dry run."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from areal.launcher import preflight

from llavaonevision1_5 import sglang_environment
from tests.utils.doctor.machines import FILES, GIB, ROOT, machine_for, node
from utils.doctor import machine
from utils.doctor import report as doctor


@pytest.mark.parametrize("stem", FILES)
def test_a_shipped_configuration_is_healthy(stem, arguments):
    diagnosis = doctor.examine(arguments(stem), machine_for(stem))
    assert diagnosis.problems == []
    text = doctor.report(diagnosis)
    for what in ("weights", "gradients", "optimizer", "activations", "highest moment", "pixel tensors"):
        assert re.search(rf"^  {what} +\d", text, re.MULTILINE), what
    assert "no problem found" in text
    if "cpu" not in stem:
        assert "KV cache" in text
        assert re.search(r"a step of \d+ rollouts, .*: about \d+ s", text)


BASE = "llavaov15-4b_stage1_grpo"
FITS = ("train_dataset.max_length=2048", "train_dataset.max_pixels=1404928")
BROKEN = {
    "placeholder": (["actor.path=/path/to/model"], r"actor\.path='/path/to/model' is a placeholder"),
    "left open": (["experiment_name=???"], r"experiment_name=\?\?\?: a value must be given"),
    "unknown key": (["+loss.eps_clipp=0.1"], r"loss\.eps_clipp is not a key.*did you mean loss\.eps_clip\?"),
    "misspelt override": (["loss.eps_klip=0.1"], r"loss\.eps_klip is not a key.*did you mean loss\.eps_clip"),
    "key without plus": (["actor.fsdp.offload_params=true"], r"write '\+actor\.fsdp\.offload_params=true'"),
    "wrong type": (["actor.optimizer.lr=fast"], r"actor\.optimizer\.lr: Value 'fast'"),
    "missing checkpoint": (["actor.path=./nowhere"], r"actor\.path='./nowhere': there is no checkpoint"),
    "stage 1 not trained": (
        ["cluster.fileroot=./runs", "actor.path=./runs/x/y"],
        r"actor\.path='./runs/x/y'.*no manifest of a run .*; that run has to be trained first",
    ),
    "missing data": (["train_dataset.path=./nodata"], r"train_dataset\.path='./nodata' does not exist"),
    "dead key": (["+enable_offload=true"], r"enable_offload=True has no effect here"),
    "indivisible": (
        ["train_dataset.batch_size=30"],
        r"train_dataset\.batch_size=30 .* not divisible by the 4",
    ),
    "temperature": (
        ["actor.temperature=0.7"],
        r"actor\.temperature=0\.7 must equal gconfig\.temperature=1\.0",
    ),
    "long sequences": (
        ["gconfig.max_new_tokens=8192"],
        r"max_new_tokens=8192 exceed actor\.mb_spec\.max_tokens_per_mb=6144: one sequence must fit",
    ),
    "starved": (
        ["rollout.max_concurrent_rollouts=16"],
        r"max_concurrent_rollouts=16 is below train_dataset\.batch_size",
    ),
    "too many GPUs": (["allocation_mode=sglang:d6+fsdp:d4"], r"uses 10 GPUs, cluster\.n_gpus_per_node=8"),
    "shared without disk": (
        ["allocation_mode=sglang:d8+fsdp:d8", "sglang.mem_fraction_static=0.3"],
        r"weight_update_mode='xccl'.*one process per GPU; write disk",
    ),
    "no memory": (
        ["actor.gradient_checkpointing=false", "actor.mb_spec.max_tokens_per_mb=12288"],
        r"the trainer needs about \d+\.\d GiB of 80 per GPU",
    ),
    "no cache": (
        ["sglang.mem_fraction_static=0.11"],
        r"mem_fraction_static=0\.11 leaves a KV cache of 0 tokens",
    ),
    "never stops": (["gconfig.stop_token_ids=[7]"], r"stop_token_ids=\[7\] holds none .* \[151643, 151645\]"),
    "drifting dtype": (["sglang.dtype=float16"], r"sglang\.dtype=float16 differs from actor\.dtype=bfloat16"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_mistake_gives_its_one_message(name, arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    overrides, message = BROKEN[name]
    diagnosis = doctor.examine(arguments(BASE, *FITS, *overrides), node())
    (found,) = diagnosis.problems + diagnosis.missing
    assert re.search(message, found), found
    assert diagnosis.status == (3 if "missing" in name or "not trained" in name else 1)


def test_sdpa_is_for_models_whose_packed_sequences_are_kept_apart(arguments, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    words = arguments(BASE, *FITS, f"actor.path={tmp_path}", "actor.attn_impl=sdpa")
    (problem,) = doctor.examine(words, node()).problems
    assert (
        "actor.attn_impl='sdpa' lets packed sequences of model type 'llava' attend to each other" in problem
    )


MACHINES = {
    "disk": ({"free_disk_bytes": 10 * GIB}, r"has 10 GiB free; .* need \d+"),
    "ports": ({"num_free_ports": 3}, r"only 3 of 32 ports tried .* are free"),
    "driver": ({"driver": "535.129"}, r"driver is 535\.129; .* 570 or newer"),
    "fewer GPUs": ({"gpus": node(4).gpus}, r"n_gpus_per_node=8, but this machine has 4"),
    "small GPUs": ({"gpus": node(8, 24).gpus}, r"the trainer needs about \d+\.\d GiB of 24"),
    "version": (
        {"versions": {"sglang": "0.5.9", "flash-attn": "2.8.3.post2"}},
        r"sglang 0\.5\.9 is installed",
    ),
    "flash-attn": ({"versions": {}}, r"needs flash-attn, which is not installed"),
}


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_that_will_not_do(name, arguments):
    changes, message = MACHINES[name]
    diagnosis = doctor.examine(arguments(BASE, *FITS), replace(node(), **changes))
    assert [p for p in diagnosis.problems if re.search(message, p)], diagnosis.problems
    assert len(diagnosis.problems) == 1, diagnosis.problems


def test_a_critic_is_planned_for(arguments):
    words = arguments(BASE, *FITS)
    critic = ["loss.estimator=gae", "loss.batch_whiten=false", "critic.path=${actor.path}"]
    alone, beside = doctor.examine(words, node()), doctor.examine([*words, *critic], node())
    assert beside.problems == []
    assert "critic: weights" in doctor.report(beside)
    assert "critic" not in doctor.report(alone)
    assert beside.plan.seconds["trainer"] == pytest.approx(alone.plan.seconds["trainer"] * 9 / 4)
    small = node(8, 40)
    assert doctor.examine([*words, "sglang.mem_fraction_static=0.7"], small).problems == []
    (found,) = doctor.examine([*words, *critic, "sglang.mem_fraction_static=0.7"], small).problems
    assert re.search(r"the trainer needs about \d+\.\d GiB of 40", found)
    frozen = [*words, *critic, "critic.freeze_vision_tower=true"]
    assert doctor.memory_table(doctor.examine(frozen, node()).plan) != doctor.memory_table(beside.plan)


def test_capsules_and_rollouts_are_counted_on_the_disk(arguments):
    plan = doctor.examine(arguments(BASE, *FITS), node()).plan
    state = plan.model.parameters * 12
    weights, recovery = plan.model.parameters * 2 * 2, 2 * state
    need = weights + recovery
    roomy = replace(node(), free_disk_bytes=need + 2 * state + 20e9 + 1)

    def found(free, *words):
        diagnosis = doctor.examine(arguments(BASE, *FITS, *words), replace(roomy, free_disk_bytes=free))
        return diagnosis.problems, [text for text in diagnosis.remarks if text.startswith("cluster.fileroot")]

    assert found(roomy.free_disk_bytes) == ([], [])
    problems, (remark,) = found(roomy.free_disk_bytes - 2)
    assert problems == []
    assert "rollouts (records.max_gigabytes=20) and capsules of failures" in remark
    assert found(need + 1, "records.rollouts=false", "actor.capsule=off") == ([], [])
    assert found(need - 1)[0][0].endswith(f"exchange need {need / GIB:.0f}")
    every = "actor.capsule='every 10'"
    assert found(need + 3 * state - 1, every)[0][0].endswith(
        f"and capsules need {(need + 3 * state) / GIB:.0f}"
    )
    assert found(need + 3 * state + 1, every)[0] == []


def test_an_unprepared_or_unfinished_checkpoint(arguments, checkpoints, tmp_path):
    config = json.loads((checkpoints["4b"] / "config.json").read_text())
    del config["auto_map"]
    final = tmp_path / "run" / "final"
    final.mkdir(parents=True)
    (final / "config.json").write_text(json.dumps(config))
    (final / "model.safetensors").write_bytes(b"")
    (tmp_path / "run" / "run.json").write_text(json.dumps({"finished": False}))
    diagnosis = doctor.examine(arguments(BASE, *FITS, f"actor.path={final}"), node())
    assert len(diagnosis.problems) == 2
    assert "has not been prepared; run: python -m utils.checkpoint prepare" in diagnosis.problems[0]
    assert "that run has not finished" in diagnosis.problems[1]


def test_stage_2_before_and_after_stage_1_has_finished(arguments, checkpoints, tmp_path):
    stem = "llavaov15-4b_stage2_grpo"
    words = [word for word in arguments(stem, *FITS) if not word.startswith("actor.path=")]
    run = tmp_path / "runs" / "llavaov15-4b-stage1" / "trial0"
    (diagnosis,) = doctor.examine(words, node()).missing
    assert diagnosis.startswith(f"actor.path='{run}'")
    assert diagnosis.endswith("that run has to be trained first")

    run.mkdir(parents=True)
    manifest = {"finished": False, "checkpoint": None, "total_steps": 60}
    (run / "run.json").write_text(json.dumps(manifest))
    (run / "metrics.jsonl").write_text('{"step": 36}\n{"step": 37}\n')
    (diagnosis,) = doctor.examine(words, node()).problems
    assert re.search(rf"actor\.path='{run}': .*has not finished \(step 37 of 60", diagnosis)

    (run / "run.json").write_text(
        json.dumps({**manifest, "finished": True, "checkpoint": str(checkpoints["4b"])})
    )
    diagnosis = doctor.examine(words, node())
    assert diagnosis.problems == []
    config = diagnosis.plan.config
    assert config.actor.path == config.sglang.model_path == str(checkpoints["4b"])


def test_the_command_line(arguments, capsys):
    words = arguments("digits_cpu_stage1")
    assert doctor.main([*words, "train_dataset.batch_size=7"]) == 0, "everything that hangs on it follows"
    assert "no problem found" in capsys.readouterr().out
    assert doctor.main([*words, "allocation_mode=sglang:d1+megatron:d1"]) == 1
    assert "trains on fsdp" in capsys.readouterr().out


def test_looking_at_this_machine(tmp_path):
    here = machine.look(tmp_path / "not" / "yet")
    assert here.host_memory_bytes > GIB
    assert here.free_disk_bytes > 0
    assert here.num_free_ports > 0
    assert here.versions["areal"] == machine.pinned_versions("cpu")["areal"] == "1.0.4"
    assert machine.pinned_versions("gpu")["flash-attn"].startswith("2.8")


def test_rewards_are_the_same_in_both_profiles():
    """What decides a score must not depend on the machine."""
    cpu, gpu = machine.pinned_versions("cpu"), machine.pinned_versions("gpu")
    for name in (
        "math-verify",
        "latex2sympy2-extended",
        "sympy",
        "levenshtein",
        "cairosvg",
        "scikit-image",
        "pillow",
        "omegaconf",  # what a configuration means must not depend on the machine either
        "hydra-core",
    ):
        assert cpu[name] == gpu[name], name


GPU0, CPU = ["0, GPU 0"] * 2, ["0, GPU none (CPU)"] * 2
ONE_NODE = ("local", 4, ["0, GPU 0", "0, GPU 3"], 4, ["0, GPU 4", "0, GPU 7"])
# configuration: launcher, servers and trainer ranks: how many; the first and the last as (node, GPU)
DRY_RUNS = {
    "llavaov15-8b_stage1_grpo": ONE_NODE,
    "llavaov15-8b_stage2_grpo": ONE_NODE,
    "llavaov15-4b_stage1_grpo": ONE_NODE,
    "llavaov15-4b_stage2_grpo": ONE_NODE,
    "qwen25vl-3b_stage1_grpo": ONE_NODE,
    "llavaov15-8b_2nodes_ray_grpo": ("ray", 8, ["0, GPU 0", "0, GPU 7"], 8, ["1, GPU 0", "1, GPU 7"]),
    "llavaov15-8b_2nodes_slurm_grpo": ("slurm", 8, ["0, GPU 0", "0, GPU 7"], 8, ["1, GPU 0", "1, GPU 7"]),
    "llavaov15-4b_1x24gb_grpo": ("local", 1, GPU0, 1, GPU0),
    "llavaov15-4b_1x80gb_grpo": ("local", 1, GPU0, 1, GPU0),
    "digits_cpu_stage1": ("local", 1, CPU, 1, CPU),
    "digits_cpu_stage2": ("local", 1, CPU, 1, CPU),
    "zoom_cpu": ("local", 1, CPU, 1, CPU),
}


@pytest.mark.parametrize("stem", FILES)
def test_the_dry_run_shows_the_processes(stem, arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=2000 * GIB))
    launcher, num_servers, servers, num_trainers, trainers = DRY_RUNS[stem]
    words = arguments(stem)
    with pytest.raises(SystemExit) as end:
        preflight.load(["trains/grpo.py", *words, "--dry-run"], launcher)
    assert end.value.code == 0
    out = capsys.readouterr().out
    places = re.findall(r"^(server|trainer rank) \d+: node (.*)$", out, re.MULTILINE)
    for kind, number, wanted in (("server", num_servers, servers), ("trainer rank", num_trainers, trainers)):
        found = [place for name, place in places if name == kind]
        assert len(found) == number
        assert [found[0], found[-1]] == wanted
    assert "max_head_offpolicyness: 4" in out, "the resolved configuration"
    assert all(f"      {name}: " in out for name in sglang_environment()), "the servers are told of the model"
    assert re.search(r"^  optimizer +\d", out, re.MULTILINE), "the memory table"
    module = "sglang_cpu.launch_server" if "digits" in stem else "sglang"
    model = re.escape(next(word for word in words if word.startswith("actor.path="))[len("actor.path=") :])
    assert re.search(rf"^ +.*{module}.* --model-path {model} ", out, re.MULTILINE)
    assert not (tmp_path / "runs").exists(), "nothing is written"


@pytest.mark.slow
def test_the_dry_run_is_a_command_that_starts_nothing(arguments, tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "areal.launcher.local", "trains/grpo.py", "--dry-run"]
    result = subprocess.run(
        [*command, *arguments("digits_cpu_stage1")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "trainer rank 0: node 0" in result.stdout
    assert "[launcher] started" not in result.stdout
    assert not (tmp_path / "runs").exists()
