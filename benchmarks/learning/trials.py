"""What the proof of learning runs: the demo's stages from several seeds, a control, and one change at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

STAGE1, STAGE2 = "configs/digits_cpu_stage1.yaml", "configs/digits_cpu_stage2.yaml"
HEADLINE_SEEDS = (1, 2, 3, 4, 5)
ABLATION_SEEDS = (1, 2, 3)
ABLATION_STEPS = 30
NUM_HELDOUT = 1600  # all held-out rows of stage 1: 400 of them carry 2.5 points of noise

# Every change is against the configuration as shipped, which is the variant "plain".
ABLATIONS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "control": ("loss.shuffle_rewards=true",),
    "eta 0": ("rollout.max_head_offpolicyness=0",),
    "eta 1": ("rollout.max_head_offpolicyness=1",),
    "eta 4, buffer full": ("buffer.freshness=off",),
    "mask beyond the cap": ("loss.behavior_mode=mask",),
    "no whitening": ("loss.batch_whiten=false",),
    "prompts not shared": ("actor.share_prompts=false",),
    "separate proximal pass": ("loss.proximal_pass=separate",),
    "dr_grpo": ("loss.estimator=dr_grpo", "loss.batch_whiten=false"),
    "rloo": ("loss.estimator=rloo", "loss.batch_whiten=false"),
    "opo": ("loss.estimator=opo", "loss.batch_whiten=false"),
    "reinforce++": ("loss.estimator=reinforce++", "loss.batch_whiten=false"),
    "reinforce++-baseline": ("loss.estimator=reinforce++-baseline", "loss.batch_whiten=false"),
}


@dataclass(frozen=True)
class Trial:
    """One training run: a configuration, a warm-started checkpoint of the same seed, and what differs."""

    group: str  # headline, ablation or choice
    variant: str
    seed: int
    config: str
    overrides: tuple[str, ...] = ()
    split: str = "heldout"  # measured on
    evaluate_every: int = 20  # steps; before the first step, too

    @property
    def name(self) -> str:
        """Of the trial and its folder."""
        words = "".join(character if character.isalnum() else " " for character in self.variant).split()
        return "-".join([self.group, *words, f"seed{self.seed}"])

    @property
    def stage(self) -> str:
        return "stage1" if self.config == STAGE1 else "stage2"


def headline() -> list[Trial]:
    """Both stages with five seeds, and for each of them stage 1 as a control."""
    trials = []
    for seed in HEADLINE_SEEDS:
        trials.append(Trial("headline", "plain", seed, STAGE1))
        trials.append(Trial("headline", "control", seed, STAGE1, ABLATIONS["control"]))
    # behind stage 1 of every seed: a benchmark that is cut off has the claim first
    trials += [Trial("headline", "plain", seed, STAGE2) for seed in HEADLINE_SEEDS]
    return trials


def ablations() -> list[Trial]:
    """Stage 1, fewer steps and seeds, one change at a time; seeds outermost, so that a part is still a comparison."""
    steps = f"total_train_steps={ABLATION_STEPS}"
    return [
        Trial("ablation", variant, seed, STAGE1, (*overrides, steps), evaluate_every=ABLATION_STEPS)
        for seed in ABLATION_SEEDS
        for variant, overrides in ABLATIONS.items()
        if variant != "control"
    ]


def choices(rates: Iterable[str], seeds: Iterable[int]) -> list[Trial]:
    """Learning rates for stage 1, measured on the validation split, which is neither trained nor reported on."""
    return [
        Trial("choice", f"lr {rate}", seed, STAGE1, (f"actor.optimizer.lr={rate}",), "validation")
        for seed in seeds
        for rate in rates
    ]
