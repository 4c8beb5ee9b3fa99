"""Which loss settings are accepted, and what a refusal says."""

import inspect
import math

import pytest

from utils import advantages, functional, logprobs, policy_metrics, surrogates, token_baseline
from utils.loss_options import CHOICES, RANGES, RECIPE, faults, validate

ACCEPTED = [
    {},
    RECIPE,
    {"behavior_mode": "mask", "behavior_floor": 0.5},
    {"dual_clip": 3.0},
    {"use_decoupled_loss": False, "recompute_logprob": False},
    {"ratio_level": "sequence", "behavior_level": "sequence", "loss_mode": "sequence-mean"},
    {"ratio_level": "sequence", "use_decoupled_loss": False, "loss_mode": "sequence-mean"},
    {"surrogate": "cispo"},
    {"estimator": "dr_grpo", "batch_whiten": False, "loss_mode": "constant", "max_tokens": 4096},
    {"estimator": "reinforce++", "batch_whiten": False},
    {"kl_coefficient": 0.001},
    {"kl_coefficient": 0.001, "kl_unbiased": True, "kl_bound": None},
    {"estimator": "reinforce++", "batch_whiten": False, "group_size": 1},
    {"estimator": "gdpo"},
    {"estimator": "passk", "batch_whiten": False, "passk_k": 16},
    {"estimator": "otb", "batch_whiten": False},
    {"rejection_level": "maximum", "rejection_cap": 2.0, "rejection_floor": 0.5},
    {"behavior_level": "product", "rejection_level": "sequence", "rejection_cap": 1.01},
    {"surrogate": "sapo", "sapo_tau_positive": 2.0},
    {"surrogate": "gmpo", "loss_mode": "sequence-mean", "behavior_level": "sequence"},
    {"surrogate": "gmpo", "loss_mode": "sequence-mean", "use_decoupled_loss": False},
    {"off_policy_delta": 0.1, "overlong_filter": True},
    {"entropy_coefficient": 0.001},
    {"entropy_target": 0.2, "entropy_step": 0.01},
    {"without_signal": "batch_mean"},
]

