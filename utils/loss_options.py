"""Refuse loss settings that contradict themselves, before anything starts.

`validate` takes the loss section of a configuration as a mapping. A missing key has the recipe's value in
`RECIPE`. Every refusal names the key, the value got, and what to write instead, and all are named at once.
"""

import difflib
import math
from collections.abc import Iterator, Mapping
from typing import Any

# The recipe. The keyword defaults in utils/functional.py and utils/advantages.py are the same (tested).
RECIPE: dict[str, Any] = {
    "use_decoupled_loss": True,
    "recompute_logprob": True,
    "proximal_pass": "auto",
    "eps_clip": 0.2,
    "eps_clip_higher": 0.28,
    "dual_clip": None,
    "behavior_cap": 5.0,
    "behavior_floor": 0.0,
    "behavior_mode": "truncate",
    "behavior_level": "token",
    "rejection_level": "none",
    "rejection_cap": 5.0,
    "rejection_floor": 0.0,
    "off_policy_delta": None,
    "ratio_level": "token",
    "surrogate": "ppo",
    "sapo_tau_positive": 1.0,
    "sapo_tau_negative": 1.05,
    "loss_mode": "token-mean",
    "max_tokens": None,
    "overlong_filter": False,
    "estimator": "grpo",
    "passk_k": 4,
    "std": "population",
    "batch_whiten": True,
    "without_signal": "zero",
    "group_size": 16,
    "kl_coefficient": 0.0,
    "kl_estimator": "k3",
    "kl_bound": 10.0,
    "kl_unbiased": False,
    "entropy_coefficient": 0.0,
    "entropy_target": None,
    "entropy_step": 0.005,
    "temperature": 1.0,
}

# Those of utils/advantages.py, then of utils/token_baseline.py (tested): options are checked without torch.
ESTIMATORS = (
    "grpo",
    "dr_grpo",
    "rloo",
    "opo",
    "reinforce++",
    "reinforce++-baseline",
    "gdpo",
    "passk",
    "otb",
    "gae",
)

CHOICES: dict[str, tuple[Any, ...]] = {
    "use_decoupled_loss": (True, False),
    "recompute_logprob": (True, False),
    "proximal_pass": ("auto", "separate", "fused"),
    "behavior_mode": ("truncate", "mask"),
    "behavior_level": ("token", "sequence", "product"),
    "rejection_level": ("none", "token", "sequence", "product", "maximum"),
    "ratio_level": ("token", "sequence"),
    "surrogate": ("ppo", "cispo", "sapo", "gmpo"),
    "loss_mode": ("token-mean", "sequence-mean", "constant"),
    "overlong_filter": (True, False),
    "estimator": ESTIMATORS,
    "std": ("population", "sample"),
    "batch_whiten": (True, False),
    "without_signal": ("zero", "batch_mean"),
    "kl_estimator": ("k1", "k2", "k3"),
    "kl_unbiased": (True, False),
}

