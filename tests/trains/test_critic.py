"""The critic on AReaL's engine: the same values in shared rows and one by one, and it learns; energies for otb too."""

import pytest
import torch
from areal.utils import stats_tracker

from benchmarks import shared_prompts
from benchmarks.actor_step import Workload, build_actor
from trains.config import CriticConfig
from trains.critic import VisionCritic
from utils.value import generalized_advantages

SHAPE = shared_prompts.Shape(prompt=20, image=4, answer=6, group=4, prompts=3)


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    checkpoint = shared_prompts.build_checkpoint(
        tmp_path_factory.mktemp("wide") / "model", hidden=64, layers=2
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            patch.delenv(name, raising=False)
        actor = build_actor(
            checkpoint, Workload(max_tokens_per_mb=70), attn="sdpa", dtype="float32", checkpointing=False
        )
        config = CriticConfig(
            path=str(checkpoint), lr=5e-3, head_lr=1e-2, freeze_vision_tower=True, value_clip=None
        )
        critic = VisionCritic(config, actor.config, actor.forbidden_token_ids)
        critic.create_process_group()
        from areal.api import FinetuneSpec

        critic.initialize(
            addr=None, ft_spec=FinetuneSpec(total_train_epochs=1, dataset_size=100, train_batch_size=1)
        )
        critic.model.config.suppress_media_tokens = True  # as in the demo's checkpoint
        yield actor, critic, shared_prompts.make_batch(checkpoint, SHAPE)
        critic.destroy()
        actor.destroy()
    stats_tracker.export_all()


def tokens(values, batch):
    return torch.cat([v[:, :-1][g["loss_mask"][:, 1:].bool()] for v, g in zip(values, batch, strict=True)])


def test_values_begin_at_zero_and_are_the_same_in_shared_rows(engines):
    _, critic, batch = engines
    assert not tokens(critic.compute_values(batch), batch).any()
    head = critic.model.get_output_embeddings().weight.to_local()
    with torch.no_grad():
        head.copy_(torch.randn(head.shape, generator=torch.Generator().manual_seed(0)))
    shared = tokens(critic.compute_values(batch), batch)
    critic.config.share_prompts = False
    alone = tokens(critic.compute_values(batch), batch)
    critic.config.share_prompts = True
    assert alone.std() > 0.1
    torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        head.zero_()


def test_the_critic_learns_which_prompts_are_good(engines):
    _, critic, batch = engines
    tower = [p.clone() for name, p in critic.model.named_parameters() if "blocks" in name]
    explained = []
    for _ in range(12):
        for number, (group, values) in enumerate(zip(batch, critic.compute_values(batch), strict=True)):
            group["policy_mask"] = torch.roll(group["loss_mask"], -1, -1)
            group["values"] = values * group["policy_mask"]
            estimate = generalized_advantages(torch.full((4,), float(number)), values, group["policy_mask"])
            group["returns"], group["monte_carlo"] = estimate.returns, estimate.monte_carlo
        record = critic.update(batch)
        explained.append(record["explained_variance"])
        assert record["grad_norm"] > 0
    assert explained[0] == pytest.approx(0.0, abs=1e-6)
    assert explained[-1] > 0.5
    assert record["return_mean"] == pytest.approx(1.0, abs=0.2)
    after = [p for name, p in critic.model.named_parameters() if "blocks" in name]
    assert all(torch.equal(old, new) for old, new in zip(tower, after, strict=True)), "the tower is frozen"


def test_the_head_has_a_learning_rate_of_its_own(engines):
    """And the schedule is common: both rates warm up alike."""
    _, critic, _ = engines
    body, head = critic.optimizer.param_groups
    assert head["params"] == [critic.model.get_output_embeddings().weight]
    assert len(body["params"]) + 1 == len(list(critic.model.parameters()))
    assert critic.lr_scheduler.base_lrs == [5e-3, 1e-2]
    assert head["lr"] == pytest.approx(2 * body["lr"])


def test_epochs_are_passes_over_the_same_batch(engines, monkeypatch):
    """The values that updates are clipped around stay those of before the first pass."""
    _, critic, batch = engines
    for group, values in zip(batch, critic.compute_values(batch), strict=True):
        group["policy_mask"] = torch.roll(group["loss_mask"], -1, -1)
        group["values"], group["returns"], group["monte_carlo"] = values, values + 1, values + 1
    seen = []
    monkeypatch.setattr(
        critic,
        "train_batch",
        lambda minibatch, *_: (
            seen.append(minibatch["values"].clone())
            or {"update_successful": 1.0, "grad_norm": 1.0, "lr": 1.0}
        ),
    )
    monkeypatch.setattr(critic.options, "num_epochs", 3)
    critic.update(batch)
    assert len(seen) == 3
    assert all(torch.equal(values, seen[0]) for values in seen)


def test_energies_are_those_of_the_model_in_shared_rows_too(engines):
    actor, _, batch = engines
    actor.loss.estimator = "otb"
    found = []
    for share in (True, False):
        actor.config.share_prompts = share
        actor.compute_logp(batch)
        found.append(tokens([group["energies"] for group in batch], batch))
    actor.loss.estimator = "grpo"
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
    assert (found[0] > 0).all()
    assert (found[0] < 2).all()
