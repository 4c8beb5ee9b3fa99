"""Everything that would fail or silently go wrong later, found before anything starts: one gate with several doors.

`problems` is what the launchers refuse (through `trains.config.check`), what the trainer refuses when it is started by
hand, and what `python -m utils.doctor` calls problems. Each is one sentence: key, value got, value wanted. `remarks`
are settings without effect, which are named and not refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llavaonevision1_5 import MODEL_TYPE, QWEN_VL_TYPES
from llavaonevision1_5.shards import read_json
from trains.agent_gate import check_agent
from trains.file_gate import PLACEHOLDER, check_files, check_own_folder
from trains.host import allocation
from trains.limits import check_limits, value_of
from utils import loss_options
from utils.capsule_option import interval
from utils.tables import data_files, split_paths

SERVER_RESERVE = 8  # SGLang refuses prompt + answer that come closer than this to its context length
NO_TOP_K = 10_000_000  # AReaL's "no limit" is any top_k beyond every vocabulary
# Keys of AReaL's classes that this trainer does not read, with what to write instead.
DEAD_KEYS = {
    "enable_offload": "the trainer never moves itself off the GPU; write actor.fsdp.offload_params: true",
    "actor.init_from_scratch": "a policy starts from actor.path",
    "gconfig.use_beam_search": "beams are not samples of the policy",
    "sglang.enable_lora": "the servers get merged weights; actor.use_lora: true trains adapters",
    "rollout.dump_to_file": "rollouts.jsonl in the run's folder holds examples of every step",
}


def problems(config: Any) -> list[str]:
    """Everything that is wrong with a `trains.config.Config`; empty if a run can start."""
    try:
        parsed = allocation.parse(config.allocation_mode)
    except Exception as error:  # a lark parse error, a ValueError or a validation error
        first_line = str(error).strip().splitlines()[0]
        return [
            f"allocation_mode={config.allocation_mode!r} is not understood ({first_line}); every part needs its "
            "backend, for example sglang:d4+fsdp:d4"
        ]
    if parsed.train is None or parsed.gen_backend is None:
        return [
            f"allocation_mode={config.allocation_mode!r}: servers and trainers are both wanted, for example "
            "sglang:d4+fsdp:d4"
        ]
    return [problem for check in CHECKS for problem in check(config)]


def remarks(config: Any) -> Iterator[str]:
    """Settings that a run like this one never reads, and those that are no training."""
    if config.loss.shuffle_rewards:
        yield "loss.shuffle_rewards=True: a control; rewards are dealt out at random and nothing can be learned"
    loss, plain = config.loss, "with one minibatch and a fresh proximal policy the ratio is 1"
    if config.actor.num_minibatches == 1 and loss.recompute_logprob:
        if loss.surrogate != "ppo":
            yield f"loss.surrogate={loss.surrogate} has no effect: {plain}"
        if loss.dual_clip is not None:
            yield f"loss.dual_clip={loss.dual_clip} has no effect: {plain}"
        if loss.ratio_level == "sequence":
            yield f"loss.ratio_level=sequence (GSPO) has no effect: {plain}"
        recipe = (loss_options.RECIPE["eps_clip"], loss_options.RECIPE["eps_clip_higher"])
        if (loss.eps_clip, loss.eps_clip_higher) != recipe:
            yield (
                f"loss.eps_clip={loss.eps_clip}, loss.eps_clip_higher={loss.eps_clip_higher} have no effect: {plain}"
            )
    for place in _in_both(config):
        yield (
            f"{place} is both training data and valid_dataset.path: the accuracy on it is not held-out; name other rows"
        )
    try:
        limits = read_json(Path(config.actor.path) / "preprocessor_config.json")
    except (FileNotFoundError, ValueError):
        return
    of_folder = (limits.get("size") or {}).get("longest_edge") or limits.get("max_pixels")
    given = config.train_dataset.max_pixels
    if given is not None and of_folder is not None and given != of_folder:
        yield (
            f"train_dataset.max_pixels={given}, the checkpoint's own limit is {of_folder}: training shrinks images to "
            f"{min(given, of_folder)} pixels; measure with the same limit"
        )


def _in_both(config: Any) -> list[str]:
    """Files, or names on the Hub, that training and evaluation both read."""
    if config.valid_dataset is None:
        return []
    try:
        training = [part["path"] for part in config.train_dataset.mixture] or [config.train_dataset.path]
        places = [
            {place for path in paths for name, _ in split_paths(path) for place in _places(name)}
            for paths in (training, [config.valid_dataset.path])
        ]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []  # named as a problem
    return sorted(places[0] & places[1])


def _places(name: str) -> list[str]:
    return [str(file.resolve()) for file in data_files(name)] or [name]


def _check_text(config: Any) -> Iterator[str]:
    """Placeholders, keys without effect, loss settings that contradict each other."""
    for key in ("actor.path", "train_dataset.path", "experiment_name", "trial_name", "cluster.fileroot"):
        value = value_of(config, key)
        if PLACEHOLDER.search(str(value)):
            yield f"{key}={value!r} is a placeholder; write the real value"
    plain = type(config)()
    for key, reason in DEAD_KEYS.items():
        value = value_of(config, key)
        if value != value_of(plain, key):
            yield f"{key}={value!r} has no effect here: {reason}"
    for fault in loss_options.faults(config.loss.options(config.gconfig)):
        is_loss = fault.split()[0] in vars(config.loss)  # the others are sampling settings
        yield f"loss.{fault}" if is_loss else fault


def _check_sampling(config: Any) -> Iterator[str]:
    sampling = config.gconfig
    if sampling.top_p != 1.0 or sampling.top_k < NO_TOP_K:
        yield (
            f"gconfig.top_p={sampling.top_p}, gconfig.top_k={sampling.top_k}: the trainer's log-probabilities are "
            f"those of the full distribution; write top_p: 1.0 and leave top_k out"
        )
    if sampling.greedy:
        yield "gconfig.greedy=true: greedy training rollouts have no signal; write greedy: false, temperature: 1.0"
    if sampling.stop:
        yield f"gconfig.stop={sampling.stop!r}: the servers have no tokenizer; write gconfig.stop_token_ids"
    if sampling.min_new_tokens:
        yield (
            f"gconfig.min_new_tokens={sampling.min_new_tokens}: the server would forbid tokens that the trainer's "
            "log-probabilities allow; write 0"
        )
    if sampling.frequency_penalty != 0:
        yield (
            f"gconfig.frequency_penalty={sampling.frequency_penalty}: the server would sample from another "
            "distribution than the trainer computes; write 0"
        )
    if config.actor.temperature != sampling.temperature:
        yield (
            f"actor.temperature={config.actor.temperature} must equal gconfig.temperature={sampling.temperature}, "
            f"or trainer and rollout engine measure different policies; write actor.temperature: "
            f"${{gconfig.temperature}}"
        )
    if not sampling.stop_token_ids:
        yield "gconfig.stop_token_ids=[]: name the end-of-turn token, or no answer ever stops"
    limit = config.sglang.context_length
    wanted = (config.train_dataset.max_length or 0) + config.max_behind_prompt
    behind = "agent.max_tokens" if config.agent.enabled else "gconfig.max_new_tokens"
    if limit is not None and wanted + SERVER_RESERVE > limit:
        yield (
            f"train_dataset.max_length={config.train_dataset.max_length} + {behind}="
            f"{config.max_behind_prompt} exceed sglang.context_length={limit}, of which the server keeps "
            f"{SERVER_RESERVE} tokens for itself; write at least {wanted + SERVER_RESERVE}"
        )
    if config.eval_gconfig.n_samples != 1:
        yield (
            f"eval_gconfig.n_samples={config.eval_gconfig.n_samples}: evaluation takes one answer to each prompt; "
            "write 1 (Pass@k: python -m utils.evaluate.offline)"
        )


def _check_records(config: Any) -> Iterator[str]:
    try:
        interval(config.actor.capsule)
    except ValueError as error:
        yield str(error)


def _check_deterministic(config: Any) -> Iterator[str]:
    if config.deterministic and config.agent.enabled:
        yield "deterministic=true with agent.enabled=true: the turns of conversations come in another order each time"
    if config.deterministic and (
        config.rollout.max_head_offpolicyness != 0 or config.allocation.train.dp_size != 1
    ):
        yield (
            f"deterministic=true with rollout.max_head_offpolicyness={config.rollout.max_head_offpolicyness} and "
            f"allocation_mode={config.allocation_mode!r}: wanted 0 and one trainer rank (fsdp:d1); what runs at the "
            "same time comes in another order each time"
        )


def _check_batch(config: Any) -> Iterator[str]:
    batch_size, ranks = config.train_dataset.batch_size, config.allocation.train.dp_size
    if batch_size % ranks:
        yield (
            f"train_dataset.batch_size={batch_size} (prompts a step) is not divisible by the {ranks} data-parallel "
            f"ranks of allocation_mode={config.allocation_mode!r}"
        )
    if config.rollout.consumer_batch_size != batch_size:
        yield (
            f"rollout.consumer_batch_size={config.rollout.consumer_batch_size} must be train_dataset.batch_size="
            f"{batch_size}: staleness is counted in batches of that size"
        )
    if config.buffer.drop_without_signal and config.gconfig.n_samples == 1:
        yield (
            "buffer.drop_without_signal=true with gconfig.n_samples=1: a group of one rollout never has a signal; "
            "write false"
        )
    num_prompts = batch_size // ranks
    if config.actor.num_minibatches < 1 or num_prompts % config.actor.num_minibatches:
        yield (
            f"actor.num_minibatches={config.actor.num_minibatches} does not divide the {num_prompts} prompts of a "
            "step and rank"
        )
    given = config.ground_truth.num_given
    if given and (given >= config.gconfig.n_samples or config.agent.enabled):
        yield (
            f"ground_truth.num_given={given} with gconfig.n_samples={config.gconfig.n_samples}, agent.enabled="
            f"{str(config.agent.enabled).lower()}: wanted fewer than the group has, and no conversations with tools"
        )
    if config.loss.estimator == "gdpo" and config.agent.enabled:
        yield (
            "loss.estimator='gdpo' with agent.enabled=true: the parts of a conversation's reward are no parts of its "
            "total; write grpo"
        )
    if config.loss.estimator == "gae" and num_prompts % max(config.critic.num_minibatches, 1):
        yield (
            f"critic.num_minibatches={config.critic.num_minibatches} does not divide the {num_prompts} prompts of a "
            "step and rank"
        )
    if config.loss.proximal_pass == "fused" and config.actor.num_minibatches > 1:
        yield (
            f"loss.proximal_pass='fused' with actor.num_minibatches={config.actor.num_minibatches}: from the second "
            "minibatch on the weights are no longer the proximal ones; write auto or separate"
        )
    if (
        config.rollout.max_concurrent_rollouts is not None
        and config.rollout.max_concurrent_rollouts < batch_size
    ):
        yield (
            f"rollout.max_concurrent_rollouts={config.rollout.max_concurrent_rollouts} is below "
            f"train_dataset.batch_size={batch_size}: a batch could never be in generation as a whole; wanted at least "
            f"{batch_size}"
        )
    try:
        config.reward.settings(config.gconfig.max_new_tokens)
    except ValueError as error:
        yield str(error)

    longest = (config.train_dataset.max_length or 0) + config.max_behind_prompt
    behind = "agent.max_tokens" if config.agent.enabled else "gconfig.max_new_tokens"
    if (
        config.actor.mb_spec.max_tokens_per_mb is not None
        and longest > config.actor.mb_spec.max_tokens_per_mb
    ):
        yield (
            f"train_dataset.max_length={config.train_dataset.max_length} + {behind}="
            f"{config.max_behind_prompt} exceed actor.mb_spec.max_tokens_per_mb="
            f"{config.actor.mb_spec.max_tokens_per_mb}: one sequence must fit a micro-batch"
        )


def _check_engine(config: Any) -> Iterator[str]:
    train = config.allocation.train
    if config.allocation.gen_backend != "sglang" or config.allocation.train_backend != "fsdp":
        yield (
            f"allocation_mode={config.allocation_mode!r}: this recipe rolls out on sglang and trains on fsdp, "
            "for example sglang:d4+fsdp:d4"
        )
    if train.tp_size * train.pp_size * train.cp_size != 1:
        yield (
            f"allocation_mode={config.allocation_mode!r}: the actor is sharded by data parallelism alone; "
            "write fsdp:dN"
        )
    if config.actor.enable_tree_training:
        yield (
            "actor.enable_tree_training=true: AReaL's tree path goes around the recipe's log-probabilities; write false"
        )
    if config.rollout.check_trajectory_format:
        yield (
            "rollout.check_trajectory_format=true: groups carry images and records beside tensors; write false"
        )
    if config.actor.optimizer is None:
        yield "actor.optimizer=null: a policy without an optimizer does not learn"
    if config.actor.use_lora and config.actor.weight_update_mode != "disk":
        yield (
            f"actor.weight_update_mode={config.actor.weight_update_mode!r} with actor.use_lora=true: the servers get "
            "merged weights, which are written to files; write disk"
        )
    if config.rollout.use_lora:
        yield (
            "rollout.use_lora=true: the servers get merged weights and know of no adapter; write false, and "
            "actor.use_lora: true to train one"
        )
    if config.actor.use_lora and "lm_head" in (config.actor.target_modules or []):
        yield "actor.target_modules holds lm_head: the output layer computes log-probabilities as a whole; leave it out"
    try:
        model_type = read_json(Path(config.actor.path) / "config.json").get("model_type")
    except (FileNotFoundError, ValueError):  # `file_gate` says so
        return
    known = (MODEL_TYPE, *QWEN_VL_TYPES)
    if config.actor.attn_impl == "sdpa" and isinstance(model_type, str) and model_type not in known:
        yield (
            f"actor.attn_impl='sdpa' lets packed sequences of model type {model_type!r} attend to each other; "
            "write flash_attention_2"
        )


CHECKS = (
    check_limits,
    _check_text,
    _check_sampling,
    _check_records,
    _check_deterministic,
    _check_batch,
    check_files,
    check_own_folder,
    _check_engine,
    check_agent,
)
