"""Builds what one run needs from its configuration: engines, data, workflows, savers. `trains/grpo.py` uses them."""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from areal.api import FinetuneSpec, StepInfo, WeightUpdateMeta
from areal.launcher import trial_lock
from areal.utils import seeding
from areal.utils.evaluator import Evaluator
from areal.utils.hf_utils import load_hf_processor_and_tokenizer
from areal.utils.stats_logger import StatsLogger

import dataset.bad_rows
import dataset.loader
from dataset.agent.pool import ToolPool
from dataset.bad_rows import BadRows
from dataset.loader import create_dataloader
from dataset.media_tokens import media_token_ids
from reward.pool import RewardPool
from trains import trial
from trains.actor import VisionActor
from trains.agent import AgentWorkflow
from trains.config import Config
from trains.critic import VisionCritic
from trains.ground_truth_workflow import GroundTruthWorkflow
from trains.host.allocation import server_allocation
from trains.host.frequencies import Frequency
from trains.host.logs import let_be_heard
from trains.host.recovery import Recovery, resume
from trains.host.rollout import BoundedRollout
from trains.host.saver import Saver
from trains.image_files import ImageFiles
from trains.rollout_records import ImageStore
from trains.turns import Turns
from trains.workflow import VisionRolloutWorkflow
from utils.rollout_files import FOLDER

UNBOUNDED_STALENESS = 10**9  # evaluation is not training data


@dataclass
class TrainingLength(FinetuneSpec):
    """AReaL's record of the training's length, which it derives the learning-rate schedule from; it has no limit."""

    step_limit: int | None = None

    @property
    def total_train_steps(self) -> int:
        return self.step_limit or super().total_train_steps


@dataclass
class Progress:
    """How far the training is; rewards may depend on it."""

    total_steps: int
    step: int = 0

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return self.step / self.total_steps


@dataclass
class Run:
    """Everything the loop touches; `start_step` is above 0 after a recovery."""

    config: Config
    actor: VisionActor
    reference: VisionActor | None
    critic: VisionCritic | None
    rollout: BoundedRollout
    eval_rollout: BoundedRollout
    train_dataloader: Any
    eval_dataloader: Any
    workflow: VisionRolloutWorkflow
    eval_workflow: VisionRolloutWorkflow
    weight_meta: WeightUpdateMeta
    saver: Saver
    evaluator: Evaluator
    recover: Recovery
    stats_logger: StatsLogger
    reward_pool: RewardPool
    tool_pool: ToolPool | None
    spec: FinetuneSpec
    progress: Progress
    start_step: int

    @property
    def total_steps(self) -> int:
        return self.progress.total_steps

    def step_info(self, step: int) -> StepInfo:
        per_epoch = self.spec.steps_per_epoch
        return StepInfo(
            epoch=step // per_epoch, epoch_step=step % per_epoch, global_step=step, steps_per_epoch=per_epoch
        )

    def set_version(self, version: int) -> None:
        for engine in (self.actor, self.rollout, self.eval_rollout):
            engine.set_version(version)

    def close(self) -> None:
        self.rollout.destroy()
        self.eval_rollout.destroy()
        self.reward_pool.close()
        if self.tool_pool is not None:
            self.tool_pool.close()
        self.stats_logger.close()
        self.actor.destroy()