# options, key named, value named, what to write instead
REFUSED = [
    ({"behavior_cap": None}, "behavior_cap", "null", "5.0"),
    ({"behavior_cap": math.inf}, "behavior_cap", "inf", "5.0"),
    ({"behavior_cap": 0.9}, "behavior_cap", "0.9", "at least 1"),
    ({"behavior_mode": "mask", "behavior_floor": 1.2}, "behavior_floor", "1.2", "in [0, 1]"),
    ({"behavior_mode": "clamp"}, "behavior_mode", "'clamp'", "truncate, mask"),
    ({"behaviour_cap": 5.0}, "behaviour_cap", "5.0", "write behavior_cap"),
    ({"unheard_of": 1}, "unheard_of", "1", "the keys are"),
    ({"eps_clip": 1.0}, "eps_clip", "1.0", "[0, 1)"),
    ({"eps_clip": "0.2"}, "eps_clip", "'0.2'", "a number"),
    ({"eps_clip": True}, "eps_clip", "true", "a number"),
    ({"eps_clip": None}, "eps_clip", "null", "a number"),
    ({"eps_clip_higher": -0.1}, "eps_clip_higher", "-0.1", "at least 0"),
    ({"dual_clip": 1.0}, "dual_clip", "1.0", "above 1"),
    ({"temperature": 0.0}, "temperature", "0.0", "above 0"),
    ({"temperature": math.nan}, "temperature", "nan", "above 0"),
    ({"group_size": 1}, "group_size", "1", "2 or more"),
    (
        {"group_size": 1, "estimator": "reinforce++-baseline", "batch_whiten": False},
        "group_size",
        "1",
        "2 or more",
    ),
    ({"rejection_level": "geometric"}, "rejection_level", "'geometric'", "sequence, product, maximum"),
    ({"rejection_cap": 2.0}, "rejection_level", "'none'", "rejection_cap=2.0"),
    ({"rejection_level": "token", "rejection_cap": 0.5}, "rejection_cap", "0.5", "at least 1"),
    ({"rejection_level": "token", "rejection_floor": 1.5}, "rejection_floor", "1.5", "in [0, 1]"),
    (
        {"use_decoupled_loss": False, "rejection_level": "token"},
        "rejection_level",
        "'token'",
        "use_decoupled_loss: true",
    ),
    ({"off_policy_delta": 0.0}, "off_policy_delta", "0.0", "above 0"),
    ({"surrogate": "sapo", "dual_clip": 3.0}, "dual_clip", "3.0", "null"),
    ({"surrogate": "sapo", "eps_clip": 0.1}, "eps_clip", "0.1", "does not clip"),
    ({"surrogate": "sapo", "sapo_tau_negative": 0.0}, "sapo_tau_negative", "0.0", "above 0"),
    ({"sapo_tau_negative": 2.0}, "sapo_tau_negative", "2.0", "surrogate: sapo"),
    ({"surrogate": "sapo", "ratio_level": "sequence"}, "ratio_level", "'sequence'", "token"),
    ({"surrogate": "gmpo"}, "loss_mode", "'token-mean'", "sequence-mean: with surrogate gmpo"),
    ({"surrogate": "gmpo", "loss_mode": "sequence-mean"}, "behavior_level", "'token'", "surrogate gmpo"),
    (
        {"surrogate": "gmpo", "loss_mode": "sequence-mean", "behavior_level": "sequence", "dual_clip": 3.0},
        "dual_clip",
        "3.0",
        "null",
    ),
    ({"estimator": "passk"}, "batch_whiten", "true", "false: normalised over the batch, passk"),
    ({"estimator": "passk", "batch_whiten": False, "group_size": 2}, "passk_k", "4", "the group's 2"),
    ({"passk_k": 2}, "passk_k", "2", "estimator: passk"),
    ({"estimator": "otb"}, "batch_whiten", "true", "false"),
    (
        {"estimator": "otb", "batch_whiten": False, "proximal_pass": "fused"},
        "proximal_pass",
        "'fused'",
        "auto or separate",
    ),
    ({"kl_unbiased": True}, "kl_coefficient", "0.0", "above 0"),
    ({"kl_unbiased": True, "kl_coefficient": 0.1, "kl_estimator": "k2"}, "kl_estimator", "'k2'", "k3"),
    ({"kl_bound": 0.0}, "kl_bound", "0.0", "above 0"),
    ({"entropy_coefficient": -0.1}, "entropy_coefficient", "-0.1", "at least 0"),
    ({"entropy_target": 0.0}, "entropy_target", "0.0", "above 0"),
    ({"entropy_step": 0.1}, "entropy_target", "null", "entropy_step=0.1"),
    ({"group_size": 2.5}, "group_size", "2.5", "whole number"),
    ({"use_decoupled_loss": 1}, "use_decoupled_loss", "1", "True, False"),
    ({"recompute_logprob": False}, "recompute_logprob", "false", "use_decoupled_loss: false"),
    (
        {"use_decoupled_loss": False, "behavior_mode": "mask"},
        "behavior_mode",
        "'mask'",
        "use_decoupled_loss: true",
    ),
    ({"surrogate": "cispo", "dual_clip": 3.0}, "dual_clip", "3.0", "null"),
    (
        {"surrogate": "cispo", "ratio_level": "sequence", "loss_mode": "sequence-mean"},
        "ratio_level",
        "'sequence'",
        "token",
    ),
    ({"ratio_level": "sequence"}, "loss_mode", "'token-mean'", "sequence-mean"),
    (
        {"ratio_level": "sequence", "loss_mode": "sequence-mean"},
        "behavior_level",
        "'token'",
        "wanted sequence",
    ),
    ({"loss_mode": "constant"}, "max_tokens", "null", "4096"),
    ({"estimator": "dr_grpo", "loss_mode": "sequence-mean"}, "loss_mode", "'sequence-mean'", "constant"),
    ({"estimator": "reinforce++"}, "batch_whiten", "true", "false"),
    ({"estimator": "dr_grpo"}, "batch_whiten", "true", "false: normalised over the batch, dr_grpo"),
    ({"estimator": "rloo"}, "batch_whiten", "true", "false: normalised over the batch, rloo"),
    ({"estimator": "opo"}, "batch_whiten", "true", "false: normalised over the batch, opo"),
    ({"without_signal": "mean"}, "without_signal", "'mean'", "zero, batch_mean"),
    (
        {"without_signal": "batch_mean", "batch_whiten": False},
        "without_signal",
        "'batch_mean'",
        "zero: without",
    ),
    ({"estimator": "ppo"}, "estimator", "'ppo'", "rloo"),
    ({"kl_coefficient": 0.1, "kl_estimator": "k1"}, "kl_estimator", "'k1'", "k2 or k3"),
]


