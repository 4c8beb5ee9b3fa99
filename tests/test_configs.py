"""Every configuration file loads, says how to launch itself, and holds what its name promises."""

from dataclasses import asdict
from pathlib import Path

import pytest
from areal.api.cli_args import parse_cli_args, to_structured_cfg
from omegaconf import OmegaConf

from trains.config import Config, LossConfig
from utils import loss_options

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "configs").glob("*.yaml"))
RUNNABLE = [path for path in FILES if path.stem != "base"]


def load(path, *overrides):
    raw, _ = parse_cli_args(["trains/grpo.py", "--config", str(path), *overrides])
    return OmegaConf.to_object(to_structured_cfg(raw, Config))


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_loads_and_is_consistent(path):
    config = load(path)
    loss_options.validate(config.loss.options(config.gconfig))
    assert config.rollout.consumer_batch_size == config.train_dataset.batch_size
    assert config.actor.temperature == config.gconfig.temperature
    assert f"--config configs/{path.name}" in path.read_text(), "the header says how to launch it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_path_of_one_machine(path):
    text = path.read_text()
    assert not any(root in text for root in ("/root/", "/home/", "/mnt/", "/tmp/", "/vlm/"))


def test_every_experiment_has_its_own_name():
    names = [load(path).experiment_name for path in RUNNABLE]
    assert len(set(names)) == len(names)


def test_base_comments_every_knob():
    for line in (ROOT / "configs/base.yaml").read_text().splitlines():
        sets_a_value = ": " in line and not line.lstrip().startswith("#")
        assert not sets_a_value or "#" in line, f"no comment: {line}"


def test_a_default_of_the_loss_is_the_recipes_and_base_writes_it_out():
    base = OmegaConf.load(ROOT / "configs/base.yaml")
    assert base.loss == asdict(LossConfig())
    options = LossConfig().options(
        load(RUNNABLE[0], "gconfig.n_samples=16", "gconfig.temperature=1.0").gconfig
    )
    assert options == {key: loss_options.RECIPE[key] for key in options}
    assert loss_options.RECIPE.keys() - options.keys() == {"max_tokens"}


def test_the_recipe():
    """The numbers of the recipe, as the project page and FACTS state them."""
    stage1 = load(ROOT / "configs/llavaov15-8b_stage1_grpo.yaml")
    assert stage1.train_dataset.batch_size * stage1.gconfig.n_samples == 512
    assert (stage1.gconfig.temperature, stage1.gconfig.top_p, stage1.gconfig.max_new_tokens) == (
        1.0,
        1.0,
        4096,
    )
    optimizer = stage1.actor.optimizer
    assert (optimizer.lr, optimizer.weight_decay, optimizer.beta1, optimizer.beta2, optimizer.eps) == (
        2e-6, 0.01, 0.9, 0.999, 1e-8,
    )  # fmt: skip
    assert (optimizer.warmup_steps_proportion, optimizer.gradient_clipping) == (0.001, 1.0)
    assert optimizer.lr_scheduler_type == "constant"
    loss = stage1.loss
    assert (loss.eps_clip, loss.eps_clip_higher, loss.behavior_cap, loss.kl_coefficient) == (
        0.2,
        0.28,
        5.0,
        0.0,
    )
    assert loss.behavior_mode == "truncate"
    assert loss.use_decoupled_loss
    assert loss.recompute_logprob
    assert (loss.reward_bias, loss.reward_scaling) == (-0.5, 10.0)
    assert (stage1.rollout.max_head_offpolicyness, stage1.rollout.max_concurrent_rollouts) == (4, 256)
    assert (stage1.sglang.max_running_requests, stage1.sglang.mem_fraction_static) == (64, 0.8)
    assert stage1.sglang.context_length == 32768
    assert stage1.actor.mb_spec.max_tokens_per_mb == 6144
    assert (stage1.saver.freq_steps, stage1.evaluator.freq_steps) == (250, 50)
    assert (stage1.total_train_epochs, stage1.seed, stage1.actor.num_minibatches) == (30, 219, 1)
    assert stage1.allocation_mode == "sglang:d4+fsdp:d4"
    assert stage1.train_dataset.path == "./data/stage1-normal"


def test_stages_differ_only_in_what_must_differ():
    for stage1, stage2 in [
        ("llavaov15-8b_stage1_grpo", "llavaov15-8b_stage2_grpo"),
        ("llavaov15-4b_stage1_grpo", "llavaov15-4b_stage2_grpo"),
        ("digits_cpu_stage1", "digits_cpu_stage2"),
    ]:
        one, two = load(ROOT / f"configs/{stage1}.yaml"), load(ROOT / f"configs/{stage2}.yaml")
        assert one.experiment_name != two.experiment_name
        run = Path(one.cluster.fileroot, one.experiment_name, one.trial_name)
        assert Path(two.actor.path) == run, "stage 2 names stage 1's run, whose manifest names the checkpoint"
        weights = {part["path"]: part["weight"] for part in two.train_dataset.mixture}
        assert 0 < weights[one.train_dataset.path] < weights[two.train_dataset.path], (
            "a small share of rehearsal"
        )
        assert (one.loss, one.gconfig.n_samples, one.seed) == (two.loss, two.gconfig.n_samples, two.seed)


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_the_published_models_get_the_prompts_and_images_they_were_made_with(path):
    config = load(path)
    is_published = path.stem.startswith("llavaov15")
    image_comes_last = path.stem == "zoom_cpu"  # its warm start learns places from the image alone
    assert config.prompts.layout == ("release" if is_published or image_comes_last else "recipe")
    assert (config.train_dataset.max_pixels == 512 * 512) == is_published


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_a_second_start_continues_what_took_hours_and_repeats_the_demo(path):
    assert load(path).recover.mode == ("off" if path.stem.startswith(("digits", "zoom")) else "on")
