"""The configuration of a run: AReaL's dialect of dataclasses, plus the sections that the recipe adds.

`load(argv)` is for the trainer; `check(argv)` is called by the launchers before anything starts. Both raise
`ValueError` with the key, the value got and the value wanted. Every knob is explained in `configs/base.yaml`.
"""

from __future__ import annotations

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
)

from dataset.agent.types import AgentSettings
from dataset.prompts import DEFAULT_PROMPTS, PromptConfig
from reward.settings import RewardSettings, make_settings
from reward.trajectory import TrajectoryWeights
from trains.arguments import read
from trains.file_gate import Missing
from trains.gate import problems, remarks
from trains.host import allocation
from trains.host.allocation import Allocation
from utils.masking import masked


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
    rejection_level: str = "none"
    rejection_cap: float = 5.0
    rejection_floor: float = 0.0
    off_policy_delta: float | None = None
    ratio_level: str = "token"
    surrogate: str = "ppo"
    sapo_tau_positive: float = 1.0
    sapo_tau_negative: float = 1.05
    loss_mode: str = "token-mean"
    overlong_filter: bool = False
    estimator: str = "grpo"
    passk_k: int = 4
    std: str = "population"
    batch_whiten: bool = True
    without_signal: str = "zero"
    reward_bias: float = -0.5
    reward_scaling: float = 10.0
    kl_coefficient: float = 0.0
    kl_estimator: str = "k3"
    shuffle_rewards: bool = False
    kl_bound: float | None = 10.0
    kl_unbiased: bool = False
    entropy_coefficient: float = 0.0
    entropy_target: float | None = None
    entropy_step: float = 0.005

    def options(self, gconfig: GenerationHyperparameters) -> dict[str, Any]:
        """What `utils.loss_options.validate` checks; the sampling settings come from `gconfig`."""
        options = asdict(self)
        del options["reward_bias"], options["reward_scaling"]  # checked where the batch is
        del options["shuffle_rewards"]  # goes with all others
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
    capsule: str = "on_failure"
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
class CriticConfig:
    """The critic of `loss.estimator: gae` (PPO); in all that is not named here it is as `actor`."""

    path: str | None = None
    lr: float = 1e-5
    head_lr: float | None = None
    freeze_vision_tower: bool = False
    freeze_projector: bool = False
    num_minibatches: int = 1
    num_epochs: int = 1
    value_clip: float | None = 0.5
    discount: float = 1.0
    trace: float = 1.0

    def engine(self, actor: ActorConfig) -> ActorConfig:
        """The configuration of its engine."""
        return replace(
            actor,
            path=self.path,
            is_critic=True,
            use_lora=False,
            freeze_vision_tower=self.freeze_vision_tower,
            freeze_projector=self.freeze_projector,
            num_minibatches=self.num_minibatches,
            optimizer=replace(actor.optimizer, lr=self.lr),
        )


@dataclass
class BufferConfig:
    """What the ring buffer does with groups it cannot use (see `trains/buffer.py`)."""

    resubmit_evicted: bool = True
    drop_without_signal: bool = False
    freshness: str = "auto"
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
class PromptsConfig:
    """How prompts are worded and laid out (see `dataset/prompts.py`)."""

    layout: str = DEFAULT_PROMPTS.layout
    num_thinking_prompts: int = DEFAULT_PROMPTS.num_thinking_prompts
    format_guidance: bool = DEFAULT_PROMPTS.format_guidance

    def settings(self, seed: int) -> PromptConfig:
        """What prompts are rendered by; `seed` draws a thinking prompt per sample."""
        return PromptConfig(**asdict(self), seed=seed)


@dataclass
class AgentConfig:
    """Conversations with tools (see `trains/agent.py`); without tools, here or in a row's spec, one turn as ever."""

    enabled: bool = False
    tools: list[str] = field(default_factory=list)
    max_turns: int = AgentSettings.max_turns
    max_images: int = AgentSettings.max_images
    max_tokens: int | None = None
    max_tool_seconds: float = AgentSettings.max_tool_seconds
    max_reply_chars: int = AgentSettings.max_reply_chars
    num_workers: int = 2
    corpus: str | None = None
    tool_bonus: float = 0.0
    turn_format: float = 0.0
    call_cost: float = 0.0

    def settings(self, max_new_tokens: int) -> AgentSettings:
        """The limits of a conversation; without `max_tokens` the whole of it has those of a turn."""
        return AgentSettings(
            tools=tuple(self.tools),
            max_turns=self.max_turns,
            max_images=self.max_images,
            max_tool_seconds=self.max_tool_seconds,
            max_tokens=self.max_tokens or max_new_tokens,
            max_reply_chars=self.max_reply_chars,
            corpus=self.corpus,
        )

    def weights(self) -> TrajectoryWeights:
        """Of the rewards that see the whole conversation. Raises ``ValueError`` naming the key."""
        return TrajectoryWeights(self.tool_bonus, self.turn_format, self.call_cost)


