"""How a sample's own `spec` changes the defaults of its answer type (`Verifier.defaults`) and of all types (COMMON).

A spec is a mapping carried in the data:

    {"verifier": "bbox", "params": {"eps": 0.5, "box_format": "xywh"}, "weights": {"accuracy": 0.9, "format": 0.1}}

Every key is optional; `tools` belongs to conversations (docs/agents.md). `verifier` is another answer type or
a function of one's own, `my_rewards.py:score` (see `reward.verifiers.custom`). Parameters may also stand at
the top level (`{"tolerance": 0.01}`). An unknown key, an unknown parameter or a negative weight raises
ValueError naming it: a misspelt tolerance must not be ignored for a whole run.
"""

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from reward.registry import VERIFIERS, verifier_name

WEIGHTS = {"accuracy": 0.9, "format": 0.1, "think_bbox": 0.1}  # of the parts that apply to a sample

# Parameters that every type has; a verifier's own defaults come before these.
COMMON: dict[str, Any] = {
    "solved_threshold": 1.0,  # the accuracy from which a sample counts as solved
    "format_needs_solved": True,  # format and think_bbox pay only when accuracy >= solved_threshold
    "max_answer_fraction": 0.2,  # longest answer, as a fraction of a thinking completion, that is still well-formed
    "max_outside_chars": 64,  # characters that an answer-only completion may have outside of its answer
    "unclosed_answer": False,  # read an <answer> that was cut off before </answer>
    "code_block": False,  # where an answer holds exactly one fenced block, the block is the answer
    "overlong": None,  # {"max_tokens": 4096, "buffer_tokens": 1024}: soft overlong penalty (DAPO, eq. 13)
    "vote": None,  # "frequency" or "majority": the group judges itself in training (reward/votes.py)
    "vote_entropy_weight": 0.0,  # of the entropy of its answers, subtracted then
    "repetition": None,  # {"n": 8, "max_fraction": 0.3}: penalty for repeated word n-grams
}


_encode = json.JSONEncoder(sort_keys=True).encode  # `json.dumps` would make one each time


class Rule(NamedTuple):
    """A sample's resolved specification: which verifier, with which parameters, weighed how."""

    verifier: str
    params: Mapping[str, Any]
    weights: Mapping[str, float]
    params_key: str  # canonical JSON of params, for caches


def resolve(answer_type: str, spec: Mapping[str, Any] | None = None) -> Rule:
    """Merge a sample's spec over the defaults. Raises ValueError naming the offending field."""
    if spec is None or spec == {}:
        return _resolve_cached(answer_type, "{}")
    if not isinstance(spec, Mapping):
        raise ValueError(f"spec: got {type(spec).__name__}, wanted a mapping")
    try:
        text = _encode(spec)
    except (TypeError, ValueError) as error:
        raise ValueError(f"spec: must hold only JSON values: {error}") from error
    return _resolve_cached(answer_type, text)


@lru_cache(maxsize=4096)
def _resolve_cached(answer_type: str, spec_text: str) -> Rule:
    spec = json.loads(spec_text)
    name = verifier_name(answer_type, spec.pop("verifier", None))
    spec.pop("tools", None)  # of a conversation (dataset/agent), which is not judged here
    weights = spec.pop("weights", WEIGHTS)
    nested = spec.pop("params", {})
    if not isinstance(nested, Mapping):
        raise ValueError(f"spec.params: got {nested!r}, wanted a mapping")
    verifier = VERIFIERS[name]
    params = {**COMMON, **verifier.defaults}
    for key, value in {**spec, **nested}.items():
        if key not in params and not verifier.open_params:
            raise ValueError(f"spec.{key}: unknown for {name!r}, wanted one of {sorted(params)}")
        params[key] = value
    if params["vote"] not in (None, "frequency", "majority"):
        raise ValueError(f"spec.vote: got {params['vote']!r}, wanted 'frequency', 'majority' or null")
    weight = params["vote_entropy_weight"]
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise ValueError(f"spec.vote_entropy_weight: got {weight!r}, wanted a number of at least 0")
    deadline = params.get("deadline_seconds", 1.0)
    if not isinstance(deadline, int | float) or not 0 < deadline < math.inf:
        raise ValueError(f"spec.deadline_seconds: got {deadline!r}, wanted a positive number")
    return Rule(name, params, _checked_weights(weights), json.dumps(params, sort_keys=True))


def _checked_weights(weights: Any) -> dict[str, float]:
    if not isinstance(weights, Mapping):
        raise ValueError(f"spec.weights: got {weights!r}, wanted a mapping of part to weight")
    for part, weight in weights.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight < 0:
            raise ValueError(f"spec.weights.{part}: got {weight!r}, wanted a finite number >= 0")
    if not sum(weights.values()) > 0:
        raise ValueError(f"spec.weights: got {dict(weights)}, wanted at least one positive weight")
    return dict(weights)
