"""The actor in every form of its batches: the same log-probabilities and gradients, several micro-batches each."""

import pytest

from benchmarks import shared_prompts
from benchmarks.actor_step import Workload, build_actor

SHAPE = shared_prompts.Shape(prompt=20, image=4, answer=6, group=4, prompts=3)


@pytest.fixture(scope="module")
def actor(tmp_path_factory):
    checkpoint = shared_prompts.build_checkpoint(
        tmp_path_factory.mktemp("wide") / "model", hidden=64, layers=2
    )
    limits = Workload(max_tokens_per_mb=70)  # a group of 43 tokens and no second one
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            patch.delenv(name, raising=False)
        found = build_actor(
            checkpoint, limits, attn="sdpa", dtype="float32", checkpointing=False, learning_rate=0.0
        )
        yield found, checkpoint
        found.destroy()


def test_every_form_gives_the_same_numbers(actor):
    model, checkpoint = actor
    batch = shared_prompts.make_batch(checkpoint, SHAPE)
    wanted, gradients = shared_prompts.step(model, batch, "one by one")
    assert wanted.std() > 0.1
    for form in ("shared", "fused"):
        values, found = shared_prompts.step(model, batch, form)
        assert (values - wanted).abs().max() < 1e-5, form
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm(), (form, name)
    assert any(gradient.any() for name, gradient in gradients.items() if name.startswith("visual"))


def test_the_table_reads(actor):
    results = {"tiny": shared_prompts.measure(*actor, SHAPE, repeats=1)}
    text = shared_prompts.table(results)
    assert "| tiny: 20 + 6, G 4 |" in text
    assert results["tiny"]["shared"]["logprobs"] < 1e-5