# key: (test of the value, what is wanted). None is tested apart.
RANGES = {
    "eps_clip": (lambda v: 0 <= v < 1, "a number in [0, 1), e.g. 0.2"),
    "eps_clip_higher": (lambda v: v >= 0, "a number of at least 0, e.g. 0.28"),
    "dual_clip": (lambda v: v > 1, "a number above 1, e.g. 3.0, or null for none"),
    "behavior_cap": (
        lambda v: v >= 1,
        "a number of at least 1, e.g. 5.0; the decoupled loss without a cap has unbounded weights",
    ),
    "behavior_floor": (
        lambda v: 0 <= v <= 1,
        "a number in [0, 1], e.g. 0.5, or 0.0 for none; above 1 it would drop or inflate on-policy tokens",
    ),
    "rejection_cap": (lambda v: v >= 1, "a number of at least 1, e.g. 5.0"),
    "rejection_floor": (lambda v: 0 <= v <= 1, "a number in [0, 1], e.g. 0.5, or 0.0 for none"),
    "off_policy_delta": (lambda v: v > 0, "nats a token, above 0, e.g. 0.1, or null for none"),
    "sapo_tau_positive": (lambda v: v > 0, "a number above 0, e.g. 1.0"),
    "sapo_tau_negative": (lambda v: v > 0, "a number above 0, e.g. 1.05"),
    "passk_k": (lambda v: v >= 1 and v == int(v), "a whole number of answers, e.g. 4"),
    "max_tokens": (lambda v: v >= 1, "the generation limit in tokens, e.g. 4096"),
    "group_size": (lambda v: v >= 1 and v == int(v), "a whole number of rollouts per prompt, e.g. 16"),
    "kl_coefficient": (lambda v: v >= 0, "a number of at least 0; 0.0 switches the penalty off"),
    "kl_bound": (lambda v: v > 0, "nats above 0, e.g. 10.0, or null for no bound"),
    "entropy_coefficient": (lambda v: v >= 0, "a number of at least 0; 0.0 is no bonus"),
    "entropy_target": (lambda v: v > 0, "nats above 0, e.g. 0.2, or null for a fixed coefficient"),
    "entropy_step": (lambda v: v > 0, "a number above 0, e.g. 0.005"),
    "temperature": (lambda v: v > 0, "the sampling temperature, above 0, e.g. 1.0"),
}
OPTIONAL = ("dual_clip", "max_tokens", "off_policy_delta", "kl_bound", "entropy_target")
BEHAVIOR_KEYS = (
    "behavior_cap",
    "behavior_floor",
    "behavior_mode",
    "behavior_level",
    "rejection_level",
    "rejection_cap",
    "rejection_floor",
)
# Surrogates that do not go with a bound of the loss: why.
OWN_RATIO = {
    "cispo": "bounds the gradient weight by itself",
    "sapo": "bounds the gradient by its gate",
    "gmpo": "clips within its geometric mean",
}
# Estimators whose numbers the normalisation over the batch would turn into another one's.
NOT_WHITENED = ("dr_grpo", "rloo", "opo", "passk", "otb")


def validate(options: Mapping[str, Any]) -> None:
    """Raise ValueError with every fault, a line each."""
    if found := faults(options):
        raise ValueError("\n".join(found))


def faults(options: Mapping[str, Any]) -> list[str]:
    """Every unknown key, value out of range and combination that contradicts itself: key, value got, value wanted."""
    by_key = value_faults(options)
    # A value that is wrong by itself contradicts no other: nan equals nothing.
    o = {**RECIPE, **options, **dict.fromkeys(by_key, math.nan)}
    combined = [*_behavior_faults(o), *_ratio_faults(o), *_advantage_faults(o), *_penalty_faults(o)]
    return [*by_key.values(), *(_fault(key, o[key], wanted) for key, wanted in combined if key not in by_key)]


def check_values(options: Mapping[str, Any]) -> None:
    """Raise ValueError for an unknown key or a value out of range, each key by itself."""
    if found := value_faults(options):
        raise ValueError("\n".join(found.values()))


def value_faults(options: Mapping[str, Any]) -> dict[str, str]:
    """Of each unknown key and each value out of range, by itself: key -> what is wrong."""
    return {key: fault for key, value in options.items() if (fault := _value_fault(key, value)) is not None}


def _value_fault(key: str, value: Any) -> str | None:
    if key not in RECIPE:
        near = difflib.get_close_matches(key, RECIPE, n=1)
        hint = f"write {near[0]}" if near else f"the keys are {', '.join(RECIPE)}"
        return f"{key} = {value!r}: there is no such loss option; {hint}"
    if key in CHOICES:
        allowed = CHOICES[key]
        if any(value is choice or (isinstance(value, str) and value == choice) for choice in allowed):
            return None
        return _fault(key, value, f"one of {', '.join(map(str, allowed))}")
    if value is None and key in OPTIONAL:
        return None
    in_range, wanted = RANGES[key]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if is_number and math.isfinite(value) and in_range(value) else _fault(key, value, wanted)


