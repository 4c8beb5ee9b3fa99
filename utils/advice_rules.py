"""Signs of an ill run, each with the number that was seen, why its threshold is where it is, and the key to change.

A rule looks at the mean of a few steps, so that a single odd one says nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from utils.watch import KEPT, LONG, SHORT, Watch, at

EASY, NOTHING = 0.98, 0.02  # rewards at which every answer, or none, is paid


class Rule(NamedTuple):
    """`find` returns what was seen, with its number, or None."""

    name: str
    find: Callable[[Watch], str | None]
    reason: str
    change: str


def _above(path: str, limit: float, text: str, steps: int = SHORT) -> Callable[[Watch], str | None]:
    """A finding where a mean reaches a limit; `text` takes it as `{0}`."""

    def find(watch: Watch) -> str | None:
        value = watch.mean(path, steps)
        return text.format(value) if value is not None and value >= limit else None

    return find


def _stale(watch: Watch) -> str | None:
    gap, waiting = watch.mean("gap_mean", SHORT), watch.mean("waiting_share", SHORT) or 0.0
    if gap is None or gap < 3 or (gap < 6 and waiting > 0.05):
        return None
    return f"tokens are {gap:.1f} weight versions old on average, while the trainer waits {waiting:.0%} of the time"


def _few_effective(watch: Watch) -> str | None:
    share = watch.mean("effective_sample_size", SHORT)
    return None if share is None or share > 0.5 else f"the weights leave {share:.0%} of the tokens effective"


def _entropy_falls(watch: Watch) -> str | None:
    now, start = watch.mean("entropy", SHORT), watch.start("entropy", SHORT)
    reward, before = watch.mean("reward", SHORT), watch.start("reward", SHORT)
    if None in (now, start, reward, before) or now > 0.2 * start or reward > before + 0.05:
        return None
    return f"entropy fell from {start:.3f} to {now:.3f} nats and the reward went from {before:.2f} to {reward:.2f}"


def _entropy_rises(watch: Watch) -> str | None:
    now, start = watch.mean("entropy", SHORT), watch.start("entropy", SHORT)
    reward, before = watch.mean("reward", SHORT), watch.start("reward", SHORT)
    if None in (now, start, reward, before) or now < 3 * start or now < start + 0.3 or reward > before - 0.05:
        return None
    return f"entropy rose from {start:.2f} to {now:.2f} nats and the reward fell from {before:.2f} to {reward:.2f}"


def _equal_groups(watch: Watch) -> str | None:
    share, reward = watch.mean("groups_without_signal", SHORT), watch.mean("reward", SHORT)
    if share is None or share < 0.9:
        return None
    return f"in {share:.0%} of the groups all rewards are equal (mean reward {reward or 0:.2f})"


def _all_paid(watch: Watch) -> str | None:
    reward, share = watch.mean("reward", SHORT), watch.mean("groups_without_signal", SHORT)
    if reward is None or share is None or reward < EASY or share < 0.8:
        return None
    return f"the mean reward is {reward:.3f}, and {share:.0%} of the groups have equal rewards"


def _none_paid(watch: Watch) -> str | None:
    reward, share = watch.mean("reward", SHORT), watch.mean("groups_without_signal", SHORT)
    if reward is None or share is None or reward > NOTHING or share < 0.8:
        return None
    return f"the mean reward is {reward:.3f}, and {share:.0%} of the groups have equal rewards"


def _longer_for_nothing(watch: Watch) -> str | None:
    now, start = watch.mean("length_mean", LONG), watch.start("length_mean", LONG)
    reward, before = watch.mean("reward", LONG), watch.start("reward", LONG)
    if None in (now, start, reward, before) or now < max(1.5 * start, start + 16) or reward > before + 0.02:
        return None
    return f"answers grew from {start:.0f} to {now:.0f} tokens and the reward went from {before:.2f} to {reward:.2f}"


def _constant_answers(watch: Watch) -> str | None:
    prefix = "constant_answer/"
    for name in watch.names("hacking"):
        if not name.startswith(prefix):
            continue
        kind = name.removeprefix(prefix)
        share = watch.mean(("hacking", name), LONG)
        solved = watch.mean(("by_answer_type", kind, "solved"), LONG)
        if share is not None and share >= 0.95 and (solved is None or solved < 0.8):
            told = "" if solved is None else f", {solved:.0%} of which are right"
            return f"{share:.0%} of the answers of type {kind} are the same one{told}"
    return None


def _one_letter(watch: Watch) -> str | None:
    """Shares summed over the steps: within one step of few such questions the two always differ."""
    difference: Counter[str] = Counter()
    num_steps = 0
    for record in list(watch.last)[-LONG:]:
        signs = record.get("hacking") or {}
        num_steps += any(name.startswith("options_chosen/") for name in signs)
        for name in signs:
            kind, _, letter = name.partition("/")
            sign = {"options_chosen": 1.0, "options_correct": -1.0}.get(kind, 0.0)
            difference[letter] += sign * (at(record, ("hacking", name)) or 0.0)
    if len(watch.last) < LONG or 2 * num_steps < LONG:
        return None
    share = 0.5 * sum(map(abs, difference.values())) / num_steps
    return f"letters chosen and correct letters differ by {share:.0%}" if share > 0.5 else None


def _held_out_falls(watch: Watch) -> str | None:
    if len(watch.evaluations) < 2:
        return None
    accuracy, samples, reward = watch.evaluations[-1]
    best, _, reward_then = max(watch.evaluations[:-1], key=lambda entry: entry[0])
    noise = 3 * math.sqrt(2 * 0.25 / max(samples, 1))  # three standard errors of a difference
    if math.isnan(reward_then) or not (best - accuracy > max(0.05, noise) and reward > reward_then + 0.05):
        return None
    rise = f"reward rose from {reward_then:.2f} to {reward:.2f}"
    return f"{rise} while held-out accuracy fell from {best:.3f} to {accuracy:.3f}"


def _reward_collapses(watch: Watch) -> str | None:
    reward = watch.mean("reward", SHORT)
    if reward is None or watch.best_reward < 0.1 or reward > 0.6 * watch.best_reward:
        return None
    return f"the mean reward fell to {reward:.2f}; it has been at {watch.best_reward:.2f}"


def _moves_too_fast(watch: Watch) -> str | None:
    distance, gap = watch.mean("behavior_kl", SHORT), watch.mean("gap_mean", SHORT)
    if distance is None or gap is None or abs(distance) / max(gap, 1.0) < 0.1:
        return None
    return f"the policy moves {abs(distance) / max(gap, 1.0):.2f} nats a token with each version"


def _kl_rises(watch: Watch) -> str | None:
    now, start = watch.mean("reference_kl", SHORT), watch.start("reference_kl", SHORT)
    if now is None or start is None or now < max(0.1, 3 * start):
        return None
    return f"the KL divergence from the reference rose from {start:.3f} to {now:.3f} nats a token"


def _parity_drifts(watch: Watch) -> str | None:
    limit = float(watch.settings.get("parity_limit") or 5e-2)
    now, start = watch.mean("parity_mean", SHORT), watch.start("parity_mean", SHORT)
    if now is None or (now < limit and (start is None or now < max(20 * start, limit / 10))):
        return None
    told = "" if start is None else f", {start:.1g} at first"
    return f"trainer and servers differ by {now:.2g} nats a token{told}"


def _waits(watch: Watch) -> str | None:
    share = watch.mean("waiting_share", KEPT)
    if watch.settings.get("device") != "cuda" or share is None or share < 0.5:
        return None  # on a CPU both sides share the cores, and waiting is the other one's work
    return f"the trainer waits for rollouts {share:.0%} of the time"


def _evicts(watch: Watch) -> str | None:
    if len(watch.last) < LONG:
        return None
    now, before = watch.last[-1], watch.last[-LONG]
    change = [
        (at(now, f"buffer/{name}") or 0.0) - (at(before, f"buffer/{name}") or 0.0)
        for name in ("evicted", "submitted")
    ]
    if change[1] <= 0 or change[0] / change[1] < 0.2:
        return None
    return f"{change[0] / change[1]:.0%} of the groups were thrown away because a token had grown too old"


def _verifiers_fail(watch: Watch) -> str | None:
    shares = {
        name: watch.mean(f"statuses/{name}", 1)
        for name in ("timeout", "crash", "judge_timeout", "judge_error")
    }
    worst = max(shares, key=lambda name: shares[name] or 0.0)
    means = [at(record, f"statuses/{worst}") or 0.0 for record in list(watch.last)[-SHORT:]]
    if len(means) < SHORT or sum(means) / SHORT < 0.05:
        return None
    return f"{sum(means) / SHORT:.0%} of the rollouts ended as {worst}"


def _not_finite(watch: Watch) -> str | None:
    skipped = sum(at(record, "num_skipped") or 0.0 for record in list(watch.last)[-SHORT:])
    return (
        f"{skipped:.0f} of the last {SHORT} steps were left out: their gradient was not finite"
        if skipped
        else None
    )


LOWER_LR = "lower actor.optimizer.lr"
RULES: tuple[Rule, ...] = (
    Rule(
        "too stale", _stale,
        "generation further ahead than that buys no time and costs accuracy (eta 4, 1, 0 gave 85.8, 86.8, 88.5 "
        "in the demo)",
        "set buffer.freshness: auto, or lower rollout.max_head_offpolicyness",
    ),
    Rule(
        "weights capped", _above("behavior_capped", 0.02, "{0:.1%} of the tokens stand above loss.behavior_cap"),
        "a healthy run has next to none; each capped token pulls the gradient to a policy that is gone",
        "lower rollout.max_head_offpolicyness or actor.optimizer.lr",
    ),
    Rule(
        "few tokens count", _few_effective,
        "below a half the step has the noise of half its batch",
        "lower rollout.max_head_offpolicyness or actor.optimizer.lr",
    ),
    Rule(
        "entropy falling", _entropy_falls,
        "learning lowers it too, but pays; a fifth of what it was, for nothing, leaves nothing to choose from",
        f"raise loss.eps_clip_higher, {LOWER_LR}, or set loss.kl_coefficient",
    ),
    Rule(
        "entropy rising", _entropy_rises,
        "three times what it was, at the cost of reward, is a policy that falls apart",
        LOWER_LR,
    ),
    Rule(
        "all groups equal", _equal_groups,
        "a group of equal rewards has no gradient; with nine in ten the step learns from a tenth of what it costs",
        "curate the data again (python -m dataset.create), or set buffer.drop_without_signal: true",
    ),
    Rule(
        "every answer is paid", _all_paid,
        "above 0.98 either the data is solved or the verifier pays whatever it gets",
        "read some rollouts, run python -m reward audit on train_dataset.path, and check the rows' spec; solved data: "
        "curate again",
    ),
    Rule(
        "no answer is paid", _none_paid,
        "below 0.02 hardly a group has anything to prefer",
        "read the statuses and traces of some rollouts; then another answer_type or spec, easier data, or a warm start "
        "(actor.path)",
    ),
    Rule(
        "answers are cut off", _above("truncated", 0.2, "{0:.0%} of the answers end at the token limit"),
        "a fifth of the answers cannot be right however they begin, and their beginnings are punished",
        "raise gconfig.max_new_tokens, or set reward.overlong_buffer_tokens",
    ),
    Rule(
        "longer without reward", _longer_for_nothing,
        "half as long again, with no reward to show for it, is time and no learning",
        "set reward.overlong_buffer_tokens or a repetition penalty in the spec",
    ),
    Rule(
        "paid without an answer", _above("hacking/no_answer_reward", 0.1, "rollouts without an answer earn {0:.2f}"),
        "an answer that need not be given will not be given",
        "take weight from format in the rows' spec (format_needs_solved: true)",
    ),
    Rule(
        "several answers", _above("hacking/several_answers", 0.5, "{0:.0%} of the rollouts give several answers", LONG),
        "half of them offering a choice is a policy that hedges",
        "name one answer in the prompt (prompts.format_guidance: true)",
    ),
    Rule(
        "always the same answer", _constant_answers,
        "19 of 20 alike, and many of them wrong, are not read off the images",
        "balance the references of that type, or mix it with others in train_dataset.mixture",
    ),
    Rule(
        "the letter's place decides",
        _one_letter,
        "over ten small batches of the demo and its controls they differed by 38% at most, one letter for four by 75%",
        "shuffle the options of the multiple-choice rows",
    ),
    Rule(
        "boxes over everything",
        _above("hacking/whole_image_boxes", 0.5, "{0:.0%} of the predicted boxes cover the whole image", LONG),
        "such a box overlaps whatever is asked for and locates nothing",
        "raise eps in the rows' spec",
    ),
    Rule(
        "drawings of nothing",
        _above("hacking/no_better_than_blank", 0.8, "{0:.0%} of the drawings are no better than an empty canvas", LONG),
        "most of a sparse drawing is white, and white is cheap",
        "set ssim_above_blank: true in the rows' spec",
    ),
    Rule(
        "held-out falls", _held_out_falls,
        "more than three standard errors: the policy learns the rows, or the verifier, and not the task",
        "stop at the best evaluation, or more data in train_dataset.path",
    ),
    Rule(
        "reward collapses", _reward_collapses,
        "noise of a batch does not take four tenths from a mean of five steps",
        f"{LOWER_LR}; start again from a checkpoint before it (saver.freq_steps)",
    ),
    Rule(
        "the policy moves too fast", _moves_too_fast,
        "a tenth of a nat is a ratio of 1.1 for every token; the clip bounds what one step may do, not what many do",
        LOWER_LR,
    ),
    Rule(
        "KL rising", _kl_rises,
        "three times what it was and a tenth of a nat a token: the penalty no longer holds the policy",
        f"raise loss.kl_coefficient or {LOWER_LR}",
    ),
    Rule(
        "parity drifting", _parity_drifts,
        "rounding stays where it is; what grows is a difference between the two programs",
        "look at actor.dtype, sglang.dtype and gconfig.temperature, and at docs/troubleshooting.md",
    ),
    Rule(
        "the trainer waits", _waits,
        "half of its time over twenty steps is half of the trainer's GPUs",
        "give the servers more GPUs in allocation_mode, or raise rollout.max_concurrent_rollouts",
    ),
    Rule(
        "work thrown away", _evicts,
        "a fifth of the generation is paid for and never trained on",
        "raise rollout.max_head_offpolicyness, or lower rollout.max_concurrent_rollouts",
    ),
    Rule(
        "verifiers fail", _verifiers_fail,
        "one in twenty is no accident of a few odd answers, and each counts as wrong",
        "read their traces in rollouts/; then reward.num_workers or the verifier",
    ),
    Rule(
        "gradient not finite", _not_finite,
        "a healthy run has none; the weights stay, the batch is lost",
        f"python -m trains.replay on the capsule in capsules/ shows which token; {LOWER_LR}",
    ),
)  # fmt: skip
