"""What a rehearsal changes of a configuration, and why: overrides of the normal launcher, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trains.limits import value_of
from trains.rehearsal.model import BUILT_IN_POSITIONS

NUM_STEPS = 2
PROMPTS_PER_RANK, NUM_ROLLOUTS, NUM_NEW_TOKENS, NUM_HELD_OUT = 8, 4, 32, 8
HARDWARE = "there is no GPU here"
SMALL = "few prompts and rollouts, short answers"
APART = "apart from real runs"
WALK = "saver, evaluation and recovery within two steps"
BYTES = "a token of the built-in model is a byte"
BYTES_PER_TOKEN = 5  # of text, generously


@dataclass(frozen=True)
class Change:
    """One override: the value that the configuration gives, the one that the rehearsal takes, and the reason."""

    key: str
    configured: Any
    value: Any
    reason: str

    @property
    def override(self) -> str:
        value = str(self.value).lower() if isinstance(self.value, bool) else self.value
        return f"++{self.key}={value}"


def changes(
    config: Any, *, root: Path, model: Path, end_token: int | None, ranks: tuple[int, int], is_built_in: bool
) -> list[Change]:
    """Every key in which the rehearsal of `config` (trains.config.Config) differs from it.

    root: where it writes. model: checkpoint that takes the place of actor.path, with its end_token. ranks: servers and
    trainers.
    """
    servers, trainers = ranks
    batch = PROMPTS_PER_RANK * trainers
    wanted: list[tuple[str, Any, str]] = [
        ("allocation_mode", f"sglang:d{servers}+fsdp:d{trainers}", HARDWARE),
        ("cluster.n_nodes", 1, HARDWARE),
        ("cluster.n_gpus_per_node", servers + trainers, HARDWARE + "; processes are counted in its place"),
        ("actor.attn_impl", "sdpa", HARDWARE),
        ("actor.fsdp.offload_params", False, HARDWARE),
        ("actor.path", str(model), "the reduced model"),
        ("cluster.fileroot", str(root), APART),
        ("cluster.name_resolve.nfs_record_root", str(root / "names"), APART),
        ("stats_logger.wandb.mode", "disabled", APART),
        ("train_dataset.batch_size", batch, SMALL),
        ("rollout.consumer_batch_size", batch, SMALL),
        ("rollout.max_concurrent_rollouts", 2 * batch, SMALL),
        ("gconfig.n_samples", NUM_ROLLOUTS, SMALL),
        ("gconfig.max_new_tokens", min(NUM_NEW_TOKENS, config.gconfig.max_new_tokens), SMALL),
        ("eval_gconfig.max_new_tokens", min(NUM_NEW_TOKENS, config.eval_gconfig.max_new_tokens), SMALL),
        (
            "rehearsal.reference_share",
            0.5,
            "a random model solves nothing, and equal rewards have no gradient",
        ),
        ("agent.enabled", False, "a reference answer is no conversation"),
        ("agent.tools", [], "likewise"),
        ("total_train_steps", NUM_STEPS, WALK),
        ("saver.freq_steps", NUM_STEPS, WALK),
        ("evaluator.freq_steps", NUM_STEPS, WALK),
        ("recover.mode", "on", WALK),
        ("recover.freq_steps", NUM_STEPS, WALK),
        ("recover.retries", 0, "a failure ends the rehearsal"),
    ]
    if config.loss.kl_coefficient > 0:
        wanted.append(("ref.path", str(model), "the reduced model"))
    if config.valid_dataset is not None:
        wanted.append(("valid_dataset.max_samples", NUM_HELD_OUT, SMALL))
    if config.reward.overlong_buffer_tokens:
        fits = min(config.reward.overlong_buffer_tokens, NUM_NEW_TOKENS // 2)
        wanted.append(("reward.overlong_buffer_tokens", fits, SMALL))
    if end_token is not None and end_token not in config.gconfig.stop_token_ids:
        wanted += [
            (f"{section}.stop_token_ids", [end_token], BYTES) for section in ("gconfig", "eval_gconfig")
        ]
    if is_built_in:
        wanted += _in_bytes(config)
    found = [Change(key, value_of(config, key), value, reason) for key, value, reason in wanted]
    return [change for change in found if change.value != change.configured]


def _in_bytes(config: Any) -> list[tuple[str, Any, str]]:
    limit, wanted = config.actor.mb_spec.max_tokens_per_mb, []
    if config.train_dataset.max_length:
        longest = config.train_dataset.max_length * BYTES_PER_TOKEN
        wanted.append(("train_dataset.max_length", longest, BYTES))
    if config.valid_dataset is not None and config.valid_dataset.max_length:
        wanted.append(("valid_dataset.max_length", config.valid_dataset.max_length * BYTES_PER_TOKEN, BYTES))
    if config.sglang.context_length is not None:
        longest = min(config.sglang.context_length * BYTES_PER_TOKEN, BUILT_IN_POSITIONS)
        wanted.append(("sglang.context_length", longest, BYTES))
    if limit is not None:
        wanted.append(("actor.mb_spec.max_tokens_per_mb", limit * BYTES_PER_TOKEN, BYTES))
    return wanted
