"""Refuse loss settings that contradict themselves, before anything starts.

`validate` takes the loss section of a configuration as a mapping. A missing key has the recipe's value in
`RECIPE`. Every refusal is a ValueError with the key, the value got, and what to write instead.
"""

import difflib
import math
from collections.abc import Mapping
from typing import Any

from utils.advantages import ESTIMATORS

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
    "ratio_level": "token",
    "surrogate": "ppo",
    "loss_mode": "token-mean",
    "max_tokens": None,
    "estimator": "grpo",
    "std": "population",
    "batch_whiten": True,
    "group_size": 16,
    "kl_coefficient": 0.0,
    "kl_estimator": "k3",
    "temperature": 1.0,
}

CHOICES: dict[str, tuple[Any, ...]] = {
    "use_decoupled_loss": (True, False),
    "recompute_logprob": (True, False),
    "proximal_pass": ("auto", "separate", "fused"),
    "behavior_mode": ("truncate", "mask"),
    "behavior_level": ("token", "sequence"),
    "ratio_level": ("token", "sequence"),
    "surrogate": ("ppo", "cispo"),
    "loss_mode": ("token-mean", "sequence-mean", "constant"),
    "estimator": tuple(ESTIMATORS),
    "std": ("population", "sample"),
    "batch_whiten": (True, False),
    "kl_estimator": ("k1", "k2", "k3"),
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
    "max_tokens": (lambda v: v >= 1, "the generation limit in tokens, e.g. 4096"),
    "group_size": (lambda v: v >= 1 and v == int(v), "a whole number of rollouts per prompt, e.g. 16"),
    "kl_coefficient": (lambda v: v >= 0, "a number of at least 0; 0.0 switches the penalty off"),
    "temperature": (lambda v: v > 0, "the sampling temperature, above 0, e.g. 1.0"),
}
OPTIONAL = ("dual_clip", "max_tokens")
BEHAVIOR_KEYS = ("behavior_cap", "behavior_floor", "behavior_mode", "behavior_level")


def validate(options: Mapping[str, Any]) -> None:
    """Raise ValueError for an unknown key, a value out of range, or a combination that contradicts itself."""
    check_values(options)
    o = {**RECIPE, **options}
    _check_behavior(o, options)
    _check_ratio(o)
    _check_advantages(o)


def check_values(options: Mapping[str, Any]) -> None:
    """Raise ValueError for an unknown key or a value out of range, each key by itself."""
    for key, value in options.items():
        _check_value(key, value)


def _check_value(key: str, value: Any) -> None:
    if key not in RECIPE:
        near = difflib.get_close_matches(key, RECIPE, n=1)
        hint = f"write {near[0]}" if near else f"the keys are {', '.join(RECIPE)}"
        raise ValueError(f"{key} = {value!r}: there is no such loss option; {hint}")
    if key in CHOICES:
        allowed = CHOICES[key]
        if not any(value is choice or (isinstance(value, str) and value == choice) for choice in allowed):
            _refuse(key, value, f"one of {', '.join(map(str, allowed))}")
        return
    if value is None and key in OPTIONAL:
        return
    in_range, wanted = RANGES[key]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and in_range(value)):
        _refuse(key, value, wanted)


def _check_behavior(o: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if o["use_decoupled_loss"]:
        if not o["recompute_logprob"]:
            _refuse(
                "recompute_logprob",
                False,
                "true: the decoupled loss needs the proximal policy (or write use_decoupled_loss: false)",
            )
        return
    for key in BEHAVIOR_KEYS:
        if given.get(key, RECIPE[key]) != RECIPE[key]:
            _refuse(
                key, given[key], "use_decoupled_loss: true with it; the coupled loss has no behavior weight"
            )


def _check_ratio(o: Mapping[str, Any]) -> None:
    if o["surrogate"] == "cispo" and o["dual_clip"] is not None:
        _refuse("dual_clip", o["dual_clip"], "null: surrogate cispo bounds the gradient weight by itself")
    if o["ratio_level"] != "sequence":
        return
    if o["surrogate"] == "cispo":
        _refuse("ratio_level", "sequence", "token: surrogate cispo weighs each token by its own ratio")
    if o["loss_mode"] != "sequence-mean":
        _refuse(
            "loss_mode",
            o["loss_mode"],
            "sequence-mean: with ratio_level sequence (GSPO) every sequence counts once",
        )
    if o["use_decoupled_loss"] and o["behavior_level"] == "token":
        _refuse(
            "behavior_level",
            "token",
            "sequence: with ratio_level sequence the token weights would undo the one ratio per sequence",
        )


def _check_advantages(o: Mapping[str, Any]) -> None:
    if o["loss_mode"] == "constant" and o["max_tokens"] is None:
        _refuse("max_tokens", None, "the generation limit, e.g. 4096: loss_mode constant divides by it")
    if o["group_size"] < 2:
        _refuse(
            "group_size",
            o["group_size"],
            "2 or more: a group of one rollout has no baseline and so no signal",
        )
    if o["estimator"] == "dr_grpo" and o["loss_mode"] == "sequence-mean":
        _refuse(
            "loss_mode",
            "sequence-mean",
            "constant (with max_tokens) or token-mean: dr_grpo removes the length bias that it brings back",
        )
    if o["estimator"] in ("dr_grpo", "rloo", "opo") and o["batch_whiten"]:
        _refuse(
            "batch_whiten", True, f"false: normalised over the batch, {o['estimator']} is another estimator"
        )
    if o["estimator"].startswith("reinforce++") and o["batch_whiten"]:
        _refuse("batch_whiten", True, f"false: {o['estimator']} already normalises over the batch")
    if o["kl_coefficient"] > 0 and o["kl_estimator"] == "k1":
        _refuse("kl_estimator", "k1", "k2 or k3: as a penalty k1 has a zero gradient on average")


def _refuse(key: str, value: Any, wanted: str) -> None:
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    raise ValueError(f"{key} = {shown}: wanted {wanted}")
