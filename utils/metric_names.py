"""Every metric of a training step, with one sentence: `python -m utils.metric_names` prints docs/metrics.md.

A star stands for one part of a name: a source, an answer type, a reward part, a status or a version gap.
"""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterable

ROLLOUT = {
    "reward": "Mean total reward of the rollouts, before shaping and normalisation.",
    "solved": "Share of rollouts with accuracy 1.",
    "truncated": "Share of rollouts that ended at the token limit, by the engine's stop reason.",
    "length_mean": "Mean number of generated tokens.",
    "length_max": "Largest number of generated tokens.",
    "parts/*": "Mean of one reward part (accuracy, format, iou, ...) over the rollouts that have it.",
    "statuses/*": "Share of rollouts by verifier status: ok, no_answer, unparseable, timeout, crash, rejected, "
    "judge_timeout, judge_error.",
}
STEP = {
    "step": "Optimizer steps done, counting from 1.",
    "version": "Version of the weights that the batch was trained from; the step makes the next one.",
    "groups_without_signal": "Share of groups whose rewards are all equal; zero by `loss.without_signal`.",
    "num_groups": "Groups (prompts) consumed.",
    "num_rollouts": "Rollouts consumed.",
    "num_tokens": "Generated tokens consumed: the tokens that are trained on.",
    "num_sequence_tokens": "Prompt and generated tokens that the trainer read.",
    "length_histogram/*": "Rollouts by generated tokens, rounded to a quarter of a power of two; "
    "`python -m utils.doctor --lengths RUN` divides the GPUs by it.",
    "num_interruptions": "Times a weight update cut an answer of the batch in two.",
    "gap_mean": "Mean version gap of the tokens trained on: trainer version minus version that generated the token.",
    "gap_max": "Largest version gap; never above rollout.max_head_offpolicyness.",
    "gap_histogram/*": "Tokens by version gap.",
    "parity_max": "Largest |trainer - server| log-probability under the same weights, over probed and fresh tokens.",
    "parity_mean": "Mean of the same.",
    "parity_tokens": "Tokens compared: of the group that a server scores again, and of the current weights.",
    "hacking/no_answer_reward": "Mean reward of rollouts without an answer; above 0 an answer need not be given.",
    "hacking/several_answers": "Share of rollouts that give more than one answer outside of their thinking.",
    "hacking/constant_answer/*": "Share of the most frequent answer among the rollouts of one answer type.",
    "hacking/option_position_bias": "Total variation between chosen and correct option letters; 0 when they agree.",
    "hacking/options_chosen/*": "Share of an option letter among those that rollouts chose.",
    "hacking/options_correct/*": "Share of an option letter among the correct ones.",
    "hacking/whole_image_boxes": "Share of predicted boxes that cover nine tenths of the image or more.",
    "hacking/blank_render_ssim": "Mean SSIM that an empty canvas would earn in place of the drawing.",
    "hacking/no_better_than_blank": "Share of drawings whose SSIM is not above that of an empty canvas.",
    "agent/turns": "Mean number of the model's turns in a conversation with tools (section agent).",
    "agent/calls": "Mean number of well-formed calls.",
    "agent/images": "Mean number of images that tools added.",
    "agent/effective": "Share of rollouts with at least one call that told the model something.",
    "agent/useful": "Share of rollouts that are right after such a call.",
    "agent/calls_without_effect": "Share of calls that ran and told nothing new, such as a zoom into the whole image.",
    "agent/copied_replies": "Share of rollouts whose last turn repeats 40 characters of a reply.",
    "agent/faults/*": "Faults of one kind per rollout (docs/agents.md lists them).",
    "loss": "The objective, as `loss.loss_mode` sums it up: penalties and bonus included, mean over the minibatches.",
    "entropy": "Mean entropy of the policy at the generated tokens, in nats.",
    "ratio_mean": "Mean ratio of the policy to the proximal policy; 1 before the first optimizer step of a batch.",
    "ratio_max": "Largest ratio.",
    "clipped_low": "Share of tokens where the lower clip decides the loss.",
    "clipped_high": "Share of tokens where the upper clip decides the loss.",
    "dual_clipped": "Share of tokens whose loss stands at the bound of `loss.dual_clip`.",
    "behavior_weight_mean": "Mean importance weight of the proximal over the behavior policy, after the cap.",
    "behavior_weight_max": "Largest such weight.",
    "behavior_capped": "Share of tokens whose weight stood above the cap.",
    "behavior_floored": "Share of tokens whose weight stood below the floor.",
    "behavior_rejected": "Share of tokens dropped by `loss.rejection_level`, alone or with their response.",
    "off_policy_masked": "Share of tokens in bad responses beyond `loss.off_policy_delta`, where there is one.",
    "behavior_kl": "Mean behavior minus proximal log-probability of the tokens (k1), in nats.",
    "reference_kl": "Mean KL divergence from the reference model by loss.kl_estimator, where there is one, in nats.",
    "effective_sample_size": "Kish's effective share of tokens under the behavior weights; 1 when all weigh the same.",
    "critic/loss": "Mean value loss per token, of the critic of PPO.",
    "critic/clipped": "Share of tokens where the value clip decides the loss.",
    "critic/explained_variance": "1 - Var(return - value) / Var(return) over the tokens, before the update; 1 is all.",
    "critic/value_mean": "Mean value of the tokens, in units of the shaped reward.",
    "critic/return_mean": "Mean discounted return of the tokens, likewise.",
    "critic/grad_norm": "Global gradient norm of the critic before clipping.",
    "critic/lr": "Learning rate of the critic.",
    "critic/num_skipped": "Optimizer steps of the critic left out because their gradient was not finite.",
    "entropy_coefficient": "Weight of the entropy bonus in the step.",
    "grad_norm": "Global gradient norm before clipping.",
    "gradient_norms/*": "The same of one block of the vision tower, the projector or the language model.",
    "lr": "Learning rate.",
    "num_skipped": "Optimizer steps left out because their gradient was not finite.",
    "buffer/submitted": "Prompts given to the rollout since the start, repetitions included.",
    "buffer/consumed": "Groups trained on since the start.",
    "buffer/evicted": "Groups thrown away because a token had grown too old, since the start.",
    "buffer/given_up": "Evicted prompts that were not generated again (any more), since the start.",
    "buffer/dropped_without_signal": "Groups replaced by dynamic sampling, since the start.",
    "buffer/failed": "Prompts whose rollouts failed, since the start: tried again, or left out for wrong data.",
    "buffer/ready": "Finished groups waiting at the end of the step.",
    "buffer/target": "Groups that the buffer keeps submitted and not consumed, at most (eta + 1) batches.",
    "seconds/rollout": "Time until the batch was there: waiting for it, and sharing it out among the ranks.",
    "seconds/proximal": "Time of the proximal (and reference) log-probabilities.",
    "seconds/advantages": "Time of the advantages.",
    "seconds/update": "Time of forward, backward and optimizer.",
    "seconds/exchange": "Time of the weight hand-over as the trainer sees it, writing included.",
    "seconds/save": "Time of checkpoints: of the step before; a step's record is written before its checkpoint.",
    "seconds/evaluate": "Time of held-out evaluation.",
    "seconds/total": "Time of the whole step.",
    "exchange_pause": "Time that the servers stood still for a hand-over; AReaL resends cut answers up to 0.5 s on.",
    "exchange_pause_share": "The same as a share of the step.",
    "tokens_per_second": "Generated tokens consumed per second of the step.",
    "server_tokens_per_second": "Tokens answered by the servers per second of the step, consumed or not.",
    "trainer_tokens_per_second": "Tokens read per second of proximal pass and update.",
    "waiting_seconds": "Time that the first rank waited for finished groups.",
    "waiting_share": "The same as a share of the step.",
}
NAMES = {
    **{name: ROLLOUT[name] for name in ROLLOUT},
    **{f"by_source/*/{name}": f"{sentence} One source." for name, sentence in ROLLOUT.items()},
    **{f"by_answer_type/*/{name}": f"{sentence} One answer type." for name, sentence in ROLLOUT.items()},
    **STEP,
}