@pytest.mark.parametrize("options", ACCEPTED, ids=str)
def test_accepted(options):
    validate(options)


@pytest.mark.parametrize(("options", "key", "value", "instead"), REFUSED, ids=str)
def test_refused_with_key_value_and_remedy(options, key, value, instead):
    with pytest.raises(ValueError, match=key) as error:
        validate(options)
    message = str(error.value)
    assert message.startswith(f"{key} = {value}")
    assert instead in message.split(":", 1)[1]


def test_every_fault_is_named_and_a_wrong_value_contradicts_nothing():
    wrong = {
        "eps_clip": 2.0,
        "estimator": "rloo",
        "surrogate": "cispo",
        "dual_clip": 3.0,
        "ratio_level": "sequence",
        "loss_mode": "mean",
        "group_size": "many",
        "kl_coefficient": -1,
        "kl_estimator": "k1",
    }
    named = [
        "eps_clip",
        "loss_mode",
        "group_size",
        "kl_coefficient",
        "dual_clip",
        "ratio_level",
        "batch_whiten",
    ]
    assert [fault.split(" = ")[0] for fault in faults(wrong)] == named
    with pytest.raises(ValueError, match=r"^eps_clip = 2\.0: wanted [^\n]*(\n[^\n]*){6}$"):
        validate(wrong)
    for key in RECIPE:  # whatever is wrong with one value, it is the only fault
        assert [fault.split(" = ")[0] for fault in faults({key: object()})] == [key]


def test_every_option_is_checked():
    assert set(CHOICES) | set(RANGES) == set(RECIPE)
    assert not set(CHOICES) & set(RANGES)


def test_choices_are_the_functions_that_there_are():
    assert CHOICES["estimator"] == (*advantages.ESTIMATORS, *token_baseline.TOKEN_ESTIMATORS)
    assert CHOICES["surrogate"] == tuple(surrogates.SURROGATES)


def test_the_recipe_is_the_functions_own_defaults():
    """A default lives in one place for the reader; this test keeps the signatures and RECIPE together."""
    named = {
        "mode": "behavior_mode",
        "level": "behavior_level",
        "cap": "behavior_cap",
        "floor": "behavior_floor",
    }
    rejected = {name: f"rejection_{name}" for name in ("level", "cap", "floor")}
    checked = set()
    for function, names in (
        (functional.decoupled_ppo_loss, {}),
        (functional.behavior_weight, named),
        (functional.rejected_tokens, rejected),
        (policy_metrics.kl_penalty, {"bound": "kl_bound", "kind": "kl_estimator"}),
        (functional.aggregate_loss, {"mode": "loss_mode"}),
        (functional.loss_denominator, {"mode": "loss_mode"}),
        (advantages.group_advantages, {}),
        (logprobs.logprobs_and_entropy, {}),
    ):
        for name, parameter in inspect.signature(function).parameters.items():
            key = names.get(name, name)
            if key in RECIPE and parameter.default is not inspect.Parameter.empty:
                assert parameter.default == RECIPE[key], (function.__name__, name)
                checked.add(key)
    untied = {"use_decoupled_loss", "recompute_logprob", "proximal_pass", "batch_whiten", "group_size"}
    untied |= {"kl_coefficient", "without_signal", "kl_unbiased", "off_policy_delta", "overlong_filter"}
    untied |= {"entropy_coefficient", "entropy_target", "entropy_step"}
    assert checked == set(RECIPE) - untied
