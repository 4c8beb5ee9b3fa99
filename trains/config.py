"""The configuration of a run: AReaL's dialect of dataclasses, plus the sections that the recipe adds.

`load(argv)` is for the trainer; `check(argv)` is called by the launchers before anything starts. Both raise
`ValueError` with the key, the value got and the value wanted. Every knob is explained in `configs/base.yaml`.
"""

from __future__ import annotations

import glob
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from areal.api.cli_args import (
    BaseExperimentConfig,
    GenerationHyperparameters,
    InferenceEngineConfig,
    TrainDatasetConfig,
    TrainEngineConfig,
    ValidDatasetConfig,
    load_expr_config,
    parse_cli_args,
    to_structured_cfg,
)
from areal.utils.stats_logger import StatsLogger
from omegaconf import OmegaConf

from llavaonevision1_5 import MODEL_TYPE
from llavaonevision1_5.shims import check_code
from reward.settings import RewardSettings, make_settings
from trains.host import allocation, qwen_vl
from trains.host.allocation import Allocation
from utils import loss_options, run_manifest
from utils.masking import masked
from utils.tables import split_paths

SERVER_RESERVE = 8  # SGLang refuses prompt + answer that come closer than this to its context length
NO_TOP_K = 10_000_000  # AReaL's "no limit" is any top_k beyond every vocabulary


@dataclass
class LossConfig:
    """The objective; keys and defaults as in `utils.loss_options.RECIPE`, formulas in docs/algorithm.md."""

    use_decoupled_loss: bool = True
    recompute_logprob: bool = True
    proximal_pass: str = "auto"
    eps_clip: float = 0.2
    eps_clip_higher: float = 0.28
    dual_clip: float | None = None
    behavior_cap: float | None = 5.0
    behavior_floor: float = 0.0
    behavior_mode: str = "truncate"
    behavior_level: str = "token"
    ratio_level: str = "token"
    surrogate: str = "ppo"
    loss_mode: str = "token-mean"
    estimator: str = "grpo"
    std: str = "population"
    batch_whiten: bool = True
    reward_bias: float = -0.5
    reward_scaling: float = 10.0
    kl_coefficient: float = 0.0
    kl_estimator: str = "k3"

    def options(self, gconfig: GenerationHyperparameters) -> dict[str, Any]:
        """What `utils.loss_options.validate` checks; the sampling settings come from `gconfig`."""
        options = asdict(self)
        del options["reward_bias"], options["reward_scaling"]  # checked where the batch is
        if self.loss_mode == "constant":
            options["max_tokens"] = gconfig.max_new_tokens
        return {**options, "group_size": gconfig.n_samples, "temperature": gconfig.temperature}


@dataclass
class ActorConfig(TrainEngineConfig):
    """AReaL's training engine, with what it lacks for a vision-language policy."""

    num_minibatches: int = 1
    freeze_vision_tower: bool = False
    freeze_projector: bool = False
    logprob_block_size: int = 1024
    share_prompts: bool = True
    max_skipped_steps: int = 3
    parity_threshold: float | None = None


@dataclass
class ReferenceConfig:
    """The policy that `loss.kl_coefficient` pulls towards; in all but its weights it is as `actor`."""

    path: str | None = None
    offload_params: bool = False

    def engine(self, actor: ActorConfig) -> ActorConfig:
        """The configuration of its engine, which only computes log-probabilities."""
        return replace(
            actor,
            path=self.path,
            optimizer=None,
            use_lora=False,
            freeze_vision_tower=False,
            freeze_projector=False,
            fsdp=replace(actor.fsdp, offload_params=self.offload_params),
        )


@dataclass
class BufferConfig:
    """What the ring buffer does with groups it cannot use (see `trains/buffer.py`)."""

    resubmit_evicted: bool = True
    drop_without_signal: bool = False
    max_attempts_per_batch: int = 8


