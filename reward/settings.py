"""What a run says about rewards, and the one way in which training, curation, evaluation and audit ask for a score.

settings = read_settings("configs/llavaov15-8b_stage2_grpo.yaml")
output = await pool.score(**settings.arguments(sample, completion, num_tokens=len(tokens)))
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reward.registry import register
from reward.types import UNJUDGED, RewardOutput
from utils.sample import Sample
from utils.training_file import read_sections


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """The settings of the section `reward` of a configuration that change a score; plain data, for other processes too.

    verifiers: answer types of one's own, `{"my-type": "my_rewards.py:score"}`, or with a whole spec that a sample's own
        comes over, `{"essay": {"verifier": "http", "url": ...}}`; see `reward.registry.register`.
    overlong: None, or {"max_tokens", "buffer_tokens"}: the soft overlong penalty (DAPO, arXiv 2503.14476, eq. 13) of
        samples whose spec does not say otherwise.
    """

    verifiers: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    overlong: Mapping[str, int] | None = None

    def register(self) -> "RewardSettings":
        """Make the verifiers known in this process. ValueError naming file and line."""
        register(self.verifiers)
        return self

    def arguments(
        self, sample: Sample, completion: str, *, num_tokens: int, progress: float | None = None
    ) -> dict[str, Any]:
        """The arguments of `reward.score`, `RewardPool.score` or `score_blocking` for one completion of a sample."""
        spec: dict[str, Any] = {"overlong": dict(self.overlong)} if self.overlong else {}
        named = self.verifiers.get(sample.answer_type)
        spec |= {**(named if isinstance(named, Mapping) else {}), **(sample.spec or {})}
        if spec.get("verifier", sample.answer_type) == "http":
            spec = {"question": sample.problem, **spec}
        return {
            "completion": completion,
            "answer": list(sample.answer),
            "answer_type": sample.answer_type,
            "problem_type": sample.problem_type,
            "prompt_type": sample.prompt_type,
            "spec": spec,
            "progress": progress,
            "num_tokens": num_tokens,
        }

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for journals and manifests."""
        return asdict(self)


DEFAULT_SETTINGS = RewardSettings()


def group_rewards(scores: Sequence[RewardOutput]) -> list[float]:
    """The total of each rollout of a prompt; one that no judge has judged gets the mean of the others, which favours
    and blames nobody (0 where there is none).
    """
    judged = [score.total for score in scores if score.status not in UNJUDGED]
    neutral = sum(judged) / len(judged) if judged else 0.0
    return [neutral if score.status in UNJUDGED else score.total for score in scores]


def make_settings(
    verifiers: Mapping[str, Any], overlong_buffer_tokens: int, max_new_tokens: int
) -> RewardSettings:
    """The settings that the keys of a configuration give. ValueError naming the key."""
    if not 0 <= overlong_buffer_tokens <= max_new_tokens:
        raise ValueError(
            f"reward.overlong_buffer_tokens={overlong_buffer_tokens}: wanted 0 (off) to gconfig.max_new_tokens="
            f"{max_new_tokens}"
        )
    limits = {"max_tokens": max_new_tokens, "buffer_tokens": overlong_buffer_tokens}
    return RewardSettings(dict(verifiers), limits if overlong_buffer_tokens else None).register()


def read_settings(path: str | Path) -> RewardSettings:
    """The reward settings of a training configuration and of those that it names under `defaults`.

    FileNotFoundError: there is none. ValueError: it is not a configuration, or a setting is wrong.
    """
    config = read_sections(path, ("reward", "gconfig"))
    reward = config.get("reward") or {}
    buffer_tokens = reward.get("overlong_buffer_tokens") or 0
    max_new_tokens = (config.get("gconfig") or {}).get("max_new_tokens") or 0
    return make_settings(reward.get("verifiers") or {}, buffer_tokens, max_new_tokens)