# Only where there is something to count: an option that is on, a part or an answer type that occurs.
SOMETIMES = ("agent/*", "critic/*", "off_policy_masked", "reference_kl", "hacking/*", "parts/*", "by_*")


def differences(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Of the flat names of a record: those that nobody has explained, and those that should be in it and are not.

    >>> differences(["nobody/knows"])[0]
    ['nobody/knows']
    """
    names = list(names)
    always = [name for name in NAMES if not any(fnmatch.fnmatch(name, pattern) for pattern in SOMETIMES)]
    missing = [pattern for pattern in always if not fnmatch.filter(names, pattern)]
    return [name for name in names if describe(name) is None], missing


def describe(name: str) -> str | None:
    """The sentence of a flat metric name, or None for a name that nobody has explained.

    >>> describe("seconds/rollout")
    'Time until the batch was there: waiting for it, and sharing it out among the ranks.'
    """
    if name in NAMES:
        return NAMES[name]
    return next(
        (text for pattern, text in NAMES.items() if "*" in pattern and fnmatch.fnmatch(name, pattern)), None
    )


def page() -> str:
    """The text of docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "One record per step in `runs/<experiment>/<trial>/metrics.jsonl`; the same numbers go to wandb and",
        "tensorboard under the names below. `sample_ids`, the prompts of the step, stands in the file alone.",
        "",
        "This page is printed by `python -m utils.metric_names > docs/metrics.md`.",
        "",
        "| name | meaning |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {text} |" for name, text in NAMES.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
