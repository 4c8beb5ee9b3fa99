"""Every file of configs/recipes/ loads, contradicts nothing, and moves a policy in two steps of an actor on paper."""

from pathlib import Path

import pytest
import torch
from areal.api.cli_args import parse_cli_args, to_structured_cfg
from areal.utils import stats_tracker
from omegaconf import OmegaConf

from reward import RewardOutput
from trains.actor import VisionActor
from trains.config import Config
from trains.file_gate import Missing
from trains.gate import problems
from trains.types import GroupInfo
from utils.entropy_control import EntropyCoefficient

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs/recipes").glob("*.yaml"))
NUM_PROMPT, SEQ, VOCAB = 2, 6, 5


def load(path):
    raw, _ = parse_cli_args(["trains/grpo.py", "--config", str(path)])
    return OmegaConf.to_object(to_structured_cfg(raw, Config))


@pytest.fixture(autouse=True)
def fresh_statistics():
    yield
    stats_tracker.export_all()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_loads_says_where_it_is_from_and_is_refused_nothing(path):
    config, text = load(path), path.read_text()
    assert all(isinstance(problem, Missing) for problem in problems(config))
    assert f"--config configs/recipes/{path.name}" in text
    assert "arXiv:" in text
    assert config.experiment_name == f"recipe-{path.stem.replace('_', '-')}"
    assert config.loss != Config().loss
    assert len(text.splitlines()) < 40, "a few lines over base"


def group(seed):
    """Four answers of one to four tokens with rewards 1, 1, 0, 0."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.arange(SEQ).expand(4, -1)
    mask = (place >= NUM_PROMPT) & (place < NUM_PROMPT + torch.tensor([[1], [4], [3], [2]]))
    scores = [RewardOutput(r, {"accuracy": r, "format": 1.0}, "ok", None, ()) for r in (1.0, 1.0, 0.0, 0.0)]
    info = GroupInfo(
        0, "a", "s", "number", "answer", ["1"], scores, [""] * 4, [False] * 3 + [True], [1, 4, 3, 2], 0
    )
    return {
        "rewards": torch.tensor([1.0, 1.0, 0.0, 0.0]),
        "loss_mask": mask.int(),
        "logprobs": -1.6 + 0.05 * torch.randn(4, SEQ, generator=generator),
        "versions": torch.where(mask, 0, -1).int(),
        "input_ids": torch.randint(VOCAB, (4, SEQ), generator=generator),
        "info": [info],
    }


class PaperActor(VisionActor):
    """A policy that is a table of logits, one row for each token of its batch."""

    def __init__(self, config):
        self.config, self.loss = config.actor, config.loss
        self.max_new_tokens = 4
        self.entropy_coefficient = EntropyCoefficient(config.loss.entropy_coefficient)
        self.logits = torch.zeros(8 * SEQ, VOCAB, requires_grad=True)

    def sum_over_ranks(self, values):
        return values

    def scores(self, batch):
        labels = torch.cat([torch.roll(g["input_ids"], -1, -1).flatten() for g in batch])
        logprobs = self.logits.log_softmax(-1)
        return logprobs.gather(-1, labels[:, None]).squeeze(-1), -(logprobs.exp() * logprobs).sum(-1)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_two_steps_of_an_actor_on_paper(path):
    actor, batch = PaperActor(load(path)), [group(0), group(1)]
    optimizer = torch.optim.SGD([actor.logits], lr=0.5)
    for _ in range(2):
        proximal = actor.scores(batch)[0].detach()
        for i, g in enumerate(batch):
            g["proximal_logprobs"] = proximal.view(2, 4, SEQ)[i]
            g["reference_logprobs"] = g["proximal_logprobs"] - 0.1
        actor.compute_advantages(batch)
        keys = ("policy_mask", "behavior_logprobs", "proximal_logprobs", "reference_logprobs", "advantages")
        inputs = {key: torch.cat([g[key].flatten() for g in batch]) for key in keys}
        inputs["cu_seqlens"] = torch.arange(9) * SEQ
        before = actor.logits.detach().clone()
        optimizer.zero_grad()
        loss = actor._loss(*actor.scores(batch), inputs)
        loss.backward()
        assert loss.isfinite()
        optimizer.step()
        moved = (actor.logits.detach() - before).view(8, SEQ, VOCAB).abs().sum(-1)
        trained = inputs["policy_mask"].view(8, SEQ).bool()
        assert moved[trained].max() > 1e-4
        assert moved[~trained].max() == 0
        # what was rewarded has become likelier than what was not
        change = (actor.scores(batch)[0].detach() - proximal)[inputs["policy_mask"].bool()]
        good = inputs["advantages"][inputs["policy_mask"].bool()] > 0
        assert change[good].mean() > change[~good].mean()
