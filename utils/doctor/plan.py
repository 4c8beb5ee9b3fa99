"""A configuration put in numbers: who runs where, how much memory each role takes, how long a step lasts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llavaonevision1_5.shards import read_json
from utils.doctor import known_models, memory_model
from utils.doctor.lengths import Lengths
from utils.doctor.machine import Machine
from utils.doctor.model_sizes import Architecture

DEFAULT_GPU_BYTES = 80 * memory_model.GIB  # when there is no GPU to ask: that of the recipe's node
PIXELS_PER_TOKEN = 28 * 28  # patch 14 x merge 2, squared
TYPICAL_PROMPT_TOKENS = 1024


@dataclass(frozen=True)
class Plan:
    """What the checks and tables need; sizes in bytes, lengths in tokens, times in seconds."""

    config: Any  # trains.config.Config
    here: Machine
    model: Architecture
    model_config: dict[str, Any]
    assumed_model: str  # the published model that is planned with in place of a checkpoint; "" with one
    gpu_name: str  # "" without a GPU
    gpu_memory_bytes: float
    speed_name: str
    speed: memory_model.Speed
    server_gpus: int
    train_gpus: int
    num_gpus: int  # in the cluster, as configured
    is_cpu: bool
    is_shared: bool  # server and trainer on the same GPU
    longest: int  # prompt and answer
    prompt_tokens: int
    answer_tokens: int
    num_rollouts: int
    roles: dict[str, list[memory_model.Line]]
    kv_capacity: int
    seconds: dict[str, float]
    load_bytes: float  # AReaL reads a vision model whole, in the master dtype, before it is shared out
    trainer_lines: Callable[
        [int, int], list[memory_model.Line]
    ]  # for other numbers of ranks and prompts a step
    lengths: Lengths | None  # measured

    @property
    def shared_bytes(self) -> float:
        return sum(memory_model.peak(lines) for lines in self.roles.values())


def make_plan(
    config: Any,
    here: Machine,
    *,
    gpu_memory_bytes: float | None = None,
    answer_tokens: int | None = None,
    lengths: Lengths | None = None,
) -> Plan:
    """`lengths`: measured ones, in place of an assumption of the mean answer. Without a checkpoint the plan is that of
    the published model whose name `actor.path` holds.

    Raises ValueError or KeyError when the checkpoint's config.json describes no model that is known here, LookupError
    when there is neither a checkpoint nor such a name.
    """
    assumed, model_config = _model_config(config.actor.path)
    model = Architecture.from_config(model_config)
    generation, train = config.allocation.gen, config.allocation.train
    name = here.gpus[0].name if here.gpus else ""
    memory = gpu_memory_bytes or (here.gpus[0].memory_bytes if here.gpus else DEFAULT_GPU_BYTES)
    num_gpus = config.cluster.n_nodes * config.cluster.n_gpus_per_node
    is_cpu = not here.gpus and config.actor.dtype == "float32" and config.actor.attn_impl == "sdpa"
    data, sampling = config.train_dataset, config.gconfig
    max_length = data.max_length or (config.sglang.context_length - sampling.max_new_tokens)
    longest = max_length + sampling.max_new_tokens
    image_tokens = min(max_length, (data.max_pixels or max_length * PIXELS_PER_TOKEN) // PIXELS_PER_TOKEN)
    num_rollouts = data.batch_size * sampling.n_samples
    frozen = _frozen(model, config.actor)
    loaded = model.parameters * memory_model.BYTES[config.actor.optimizer_dtype]
    training = memory_model.Training(
        ranks=train.dp_size,
        tokens=config.actor.mb_spec.max_tokens_per_mb or longest,
        image_tokens=config.actor.mb_spec.max_tokens_per_mb or longest,
        prompt_image_tokens=data.batch_size * image_tokens,
        dtype=config.actor.dtype,
        master_dtype=config.actor.optimizer_dtype,
        checkpointing=config.actor.gradient_checkpointing,
        flash="flash" in config.actor.attn_impl,
        offload=config.actor.fsdp.offload_params,
        block=config.actor.logprob_block_size,
        frozen_parameters=frozen,
        critic_frozen=_frozen_parts(model, config.critic) if config.loss.estimator == "gae" else None,
        reference=("cpu" if config.ref.offload_params else "gpu") if config.loss.kl_coefficient > 0 else None,
    )
    serving = memory_model.Serving(
        gpus=generation.tp_size,
        memory_bytes=memory,
        mem_fraction=config.sglang.mem_fraction_static or 0.9,
        max_running=config.sglang.max_running_requests or 256,
        request_tokens=longest,
        dtype=config.sglang.dtype,
    )
    prompt_tokens = min(round(lengths.prompt) if lengths else TYPICAL_PROMPT_TOKENS, max_length)
    assumed_answer = round(lengths.mean) if lengths else sampling.max_new_tokens // 4
    answer_tokens = answer_tokens or max(assumed_answer, 1)
    speed_name, speed = _speed(name)

    def trainer_lines(ranks: int, prompts: int) -> list[memory_model.Line]:
        run = replace(training, ranks=ranks, prompt_image_tokens=prompts * image_tokens)
        context = 0 if is_cpu else memory_model.CUDA_CONTEXT_BYTES
        allowance = memory_model.Line("CUDA context", context, "an allowance, with NCCL's buffers")
        return [*memory_model.trainer_lines(model, run), allowance]

    return Plan(
        config=config,
        here=here,
        model=model,
        model_config=model_config,
        assumed_model=assumed,
        gpu_name=name,
        gpu_memory_bytes=memory,
        speed_name=speed_name,
        speed=speed,
        server_gpus=generation.world_size,
        train_gpus=train.world_size,
        num_gpus=num_gpus,
        is_cpu=is_cpu,
        is_shared=not is_cpu and generation.world_size + train.world_size == 2 * num_gpus,
        longest=longest,
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        num_rollouts=num_rollouts,
        roles={
            "trainer": trainer_lines(train.dp_size, data.batch_size),
            "server": memory_model.server_lines(model, serving),
        },
        kv_capacity=memory_model.kv_capacity(model, serving),
        seconds=memory_model.step_seconds(
            model,
            step_of(config, prompt_tokens, answer_tokens, min(image_tokens, prompt_tokens)),
            train_ranks=train.dp_size,
            servers=generation.dp_size,
            running=serving.max_running,
            speed=speed,
            offloaded_bytes=loaded if training.offload else 0.0,
        ),
        load_bytes=0.0 if config.actor.fsdp.memory_efficient_load else loaded,
        trainer_lines=trainer_lines,
        lengths=lengths,
    )


def step_of(
    config: Any, prompt_tokens: float, answer_tokens: float, image_tokens: float
) -> memory_model.Step:
    """A step of this configuration with prompts and answers of these mean lengths."""
    is_fused = config.loss.proximal_pass != "separate" and config.actor.num_minibatches == 1
    return memory_model.Step(
        prompts=config.train_dataset.batch_size,
        group=config.gconfig.n_samples,
        prompt_tokens=prompt_tokens,
        image_tokens=image_tokens,
        answer_tokens=answer_tokens,
        share_prompts=config.actor.share_prompts,
        tokens_per_mb=config.actor.mb_spec.max_tokens_per_mb,
        checkpointing=config.actor.gradient_checkpointing,
        separate_proximal=not is_fused,
        critic_epochs=config.critic.num_epochs if config.loss.estimator == "gae" else 0,
    )


def _model_config(path: str) -> tuple[str, dict[str, Any]]:
    if (Path(path) / "config.json").is_file():
        return "", read_json(Path(path) / "config.json")
    found = known_models.config_of(path)
    if found is None:
        raise LookupError(f"no plan: {path} names none of {', '.join(known_models.CONFIGS)}")
    return found


def _frozen(model: Architecture, actor: Any) -> int:
    if actor.use_lora:
        return model.parameters - model.adapter_parameters(
            actor.lora_rank, tower=not actor.freeze_vision_tower, projector=not actor.freeze_projector
        )
    return _frozen_parts(model, actor)


def _frozen_parts(model: Architecture, engine: Any) -> int:
    tower = model.vision_layers * model.vision_layer_parameters
    projector = model.vision_parameters - tower
    return tower * bool(engine.freeze_vision_tower) + projector * bool(engine.freeze_projector)


def _speed(gpu_name: str) -> tuple[str, memory_model.Speed]:
    for name, (flops, bandwidth) in memory_model.DEVICES.items():
        if name in gpu_name:
            return name, memory_model.Speed(flops=flops, bandwidth=bandwidth)
    return "an H100" + (f" (no figures for {gpu_name!r})" if gpu_name else ""), memory_model.Speed()
