"""The settings of the pipeline model, and the JSON files that hold them.

    {
      "notes": "where the numbers come from",
      "pipeline": {every field of Parameters; "decode_seconds": {"1": 0.007, "64": 0.014}},
      "workloads": {"name": {fields that differ}, ...},
      "colocated_switch_seconds": 5.0,
      "measured": {"async_step_seconds": 1.5, "sync_step_seconds": 2.1}
    }

Only "pipeline" is needed. "measured" lets the model be checked against a run of the same pipeline.
"""

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Parameters:
    """A pipeline; times in seconds, lengths in tokens."""

    num_servers: int
    num_trainers: int
    groups_per_step: int
    group_size: int
    eta: int
    decode_seconds: tuple[tuple[int, float], ...]  # (running requests, seconds for one token of each)
    train_seconds_per_token: float  # of one trainer; log-probabilities, forward, backward, update
    median_tokens: float  # response lengths are lognormal, cut at max_tokens
    sigma_tokens: float
    max_tokens: int
    prompt_tokens: int = 0
    share_prompts: bool = (
        False  # the trainer computes a prompt once for its group, not once for each response
    )
    tokens_per_mb: int = 0  # groups of more tokens are cut into parts that repeat the prompt; 0: never
    train_seconds_per_prompt: float = (
        0.0  # of one trainer, beside its tokens: its images, as often as the prompt
    )
    measured_tokens: tuple[int, ...] = ()  # drawn from with replacement instead, where given
    max_running_requests: int = 64
    max_concurrent_groups: int = 10**9
    prefill_seconds: float = 0.0
    shared_prefill_seconds: float | None = None  # of a prompt that the server has already; None: the same
    has_affinity: bool = (
        False  # the requests of a group go to one server, groups in turn; else each to the emptiest
    )
    client_seconds: float = 0.0  # to prepare the requests of a group, one group after another
    reward_seconds: float = 0.0
    train_fixed_seconds: float = 0.0  # a step's part that does not depend on tokens; writing the weights too
    sync_seconds: float = 0.0  # decoding stands still, and so does the trainer
    latency_sigma: float = 0.0  # spread of the speed of single requests (lognormal)
    contention: float = 1.0  # decoding is slower by this factor while the trainer computes (shared cores)
    train_contention: float = 1.0  # and the trainer by this one while a server decodes
    drop_share: float = 0.0  # groups without signal, dropped when ready and replaced
    num_steps: int = 60
    warmup_steps: int = 10  # left out of the rates
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_servers", "num_trainers", "groups_per_step", "group_size", "max_running_requests"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.eta < 0 or not 0 <= self.drop_share < 1 or min(self.contention, self.train_contention) < 1:
            raise ValueError("wanted eta >= 0, 0 <= drop_share < 1, contention and train_contention >= 1")
        if not 0 <= self.warmup_steps < self.num_steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be below num_steps {self.num_steps}")
        if not self.decode_seconds:
            raise ValueError("decode_seconds needs at least one (running requests, seconds) point")


@dataclass(frozen=True)
class Scenario:
    """The content of a parameter file."""

    pipeline: Parameters
    workloads: dict[str, Parameters]
    colocated_switch_seconds: float = 0.0
    measured: dict[str, float] = field(default_factory=dict)


def load(path: Path) -> Scenario:
    """Read a parameter file. Raises ValueError naming an unknown key or a value that cannot be."""
    data = json.loads(path.read_text())
    _refuse_unknown(data, {"notes", *(f.name for f in fields(Scenario))}, path.name)
    pipeline = Parameters(**_arguments(data["pipeline"], "pipeline"))
    workloads = {
        name: replace(pipeline, **_arguments(changes, f"workloads.{name}"))
        for name, changes in data.get("workloads", {}).items()
    }
    return Scenario(
        pipeline,
        workloads,
        float(data.get("colocated_switch_seconds", 0.0)),
        dict(data.get("measured", {})),
    )


def _arguments(values: dict[str, Any], where: str) -> dict[str, Any]:
    _refuse_unknown(values, {f.name for f in fields(Parameters)}, where)
    out = dict(values)
    if "decode_seconds" in out:
        out["decode_seconds"] = tuple((int(n), float(s)) for n, s in out["decode_seconds"].items())
    if "measured_tokens" in out:
        out["measured_tokens"] = tuple(out["measured_tokens"])
    return out


def _refuse_unknown(values: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(
            f"{where}: unknown keys {', '.join(unknown)}; the keys are {', '.join(sorted(known))}"
        )
