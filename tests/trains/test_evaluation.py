"""Held-out rows through the executor: a row whose data is wrong is left out, any other failure is an error."""

from types import SimpleNamespace

import pytest

from reward import RewardOutput
from trains.evaluation import _roll_out
from trains.types import Failure, GroupInfo


class Executor:
    """Answers at once: row "wrong" has wrong data, row "lost" fails for another reason."""

    def __init__(self):
        self.results = []

    def submit(self, data, workflow, is_eval):
        assert is_eval
        key, name = data["key"], data["prompt"]["id"]
        score = RewardOutput(1.0, {"accuracy": 1.0}, "ok", "7")
        group = {
            "info": [GroupInfo(key, name, "s", "number", "answer", ["7"], [score], ["7"], [False], [1], 0)]
        }
        failed = {"failure": Failure(key, f"{name} it is", name == "wrong")}
        self.results.append(failed if name in ("wrong", "lost") else group)

    def finished(self, timeout):
        return [self.results.pop()]  # the last one first


def roll_out(*names):
    left_out = []
    loader = [[{"id": name, "place": (0, number)} for number, name in enumerate(names)]]
    run = SimpleNamespace(
        eval_rollout=SimpleNamespace(executor=Executor()),
        eval_workflow=None,
        config=SimpleNamespace(valid_dataset=SimpleNamespace(max_samples=None)),
        eval_dataloader=type("Loader", (list,), {"leave_out": lambda self, *row: left_out.append(row)})(
            loader
        ),
    )
    return [record["sample_id"] for record in _roll_out(run)], left_out


def test_a_row_with_wrong_data_is_left_out():
    records, left_out = roll_out("a", "wrong", "b")
    assert sorted(records) == ["a", "b"]
    assert left_out == [((0, 1), "wrong", "wrong it is")]


def test_any_other_failure_is_an_error():
    with pytest.raises(RuntimeError, match="evaluation, sample lost: lost it is"):
        roll_out("a", "lost")
