"""What each number and each choice of a configuration may be, as two tables; every launch is held against them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from dataset.prompts import LAYOUTS, THINKING_PROMPTS

Limit = tuple[str, Callable[[Any], bool], str]  # dotted keys, test of the value, what is wanted


def _at_least(low: float) -> Callable[[Any], bool]:
    return lambda value: math.isfinite(value) and value >= low


def _above(low: float) -> Callable[[Any], bool]:
    return lambda value: math.isfinite(value) and value > low


def _between(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: low <= value <= high


# A value of null is allowed where the configuration's class has it.
NUMBERS: tuple[Limit, ...] = (
    ("seed", _between(0, 2**32 - 1), "0 to 4294967295"),
    ("total_train_epochs", _at_least(1), "1 or more"),
    ("total_train_steps", _at_least(1), "1 or more, or null for whole epochs"),
    ("cluster.n_nodes cluster.n_gpus_per_node", _at_least(1), "1 or more"),
    ("gconfig.n_samples gconfig.max_new_tokens eval_gconfig.max_new_tokens", _at_least(1), "1 or more"),
    ("gconfig.temperature", _above(0), "a number above 0: greedy rollouts have no signal"),
    ("eval_gconfig.temperature", _at_least(0), "0 or more"),
    ("train_dataset.batch_size rollout.consumer_batch_size", _at_least(1), "1 or more"),
    ("train_dataset.max_length valid_dataset.max_length", _at_least(1), "1 or more tokens, or null"),
    ("train_dataset.max_pixels", _at_least(28 * 28), "784 (one image token) or more, or null"),
    (
        "prompts.num_thinking_prompts",
        _between(1, len(THINKING_PROMPTS)),
        f"1 (the recipe's own) to {len(THINKING_PROMPTS)}",
    ),
    ("train_dataset.num_workers", _at_least(0), "0 or more"),
    ("train_dataset.max_bad_share", _between(0, 1), "a share, 0 to 1"),
    ("valid_dataset.max_samples", _at_least(1), "1 or more, or null for all"),
    ("rollout.max_concurrent_rollouts", _at_least(1), "1 or more"),
    ("rollout.max_head_offpolicyness", _at_least(0), "0 (synchronous) or more"),
    ("rollout.request_timeout rollout.setup_timeout", _above(0), "seconds above 0"),
    ("rollout.pause_grace_period", _at_least(0), "seconds, 0 or more"),
    ("rollout.request_retries", _at_least(1), "1 or more"),
    ("buffer.max_attempts_per_batch", _above(0), "more than 0"),
    ("agent.max_turns", _between(1, 64), "1 to 64"),
    ("agent.max_images", _between(0, 64), "0 to 64"),
    ("agent.max_tokens", _at_least(1), "1 or more, or null for gconfig.max_new_tokens"),
    ("agent.max_tool_seconds", lambda value: 0.1 <= value <= 600, "seconds, 0.1 to 600"),
    ("agent.max_reply_chars", _at_least(64), "64 or more"),
    ("agent.num_workers", _at_least(1), "1 or more"),
    ("reward.num_workers", _at_least(1), "1 or more"),
    ("records.max_gigabytes", _above(0), "gigabytes above 0; records.rollouts: false keeps none"),
    ("records.token_share", _between(0, 1), "a share, 0 to 1"),
    ("loss.reward_scaling", _above(0), "more than 0"),
    ("loss.reward_bias", math.isfinite, "a finite number"),
    ("actor.num_minibatches actor.mb_spec.n_mbs actor.mb_spec.max_tokens_per_mb", _at_least(1), "1 or more"),
    ("actor.logprob_block_size", _above(0), "more than 0"),
    ("ground_truth.num_given", _at_least(0), "0 or more"),
    ("ground_truth.weight", _at_least(0), "a finite number of at least 0"),
    ("critic.num_minibatches critic.num_epochs", _at_least(1), "1 or more"),
    ("critic.lr", _above(0), "a finite number above 0"),
    ("critic.head_lr", _above(0), "more than 0, or null for critic.lr"),
    ("critic.value_clip", _above(0), "more than 0, or null for none"),
    ("critic.discount critic.trace", _between(0, 1), "a number in [0, 1]"),
    ("actor.max_skipped_steps", _at_least(0), "0 or more"),
    ("actor.parity_threshold", _above(0), "nats above 0, or null"),
    ("actor.lora_rank actor.lora_alpha", _at_least(1), "1 or more"),
    ("actor.optimizer.lr actor.optimizer.eps", _above(0), "a finite number above 0"),
    ("actor.optimizer.weight_decay", _at_least(0), "0 or more"),
    ("actor.optimizer.beta1 actor.optimizer.beta2", lambda value: 0 <= value < 1, "a number in [0, 1)"),
    ("actor.optimizer.gradient_clipping", _above(0), "a finite number above 0"),
    (
        "actor.optimizer.warmup_steps_proportion actor.optimizer.min_lr_ratio",
        _between(0, 1),
        "a share, 0 to 1",
    ),
    ("sglang.mem_fraction_static", lambda value: 0 < value < 1, "a share between 0 and 1"),
    (
        "sglang.max_running_requests sglang.context_length sglang.max_prefill_tokens",
        _at_least(1),
        "1 or more",
    ),
    ("saver.freq_epochs saver.freq_steps", _at_least(1), "1 or more, or null for never"),
    ("evaluator.freq_epochs evaluator.freq_steps", _at_least(1), "1 or more, or null for never"),
    ("recover.freq_epochs recover.freq_steps", _at_least(1), "1 or more, or null for never"),
    (
        "saver.freq_secs evaluator.freq_secs recover.freq_secs",
        _above(0),
        "seconds above 0, or null for never",
    ),
    ("recover.retries", _at_least(0), "0 or more"),
    ("launcher.max_server_restarts", _at_least(0), "0 or more"),
    ("launcher.hang_floor_seconds", _at_least(10), "10 seconds or more, or null for no watch"),
)

CHOICES: dict[str, tuple[Any, ...]] = {
    "actor.dtype": ("bfloat16", "float16", "float32"),
    "sglang.dtype": ("bfloat16", "float16", "float32"),
    "actor.optimizer_dtype": ("bfloat16", "float32"),
    "actor.attn_impl": ("flash_attention_2", "sdpa"),
    "actor.weight_update_mode": ("xccl", "disk"),
    "prompts.layout": LAYOUTS,
    "buffer.freshness": ("auto", "off"),
    "recover.mode": ("on", "auto", "off", "disabled"),
    "stats_logger.wandb.mode": ("online", "offline", "disabled", "shared"),
    "cluster.name_resolve.type": ("nfs", "etcd3", "ray"),
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_limits(config: Any) -> Iterator[str]:
    """A sentence for each value outside of its limits: key, value got, value wanted."""
    for keys, is_right, wanted in NUMBERS:
        for key in keys.split():
            value = value_of(config, key)
            if value is not None and not is_right(value):
                yield f"{key}={value}: wanted {wanted}"
    for key, choices in CHOICES.items():
        value = value_of(config, key)
        if value is not None and value not in choices:
            follows = " (it is actor.dtype, unless given)" if key == "sglang.dtype" else ""
            yield f"{key}={value!r}: wanted one of {', '.join(choices)}{follows}"
    for key in ("experiment_name", "trial_name"):
        value = value_of(config, key)
        if not NAME.fullmatch(str(value)):
            yield f"{key}={value!r}: wanted letters, digits, '.', '_' and '-' (it names a folder)"


def value_of(config: Any, key: str) -> Any:
    """The value under a dotted key; None where a section on the way is null."""
    for part in key.split("."):
        config = getattr(config, part) if config is not None else None
    return config