@dataclass
class RewardConfig:
    """The verifier pool (see `reward/pool.py`)."""

    num_workers: int = 2
    overlong_buffer_tokens: int = 0
    verifiers: dict[str, Any] = field(default_factory=dict)

    def settings(self, max_new_tokens: int) -> RewardSettings:
        """What scores depend on (see `reward/settings.py`). Raises ``ValueError`` naming the key."""
        return make_settings(self.verifiers, self.overlong_buffer_tokens, max_new_tokens)


@dataclass
class TrainDataConfig(TrainDatasetConfig):
    """Where the prompts come from and how they are worded (see `dataset/loader.py`)."""

    mixture: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    max_bad_share: float = 0.01
    max_pixels: int | None = None
    num_thinking_prompts: int = 1
    format_guidance: bool = False


@dataclass
class EvalDataConfig(ValidDatasetConfig):
    """Held-out data; `max_samples` null evaluates all of it."""

    max_samples: int | None = None
    columns: dict[str, str] | None = None


@dataclass
class Config(BaseExperimentConfig):
    """One training run."""

    gconfig: GenerationHyperparameters = field(default_factory=GenerationHyperparameters)
    eval_gconfig: GenerationHyperparameters = field(default_factory=GenerationHyperparameters)
    rollout: InferenceEngineConfig = field(default_factory=InferenceEngineConfig)
    buffer: BufferConfig = field(default_factory=BufferConfig)
    actor: ActorConfig = field(default_factory=ActorConfig)
    ref: ReferenceConfig = field(default_factory=ReferenceConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    train_dataset: TrainDataConfig = field(default_factory=TrainDataConfig)
    valid_dataset: EvalDataConfig | None = None

    @property
    def allocation(self) -> Allocation:
        return allocation.parse(self.allocation_mode)


def load(argv: list[str]) -> Config:
    """The checked configuration of this process; also saved, secrets masked, as the run's `config.yaml`."""
    earlier_runs = run_manifest.hand_over(parse_cli_args(argv)[0])  # none where a launcher has resolved them
    config, _ = load_expr_config([*argv, *earlier_runs], Config)
    if os.getenv("RANK", "0") == "0":
        saved = Path(StatsLogger.get_log_path(config.stats_logger)) / "config.yaml"
        saved.write_text(yaml.dump(masked(asdict(config)), sort_keys=False))  # AReaL wrote it as it is
    _keys_to_environment(config.stats_logger)
    validate(config)
    return config


def _keys_to_environment(loggers: Any) -> None:
    """Keys of W&B and SwanLab to where both look for them: both publish the whole configuration of a run."""
    if loggers.wandb.wandb_api_key:
        os.environ["WANDB_API_KEY"], loggers.wandb.wandb_api_key = loggers.wandb.wandb_api_key, ""
    if loggers.swanlab.api_key:
        os.environ["SWANLAB_API_KEY"], loggers.swanlab.api_key = loggers.swanlab.api_key, ""


def check(argv: list[str]) -> list[str]:
    """Raise `ValueError` (or OmegaConf's own error for an unknown key) unless a run with these arguments can start.

    Returns the overrides that every process needs besides: checkpoints in place of the earlier runs that were named.
    """
    raw, _ = parse_cli_args(argv)
    earlier_runs = run_manifest.hand_over(raw)
    validate(OmegaConf.to_object(to_structured_cfg(raw, Config)))
    return earlier_runs


def validate(config: Config) -> None:
    """All checks that need no model: cheap enough to run before every launch."""
    loss_options.validate(config.loss.options(config.gconfig))
    _check_sampling(config)
    _check_batch(config)
    _check_paths(config)
    _check_engine(config)


def _check_sampling(config: Config) -> None:
    sampling = config.gconfig
    if sampling.top_p != 1.0 or sampling.top_k < NO_TOP_K:
        raise ValueError(
            f"gconfig.top_p={sampling.top_p}, gconfig.top_k={sampling.top_k}: the trainer's log-probabilities are "
            f"those of the full distribution; write top_p: 1.0 and leave top_k out"
        )
    if sampling.greedy or sampling.temperature <= 0:
        raise ValueError(
            "gconfig: greedy training rollouts have no signal; write greedy: false, temperature: 1.0"
        )
    if sampling.frequency_penalty != 0:
        raise ValueError(
            f"gconfig.frequency_penalty={sampling.frequency_penalty}: the server would sample from another "
            "distribution than the trainer computes; write 0"
        )
    if config.actor.temperature != sampling.temperature:
        raise ValueError(
            f"actor.temperature={config.actor.temperature} must equal gconfig.temperature={sampling.temperature}, "
            f"or trainer and rollout engine measure different policies; write actor.temperature: "
            f"${{gconfig.temperature}}"
        )
    if not sampling.stop_token_ids:
        raise ValueError("gconfig.stop_token_ids=[]: name the end-of-turn token, or no answer ever stops")
    limit = config.sglang.context_length
    wanted = (config.train_dataset.max_length or 0) + sampling.max_new_tokens
    if limit is not None and wanted + SERVER_RESERVE > limit:
        raise ValueError(
            f"train_dataset.max_length={config.train_dataset.max_length} + gconfig.max_new_tokens="
            f"{sampling.max_new_tokens} exceed sglang.context_length={limit}, of which the server keeps "
            f"{SERVER_RESERVE} tokens for itself; write at least {wanted + SERVER_RESERVE}"
        )
    if config.eval_gconfig.n_samples != 1:
        raise ValueError(
            f"eval_gconfig.n_samples={config.eval_gconfig.n_samples}: evaluation takes one answer to each prompt; "
            "write 1 (Pass@k: python -m utils.evaluate.offline)"
        )


def _check_batch(config: Config) -> None:
    batch_size, ranks = config.train_dataset.batch_size, config.allocation.train.dp_size
    if batch_size % ranks:
        raise ValueError(
            f"train_dataset.batch_size={batch_size} (prompts a step) is not divisible by the {ranks} data-parallel "
            f"ranks of allocation_mode={config.allocation_mode!r}"
        )
    if config.rollout.consumer_batch_size != batch_size:
        raise ValueError(
            f"rollout.consumer_batch_size={config.rollout.consumer_batch_size} must be train_dataset.batch_size="
            f"{batch_size}: staleness is counted in batches of that size"
        )
    num_prompts = batch_size // ranks
    if config.actor.num_minibatches < 1 or num_prompts % config.actor.num_minibatches:
        raise ValueError(
            f"actor.num_minibatches={config.actor.num_minibatches} does not divide the {num_prompts} prompts of a "
            "step and rank"
        )
    if config.loss.proximal_pass == "fused" and config.actor.num_minibatches > 1:
        raise ValueError(
            f"loss.proximal_pass='fused' with actor.num_minibatches={config.actor.num_minibatches}: from the second "
            "minibatch on the weights are no longer the proximal ones; write auto or separate"
        )
    for key, value in {
        "actor.logprob_block_size": config.actor.logprob_block_size,
        "buffer.max_attempts_per_batch": config.buffer.max_attempts_per_batch,
        "loss.reward_scaling": config.loss.reward_scaling,
    }.items():
        if value <= 0:
            raise ValueError(f"{key}={value}: wanted more than 0")
    config.reward.settings(config.gconfig.max_new_tokens)
    if config.rollout.max_head_offpolicyness < 0:
        raise ValueError(
            f"rollout.max_head_offpolicyness={config.rollout.max_head_offpolicyness}: wanted 0 (synchronous) or more"
        )

    longest = (config.train_dataset.max_length or 0) + config.gconfig.max_new_tokens
    if (
        config.actor.mb_spec.max_tokens_per_mb is not None
        and longest > config.actor.mb_spec.max_tokens_per_mb
    ):
        raise ValueError(
            f"train_dataset.max_length={config.train_dataset.max_length} + gconfig.max_new_tokens="
            f"{config.gconfig.max_new_tokens} exceed actor.mb_spec.max_tokens_per_mb="
            f"{config.actor.mb_spec.max_tokens_per_mb}: one sequence must fit a micro-batch"
        )


def _check_paths(config: Config) -> None:
    models = {"actor.path": config.actor.path}
    if config.loss.kl_coefficient > 0:
        if config.ref.path is None:
            raise ValueError(
                f"ref.path=null with loss.kl_coefficient={config.loss.kl_coefficient}: name the checkpoint that the "
                "policy is pulled towards, for example ${actor.path}"
            )
        models["ref.path"] = config.ref.path
    for key, path in models.items():
        model = Path(path)
        if not (model / "config.json").is_file():
            is_run = Path(config.cluster.fileroot) in model.parents
            raise ValueError(
                f"{key}={path!r}: there is no checkpoint (config.json) and no manifest of a run (run.json) in that "
                "folder" + ("; that run has to be trained first" if is_run else "")
            )
        if not (list(model.glob("*.safetensors")) or list(model.glob("*.bin"))):
            raise ValueError(f"{key}={path!r}: the folder holds no weights (*.safetensors)")
        try:
            check_code(model)  # AReaL and the servers load with trust_remote_code
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    sources = [("train_dataset.path", config.train_dataset.path)]
    sources += [
        (f"train_dataset.mixture[{i}].path", m["path"]) for i, m in enumerate(config.train_dataset.mixture)
    ]
    if config.valid_dataset is not None:
        sources.append(("valid_dataset.path", config.valid_dataset.path))
    for key, path in sources:
        for part, _ in split_paths(path):
            if part.startswith((".", "/", "data/")) and not glob.glob(part, recursive=True):
                raise ValueError(f"{key}={part!r} does not exist (working directory: {Path.cwd()})")


def _check_engine(config: Config) -> None:
    train = config.allocation.train
    if config.allocation.gen_backend != "sglang" or config.allocation.train_backend != "fsdp":
        raise ValueError(
            f"allocation_mode={config.allocation_mode!r}: this recipe rolls out on sglang and trains on fsdp, "
            "for example sglang:d4+fsdp:d4"
        )
    if train.tp_size * train.pp_size * train.cp_size != 1:
        raise ValueError(
            f"allocation_mode={config.allocation_mode!r}: the actor is sharded by data parallelism alone; "
            "write fsdp:dN"
        )
    if config.actor.enable_tree_training:
        raise ValueError(
            "actor.enable_tree_training=true: AReaL's tree path goes around the recipe's log-probabilities; write false"
        )
    if config.rollout.check_trajectory_format:
        raise ValueError(
            "rollout.check_trajectory_format=true: groups carry images and records beside tensors; write false"
        )
    if config.actor.optimizer is None:
        raise ValueError("actor.optimizer=null: a policy without an optimizer does not learn")
    if config.actor.use_lora and config.actor.weight_update_mode != "disk":
        raise ValueError(
            f"actor.weight_update_mode={config.actor.weight_update_mode!r} with actor.use_lora=true: the servers get "
            "merged weights, which are written to files; write disk"
        )
    if config.rollout.use_lora:
        raise ValueError(
            "rollout.use_lora=true: the servers get merged weights and know of no adapter; write false, and "
            "actor.use_lora: true to train one"
        )
    model_type = json.loads((Path(config.actor.path) / "config.json").read_text())["model_type"]
    if config.actor.attn_impl == "sdpa" and model_type not in (MODEL_TYPE, *qwen_vl.MODEL_TYPES):
        raise ValueError(
            f"actor.attn_impl='sdpa' lets packed sequences of model type {model_type!r} attend to each other; "
            "write flash_attention_2"
        )