def build(config: Config) -> Run:
    """Load the model, connect to the servers, open the data, recover if there is something to recover from."""
    forbidden = media_token_ids(config.actor.path)
    allocation = config.allocation
    actor = VisionActor(config.actor, config.loss, forbidden, config.gconfig.max_new_tokens)
    actor.create_process_group(parallel_strategy=allocation.train)
    rank, world_size = actor.data_parallel_rank, actor.data_parallel_world_size
    seeding.set_random_seed(config.seed, key=f"trainer{actor.rank}")
    if rank == 0:
        let_be_heard(dataset.bad_rows.logger)
        let_be_heard(dataset.loader.logger)

    processor, _ = load_hf_processor_and_tokenizer(config.actor.path)
    data, prompts = config.train_dataset, config.prompt_settings()
    _take_trial(config, actor)
    bad_rows = BadRows(run_directory(config) / dataset.bad_rows.FILE_NAME)
    shared = {
        "rank": rank,
        "world_size": world_size,
        "seed": config.seed,
        "prompts": prompts,
        "bad_rows": bad_rows,
        "keep_originals": config.agent.enabled,
    }
    train_dataloader = create_dataloader(
        data.mixture or data.path,
        processor,
        batch_size=data.batch_size,
        shuffle=data.shuffle,
        max_length=data.max_length,
        max_pixels=data.max_pixels,
        num_workers=data.num_workers,
        columns=data.columns,
        max_bad_share=data.max_bad_share,
        longest_first=config.rehearsal.longest_first,
        **shared,
    )
    eval_dataloader = None
    if config.valid_dataset is not None:
        eval_dataloader = create_dataloader(
            config.valid_dataset.path,
            processor,
            batch_size=world_size,
            shuffle=False,
            max_length=config.valid_dataset.max_length,
            max_pixels=data.max_pixels,
            columns=data.columns if config.valid_dataset.columns is None else config.valid_dataset.columns,
            max_bad_share=data.max_bad_share,
            **shared,
        )
    spec = TrainingLength(
        total_train_epochs=config.total_train_epochs,
        dataset_size=-(-train_dataloader.num_epoch_rows // data.batch_size) * data.batch_size,
        train_batch_size=data.batch_size,
        step_limit=config.total_train_steps,
    )

    actor.initialize(addr=None, ft_spec=spec)
    reference, critic = _reference(config, forbidden), _critic(config, forbidden)
    for engine in filter(None, (reference, critic)):
        engine.create_process_group(parallel_strategy=allocation.train)
        engine.initialize(addr=None, ft_spec=spec)
    actor.critic_options, actor.ground_truth = config.critic, config.ground_truth

    rollout = BoundedRollout(config.rollout, config.buffer, forbidden)
    rollout.initialize(train_data_parallel_size=world_size)
    eval_config = deepcopy(config.rollout)
    eval_config.max_head_offpolicyness = UNBOUNDED_STALENESS
    eval_rollout = BoundedRollout(eval_config, config.buffer, forbidden)
    eval_rollout.initialize(train_data_parallel_size=world_size)
    weight_meta = _weight_meta(config)
    if actor.rank == 0:
        rollout.keep_servers(weight_meta)
    actor.connect_engine(rollout, weight_meta)

    if config.stats_logger.wandb.mode == "offline":
        os.environ["WANDB_MODE"] = "offline"  # else AReaL's logger asks for a login

    pool = RewardPool(num_workers=config.reward.num_workers)
    progress = Progress(spec.total_train_steps)
    workflow_options = {
        "reward_pool": pool,
        "reward_settings": config.reward.settings(config.gconfig.max_new_tokens),
        "forbidden_token_ids": forbidden,
        "prompts": prompts,
        "max_pixels": data.max_pixels,
        "image_files": ImageFiles(run_directory(config) / "images" / f"rank{rank}")
        if data.image_files
        else None,
        "get_progress": lambda: progress.share,
    }
    tool_pool = None
    if config.agent.enabled:
        tool_pool = ToolPool(config.agent.num_workers, with_python="python" in config.agent.tools)
    saver = Saver(config.saver, spec)
    # the evaluation before training is the loop's own; AReaL's flag would add one after the first step
    evaluator = Evaluator(replace(config.evaluator, eval_before_train=False), spec)
    evaluator.freq_ctl = Frequency.of(config.evaluator)
    stats_logger, recovery = StatsLogger(config, spec), Recovery(config.recover, spec)
    recovery.critic = critic
    start_step = progress.step = resume(
        recovery,
        actor,
        rollout,
        saver=saver,
        evaluator=evaluator,
        stats_logger=stats_logger,
        dataloader=train_dataloader,
        weight_meta=weight_meta,
    )
    eval_rollout.set_version(start_step)
    return Run(
        config=config,
        actor=actor,
        reference=reference,
        critic=critic,
        rollout=rollout,
        eval_rollout=eval_rollout,
        train_dataloader=train_dataloader,
        eval_dataloader=eval_dataloader,
        workflow=_workflow(
            config,
            processor,
            workflow_options | {"image_store": _image_store(config), "turns": _turns(config)},
            tool_pool,
        ),
        eval_workflow=_eval_workflow(
            config, processor, workflow_options | {"turns": _turns(config)}, tool_pool
        ),
        weight_meta=weight_meta,
        saver=saver,
        evaluator=evaluator,
        recover=recovery,
        stats_logger=stats_logger,
        reward_pool=pool,
        tool_pool=tool_pool,
        spec=spec,
        progress=progress,
        start_step=start_step,
    )


def _reference(config: Config, forbidden: list[int]) -> VisionActor | None:
    if config.loss.kl_coefficient == 0:
        return None
    engine = config.ref.engine(config.actor)
    return VisionActor(engine, config.loss, forbidden, config.gconfig.max_new_tokens)


def _critic(config: Config, forbidden: list[int]) -> VisionCritic | None:
    return VisionCritic(config.critic, config.actor, forbidden) if config.loss.estimator == "gae" else None


def _take_trial(config: Config, actor: VisionActor) -> None:
    """Make these ranks the only trainer of their trial, and room for its records.

    Raises `areal.launcher.trial_lock.TrialInUseError` where another one does not end.
    """
    if actor.rank == 0:
        # one whose launcher was killed may still be about to end
        trial_lock.take(run_directory(config), trial_lock.TRAINER, wait_seconds=60.0)
        _make_room(config)
    actor.meet()


def _make_room(config: Config) -> None:
    folder, may_continue = run_directory(config), config.recover.mode not in ("off", "disabled")
    if not (may_continue and Recovery.link_of(config.recover).is_symlink()):
        said = trial.begin_anew(folder, may_continue=may_continue, overwrite=config.trial.overwrite)
        if said is not None:
            print(f"[grpo] {said}", flush=True)
    (folder / dataset.bad_rows.FILE_NAME).unlink(missing_ok=True)  # it is written at every start


def run_directory(config: Config) -> Path:
    """Where a run leaves its metrics, its summary and its final checkpoint."""
    path = Path(config.cluster.fileroot) / config.experiment_name / config.trial_name
    path.mkdir(parents=True, exist_ok=True)
    return path


def _turns(config: Config) -> Turns | None:
    if not config.deterministic:
        return None
    torch.use_deterministic_algorithms(True, warn_only=True)
    return Turns()


def _image_store(config: Config) -> ImageStore | None:
    return ImageStore(run_directory(config) / FOLDER) if config.records.rollouts else None


def _workflow(
    config: Config, processor: Any, options: dict[str, Any], tools: ToolPool | None
) -> VisionRolloutWorkflow:
    if config.agent.enabled:
        return _agent(config, processor, config.gconfig, options, tools)
    share, given = config.rehearsal.reference_share, config.ground_truth.num_given
    limit = config.actor.mb_spec.max_tokens_per_mb or config.sglang.context_length
    if not share and given:
        return GroundTruthWorkflow(processor, config.gconfig, num_given=given, max_tokens=limit, **options)
    if not share:
        return VisionRolloutWorkflow(processor, config.gconfig, **options)
    from trains.rehearsal.answers import RehearsedWorkflow

    return RehearsedWorkflow(processor, config.gconfig, share=share, max_tokens=limit, **options)


def _eval_workflow(
    config: Config, processor: Any, options: dict[str, Any], tools: ToolPool | None
) -> VisionRolloutWorkflow:
    if config.agent.enabled:
        return _agent(config, processor, config.eval_gconfig, options, tools)
    return VisionRolloutWorkflow(processor, config.eval_gconfig, **options)


def _agent(
    config: Config, processor: Any, gconfig: Any, options: dict[str, Any], tools: ToolPool | None
) -> AgentWorkflow:
    settings = config.agent.settings(config.gconfig.max_new_tokens)
    return AgentWorkflow(
        processor, gconfig, settings=settings, tools=tools, weights=config.agent.weights(), **options
    )


def _weight_meta(config: Config) -> WeightUpdateMeta:
    if config.actor.weight_update_mode == "xccl":
        return WeightUpdateMeta.from_fsdp_xccl(gen_allocation=server_allocation(config.allocation))
    return WeightUpdateMeta.from_disk(
        config.experiment_name, config.trial_name, config.cluster.fileroot, clear_checkpoint_after_load=True
    )
