"""Rewards over a conversation: the arithmetic, and what gives a game away."""

import json

import pytest

from reward.__main__ import main
from reward.trajectory import TrajectoryWeights, copies, facts, score_trajectory
from reward.types import RewardOutput

CALL = {"name": "zoom", "arguments": {"bbox_2d": [1, 2, 3, 4]}}


def turn(text="", *, call=None, fault=None, reply=None, num_images=0, without_effect=False):
    return {
        "text": text, "call": call, "fault": fault, "reply": reply, "num_images": num_images,
        "without_effect": without_effect, "num_tokens": 1,
    }  # fmt: skip


LOOKED = [turn(call=CALL, reply="", num_images=1), turn("<answer>7</answer>")]
IN_VAIN = [turn(call=CALL, reply="", num_images=1, without_effect=True), turn("<answer>7</answer>")]
FAILED = [turn(call=CALL, reply="Error: no", fault="bad_arguments"), turn("<answer>7</answer>")]
STRAIGHT = [turn("<answer>7</answer>")]


def total(steps, accuracy=1.0, status="ok", **weights):
    output = RewardOutput(accuracy, {"accuracy": accuracy}, status, "7")
    return score_trajectory(output, steps, [], TrajectoryWeights(**weights)).total


def test_off_by_default():
    for steps in (LOOKED, IN_VAIN, FAILED, STRAIGHT):
        assert total(steps) == 1.0
        assert total(steps, accuracy=0.0) == 0.0


def test_the_bonus_needs_a_right_answer_and_a_call_that_told_something():
    assert total(LOOKED, tool_bonus=0.5) == 1.0
    assert total(STRAIGHT, tool_bonus=0.5) == pytest.approx(1 / 1.5)
    assert total(IN_VAIN, tool_bonus=0.5) == total(FAILED, tool_bonus=0.5) == pytest.approx(1 / 1.5)
    assert total(LOOKED, accuracy=0.0, tool_bonus=0.5) == 0.0
    # a right answer without a tool is worth more than a wrong one with it
    assert total(STRAIGHT, tool_bonus=10.0) > total(LOOKED, accuracy=0.0, tool_bonus=10.0)


def test_format_per_turn_and_cost_per_call():
    assert total(FAILED, turn_format=1.0) == pytest.approx((1 + 0.5) / 2)
    assert total(FAILED, accuracy=0.0, turn_format=1.0) == 0.0
    assert total(LOOKED, call_cost=0.1) == pytest.approx(0.9)
    assert total(FAILED, accuracy=0.0, call_cost=0.1) == pytest.approx(-0.1)


def test_what_nobody_judged_is_left_alone():
    assert total(LOOKED, accuracy=0.0, status="judge_timeout", call_cost=0.5) == 0.0


def test_signs_of_a_game():
    found = facts([*IN_VAIN[:1], *FAILED], ["bad_arguments"])
    assert (found["tool_calls"], found["effective_calls"], found["ineffective_calls"]) == (2, 0, 1)
    reply = "The moon pulls at the sea, and the sea gives way twice a day."
    copied = [turn(call=CALL, reply=reply), turn(f"<answer>{reply[3:50]}</answer>")]
    assert facts(copied, [])["copied"] == 1
    assert facts([turn(call=CALL, reply=reply), turn("<answer>the moon</answer>")], [])["copied"] == 0
    assert not copies("short", "short")


@pytest.mark.parametrize("weights", [{"tool_bonus": -1}, {"call_cost": float("nan")}, {"turn_format": 11}])
def test_weights_are_checked(weights):
    with pytest.raises(ValueError, match=f"agent.{next(iter(weights))}="):
        TrajectoryWeights(**weights)


def test_explained(tmp_path, capsys):
    record = {"completion": "<answer>7</answer>", "turns": LOOKED, "faults": []}
    (tmp_path / "record.json").write_text(json.dumps(record))
    words = [str(tmp_path / "record.json"), "--trajectory", "--answer", "7", "--answer-type", "number"]
    assert main(["explain", *words, "--weights", '{"tool_bonus": 0.5, "call_cost": 0.1}']) == 0
    shown = capsys.readouterr().out
    assert "turn 1" in shown
    assert 'call        zoom {"bbox_2d": [1, 2, 3, 4]}' in shown
    assert shown.endswith("in all        0.9000\n")
    assert main(["explain", *words, "--weights", '{"luck": 1}']) == 2
    (tmp_path / "record.json").write_text("{}")
    assert main(["explain", *words]) == 2
