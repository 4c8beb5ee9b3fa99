"""Length of the training, its learning rate after a recovery, and recoveries that cannot be."""

from types import SimpleNamespace

import pytest
import torch
from areal.api.cli_args import RecoverConfig
from areal.utils.recover import RecoverHandler

from dataset.mixture import MixtureSampler
from trains import setup
from trains.setup import TrainingLength


def test_the_length_is_the_same_on_every_rank_and_ends_at_the_limit():
    samplers = [MixtureSampler([641], rank=rank, world_size=4) for rank in range(4)]
    assert len({-(-len(sampler) // 8) for sampler in samplers}) == 2, (
        "the ranks' own loaders differ in length"
    )
    rows = {len(sampler.sources) for sampler in samplers}
    assert rows == {641}
    length = TrainingLength(total_train_epochs=30, dataset_size=21 * 32, train_batch_size=32)
    assert (length.steps_per_epoch, length.total_train_steps) == (21, 630)
    length.step_limit = 60
    assert (length.steps_per_epoch, length.total_train_steps) == (21, 60)


def learning_rates(scheduler, optimizer, steps):
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def optimizer_and_schedule():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step / 10, 1.0))


def run_with(handler, tmp_path, scheduler=None, mode="on"):
    config = RecoverConfig(experiment_name="e", trial_name="t", fileroot=str(tmp_path), mode=mode)
    return SimpleNamespace(
        recover=handler,
        config=SimpleNamespace(recover=config),
        actor=SimpleNamespace(lr_scheduler=scheduler),
        rollout=SimpleNamespace(recover=lambda version: None, buffer=None),
        eval_rollout=SimpleNamespace(set_version=lambda version: None),
        saver=None, evaluator=None, stats_logger=None, train_dataloader=None, weight_meta=None,
        start_step=0, step=0,
    )  # fmt: skip


def test_the_learning_rate_goes_on_after_a_recovery(tmp_path):
    optimizer, scheduler = optimizer_and_schedule()
    whole = learning_rates(scheduler, optimizer, 8)
    optimizer, scheduler = optimizer_and_schedule()
    step = SimpleNamespace(last_step_info=SimpleNamespace(global_step=4))
    run = run_with(SimpleNamespace(load=lambda *args, **kwargs: step), tmp_path, scheduler)
    setup._recover(run)
    assert run.start_step == 5
    assert learning_rates(scheduler, optimizer, 3) == whole[5:]


def test_a_recovery_that_cannot_be_read_stops_the_run(tmp_path):
    handler = SimpleNamespace(load=lambda *args, **kwargs: None)  # what AReaL's does after logging the reason
    setup._recover(run_with(handler, tmp_path))  # nothing was saved: a first start
    path = RecoverHandler.recover_info_path("e", "t", str(tmp_path))
    setup.Path(path).mkdir(parents=True)
    with pytest.raises(
        RuntimeError, match=r"recover_info cannot be continued from.* another number of trainer ranks"
    ):
        setup._recover(run_with(handler, tmp_path))
    setup._recover(run_with(handler, tmp_path, mode="off"))