def _behavior_faults(o: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, value wanted), as below."""
    if o["use_decoupled_loss"]:
        if not o["recompute_logprob"]:
            yield (
                "recompute_logprob",
                "true: the decoupled loss needs the proximal policy (or write use_decoupled_loss: false)",
            )
        return
    for key in BEHAVIOR_KEYS:
        if o[key] != RECIPE[key]:
            yield key, "use_decoupled_loss: true with it; the coupled loss has no behavior weight"


def _ratio_faults(o: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if o["rejection_level"] == "none":
        for key in ("rejection_cap", "rejection_floor"):
            if _differs(o, key):
                yield (
                    "rejection_level",
                    f"token, sequence, product or maximum with {key}={o[key]}: none rejects nothing",
                )
    reason = OWN_RATIO.get(o["surrogate"])
    if reason is not None and o["dual_clip"] is not None:
        yield "dual_clip", f"null: surrogate {o['surrogate']} {reason}"
    if reason is not None and o["ratio_level"] == "sequence":
        yield "ratio_level", f"token: surrogate {o['surrogate']} has a ratio of its own for each token"
    for key in ("sapo_tau_positive", "sapo_tau_negative"):
        if o["surrogate"] != "sapo" and _differs(o, key):
            yield key, f"surrogate: sapo with it; {o['surrogate']} has no temperature"
    for key in ("eps_clip", "eps_clip_higher"):
        if o["surrogate"] == "sapo" and _differs(o, key):
            yield key, f"{RECIPE[key]} (its default): surrogate sapo does not clip"
    by_sequence = o["surrogate"] == "gmpo" or (o["ratio_level"] == "sequence" and o["surrogate"] == "ppo")
    if not by_sequence:
        return
    name = "surrogate gmpo" if o["surrogate"] == "gmpo" else "ratio_level sequence"
    if o["loss_mode"] != "sequence-mean":
        yield "loss_mode", f"sequence-mean: with {name} every sequence counts once"
    if o["use_decoupled_loss"] and o["behavior_level"] == "token":
        yield (
            "behavior_level",
            f"sequence: with {name} the token weights would undo the one ratio per sequence",
        )


def _advantage_faults(o: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if o["loss_mode"] == "constant" and o["max_tokens"] is None:
        yield "max_tokens", "the generation limit, e.g. 4096: loss_mode constant divides by it"
    if o["group_size"] < 2 and o["estimator"] not in ("reinforce++", "gae"):
        yield (
            "group_size",
            "2 or more: a group of one rollout has no baseline (reinforce++ and gae need none)",
        )
    if o["estimator"] == "passk" and not o["passk_k"] <= o["group_size"]:
        yield "passk_k", f"at most the group's {o['group_size']} rollouts: k of them are drawn"
    if o["estimator"] != "passk" and _differs(o, "passk_k"):
        yield "passk_k", f"estimator: passk with it; {o['estimator']} draws no k answers"
    if o["estimator"] == "dr_grpo" and o["loss_mode"] == "sequence-mean":
        yield (
            "loss_mode",
            "constant (with max_tokens) or token-mean: dr_grpo removes the length bias that it brings back",
        )
    if o["estimator"] == "otb" and o["proximal_pass"] == "fused":
        yield "proximal_pass", "auto or separate: estimator otb needs probabilities before the update"
    if o["estimator"] in NOT_WHITENED and o["batch_whiten"]:
        yield "batch_whiten", f"false: normalised over the batch, {o['estimator']} is another estimator"
    if o["estimator"] in ("reinforce++", "reinforce++-baseline") and o["batch_whiten"]:
        yield "batch_whiten", f"false: {o['estimator']} already normalises over the batch"
    if o["without_signal"] == "batch_mean" and not o["batch_whiten"]:
        yield (
            "without_signal",
            "zero: without batch_whiten there is no mean of the batch that could be subtracted",
        )


def _penalty_faults(o: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if o["kl_coefficient"] > 0 and o["kl_estimator"] == "k1":
        yield "kl_estimator", "k2 or k3: as a penalty k1 has a zero gradient on average"
    if o["kl_unbiased"] is True and o["kl_coefficient"] == 0:
        yield "kl_coefficient", "a number above 0 with kl_unbiased: there is no penalty to weigh"
    if o["kl_unbiased"] is True and o["kl_estimator"] == "k2":
        yield (
            "kl_estimator",
            "k3: weighted by the ratio, it has the gradient of the KL; k2 has that without a ratio",
        )
    if o["entropy_target"] is None and _differs(o, "entropy_step"):
        yield (
            "entropy_target",
            f"nats, e.g. 0.2, with entropy_step={o['entropy_step']}: a fixed coefficient takes no steps",
        )


def _differs(o: Mapping[str, Any], key: str) -> bool:
    """Whether a value that is right by itself is not the recipe's."""
    return o[key] == o[key] and o[key] != RECIPE[key]  # nan stands for a wrong one


def _fault(key: str, value: Any, wanted: str) -> str:
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return f"{key} = {shown}: wanted {wanted}"
