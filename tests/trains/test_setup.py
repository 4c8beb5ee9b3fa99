"""Length of the training, and recovery: whole checkpoints, the learning rate, prompts by their place in the data."""

import json
from types import SimpleNamespace

import pytest
import torch
from areal.api import FinetuneSpec, StepInfo
from areal.api.cli_args import RecoverConfig
from areal.utils.recover import RecoverInfo
from areal.utils.saver import Saver

from dataset.loader import LeftOut
from dataset.mixture import MixtureSampler
from trains.host import recovery
from trains.host.recovery import Recovery, ResumableData
from trains.setup import TrainingLength
from utils.entropy_control import EntropyCoefficient

SPEC = FinetuneSpec(total_train_epochs=1, dataset_size=100, train_batch_size=1)


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


class Counter:
    """Stands for the saver, the evaluator, the logger and the data: one number each."""

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


class Engine(Counter):
    def save(self, meta):
        with open(f"{meta.path}/weights", "w") as file:
            file.write(str(self.value))

    def load(self, meta):
        with open(f"{meta.path}/weights") as file:
            self.value = int(file.read())

    def connect_engine(self, *_): ...
    def update_weights(self, *_): ...
    def set_version(self, *_): ...
    def pause(self): ...
    def resume(self): ...


def handler(tmp_path, mode="on"):
    config = RecoverConfig(
        experiment_name="e", trial_name="t", fileroot=str(tmp_path), mode=mode, freq_steps=1
    )
    return Recovery(config, SPEC)


def dump(recover, step):
    info = StepInfo(epoch=0, epoch_step=step, global_step=step, steps_per_epoch=100)
    recover.dump(Engine(step), info, *(Counter(step) for _ in range(4)))


def load(recover):
    engine, data = Engine(), Counter()
    meta = SimpleNamespace(with_version=lambda version: None)
    info = recover.load(
        engine, Counter(), Counter(), Counter(), data, inference_engine=engine, weight_update_meta=meta
    )
    return info and (info.last_step_info.global_step, engine.value, data.value)


def test_checkpoints_take_turns_and_the_last_whole_one_counts(tmp_path, monkeypatch):
    assert load(handler(tmp_path)) is None, "a first start"
    for step in (3, 4, 5):
        dump(handler(tmp_path), step)
        assert load(handler(tmp_path)) == (step, step, step)

    def crash(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RecoverInfo, "dump", crash)  # the weights are written, the records are not
        with pytest.raises(KeyboardInterrupt):
            dump(handler(tmp_path), 6)
    with monkeypatch.context() as patch:
        patch.setattr(json, "dump", crash)  # in the middle of the records
        with pytest.raises(KeyboardInterrupt):
            dump(handler(tmp_path), 7)
    assert load(handler(tmp_path)) == (5, 5, 5)
    dump(handler(tmp_path), 8)
    assert load(handler(tmp_path)) == (8, 8, 8)
    assert load(handler(tmp_path, mode="off")) is None


def test_a_checkpoint_that_cannot_be_read_stops_the_run(tmp_path):
    dump(handler(tmp_path), 3)
    (tmp_path / Saver.get_save_root("e", "t", tmp_path) / "recover_info" / "dataloader_info.pkl").write_bytes(
        b""
    )
    with pytest.raises(
        RuntimeError, match=r"recover_info cannot be continued from.* another number of trainer ranks"
    ):
        load(handler(tmp_path))


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


def test_the_learning_rate_goes_on_after_a_recovery():
    optimizer, scheduler = optimizer_and_schedule()
    whole = learning_rates(scheduler, optimizer, 8)
    optimizer, scheduler = optimizer_and_schedule()
    info = SimpleNamespace(last_step_info=SimpleNamespace(global_step=4))
    versions = []
    step = recovery.resume(
        SimpleNamespace(load=lambda *args, **kwargs: info),
        SimpleNamespace(lr_scheduler=scheduler, entropy_coefficient=None),
        SimpleNamespace(recover=versions.append),
        saver=None, evaluator=None, stats_logger=None, dataloader=None, weight_meta=None,
    )  # fmt: skip
    assert step == 5
    assert versions == [5]
    assert learning_rates(scheduler, optimizer, 3) == whole[5:]


def test_prompts_are_stored_by_their_place_and_read_again():
    data = {(0, n): {"place": (0, n), "images": ["large"] * 1000} for n in range(5)}
    loader = Counter(7)
    loader.dataset = data
    undelivered = [data[0, 3], data[0, 1]]
    rollout = SimpleNamespace(state_dict=lambda: {"undelivered": undelivered, "counts": {"consumed": 4}})
    state = ResumableData(loader, rollout).state_dict()
    assert "large" not in str(state)
    restored = []
    data[0, 1] = LeftOut((0, 1), "b", "became unreadable")
    ResumableData(loader, SimpleNamespace(load_state_dict=restored.append)).load_state_dict(state)
    moved, fresh = (EntropyCoefficient(0.1, 1.0, 0.1) for _ in range(2))
    moved.update(0.5)
    saved = ResumableData(loader, rollout, moved).state_dict()
    ResumableData(loader, SimpleNamespace(load_state_dict=restored.append), fresh).load_state_dict(saved)
    assert fresh.value == moved.value == 0.2
    restored.pop()
    assert restored == [{"undelivered": [data[0, 3]], "counts": {"consumed": 4}}]