@dataclass
class RecordsConfig:
    """What is kept of every rollout (see `trains/rollout_records.py`)."""

    rollouts: bool = True
    max_gigabytes: float = 20.0
    token_share: float = 0.125


@dataclass
class LauncherConfig:
    """What the local launcher does about what dies or hangs (see 3rdparty/areal_launcher)."""

    max_server_restarts: int = 8
    hang_floor_seconds: float | None = 300.0


@dataclass
class TrialConfig:
    """What becomes of an earlier run of the same name (see `trains/trial.py`)."""

    overwrite: bool = False


@dataclass
class RehearsalConfig:
    """What `--rehearse` and `--smoke` alone set (see trains/rehearsal)."""

    reference_share: float = 0.0
    longest_first: bool = False


@dataclass
class GroundTruthConfig:
    """Reference answers among a group's rollouts (see `trains/ground_truth.py`); 0 is none."""

    num_given: int = 0
    weight: float = 1.0
    smooth: bool = True


@dataclass
class TrainDataConfig(TrainDatasetConfig):
    """Where the prompts come from (see `dataset/loader.py`)."""

    mixture: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    max_bad_share: float = 0.01
    image_files: bool = True
    max_pixels: int | None = None


@dataclass
class EvalDataConfig(ValidDatasetConfig):
    """Held-out data; `max_samples` null evaluates all of it."""

    max_samples: int | None = None
    columns: dict[str, str] | None = None


@dataclass
class Config(BaseExperimentConfig):
    """One training run."""

    deterministic: bool = False
    gconfig: GenerationHyperparameters = field(default_factory=GenerationHyperparameters)
    eval_gconfig: GenerationHyperparameters = field(default_factory=GenerationHyperparameters)
    rollout: InferenceEngineConfig = field(default_factory=InferenceEngineConfig)
    buffer: BufferConfig = field(default_factory=BufferConfig)
    actor: ActorConfig = field(default_factory=ActorConfig)
    ref: ReferenceConfig = field(default_factory=ReferenceConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    ground_truth: GroundTruthConfig = field(default_factory=GroundTruthConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    records: RecordsConfig = field(default_factory=RecordsConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    trial: TrialConfig = field(default_factory=TrialConfig)
    rehearsal: RehearsalConfig = field(default_factory=RehearsalConfig)
    train_dataset: TrainDataConfig = field(default_factory=TrainDataConfig)
    valid_dataset: EvalDataConfig | None = None

    @property
    def max_behind_prompt(self) -> int:
        """Tokens that may follow a prompt: an answer, or a conversation."""
        if not self.agent.enabled:
            return self.gconfig.max_new_tokens
        return self.agent.settings(self.gconfig.max_new_tokens).max_tokens

    def prompt_settings(self) -> PromptConfig:
        """How the prompts of this run are rendered, its tools among it."""
        prompts = self.prompts.settings(self.seed)
        return replace(prompts, tools=tuple(self.agent.tools)) if self.agent.enabled else prompts

    @property
    def allocation(self) -> Allocation:
        return allocation.parse(self.allocation_mode)


def load(argv: list[str]) -> Config:
    """The checked configuration of this process; also saved, secrets masked, as the run's `config.yaml`."""
    from areal.utils.stats_logger import StatsLogger

    earlier_runs = read(argv, Config)[1]  # none where a launcher has resolved them
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


def check(argv: list[str], *, planning: bool = False) -> list[str]:
    """Raise `ValueError` unless a run with these arguments can start; while planning, files may be missing yet.

    Returns the overrides that every process needs besides: checkpoints in place of the earlier runs that were named.
    Prints remarks, unless a plan is made, which names them itself.
    """
    config, earlier_runs = read(argv, Config)
    validate(config, planning=planning)
    for text in remarks(config) if not planning else ():
        print(f"[launcher] remark: {text}", flush=True)
    return earlier_runs


def validate(config: Config, *, planning: bool = False) -> None:
    """Raises `ValueError` with every problem (trains/gate.py); cheap enough to run before every launch."""
    found = [text for text in problems(config) if not (planning and isinstance(text, Missing))]
    if found:
        raise ValueError("\n".join(found))
