"""A reward of one's own: found, checked and run without editing the package; its mistakes name file and line."""

import json

import pytest

import reward
from reward.pool import RewardPool
from reward.registry import ANSWER_TYPES, VERIFIERS, register
from reward.score import score_local
from reward.tools.explain import explain
from reward.verifiers import custom

REWARDS = '''"""Rewards for the tests."""
import helper_of_rewards
from reward import Verdict

def share(answer, reference, params):
    value = helper_of_rewards.share(answer, reference) ** params.get("power", 1)
    return {"accuracy": value, "letters": len(answer), "trace": "letters in common"}

def whole(completion):
    return min(len(completion) / 10, 1.0)

def judged(answer):
    return Verdict(0.5, "rejected")

def careless(answer, reference):
    return {"one": 1}[answer]

def endless(answer):
    while True:
        pass

def odd(answer):
    return {"2": 2.0, "nan": float("nan"), "text": "good", "none": None, "no accuracy": {"part": 1}}[answer]
'''


@pytest.fixture
def file(tmp_path):
    (tmp_path / "helper_of_rewards.py").write_text(
        "def share(a, b): return len({*a} & {*b}) / len({*a} | {*b})\n"
    )
    path = tmp_path / "my_rewards.py"
    path.write_text(REWARDS)
    return str(path)


def spec(file, function, **params):
    return {"verifier": f"{file}:{function}", **params}


def test_what_it_may_take_and_return(file):
    output = score_local("<answer>ab</answer>", "abcd", "any", spec=spec(file, "share", power=2))
    assert (output.total, output.parts) == (0.25, {"accuracy": 0.25, "letters": 2.0})
    assert output.trace == (f"{file}:5: share -> 0.2500", "letters in common")
    weighed = spec(file, "share", weights={"accuracy": 1, "letters": 1})
    assert score_local("<answer>ab</answer>", ["abcd", "ab"], "any", spec=weighed).total == 1.5  # (1 + 2) / 2
    assert score_local("12345", "x", "any", spec=spec(file, "whole")).total == 0.5  # asked without an answer
    assert score_local("12345", "x", "any", spec=spec(file, "share")).status == "no_answer"
    assert score_local("<answer>a</answer>", "x", "any", spec=spec(file, "judged")).status == "rejected"


def test_in_the_killable_pool(file, caplog):
    def status(answer, function, **params):
        given = spec(file, function, **params)
        return pool.score_blocking(f"<answer>{answer}</answer>", "one", "essay", spec=given)

    with RewardPool(1) as pool:
        assert status("one", "share").total == 1.0
        assert status("one", "endless", deadline_seconds=0.5).status == "timeout"
        crash = status("two", "careless")
        assert (crash.status, crash.total) == ("crash", 0.0)
        assert f"{file}:16: KeyError" in crash.trace[0]
        assert f'{file}", line 16' in caplog.text
        for answer, said in (("2", "accuracy=2.0"), ("nan", "nan"), ("text", "'good'"), ("none", "None"),
                             ("no accuracy", "'part'")):  # fmt: skip
            wrong = status(answer, "odd")
            assert wrong.status == "crash"
            assert f"{file}:22: odd returned" in wrong.trace[0]
            assert said in wrong.trace[0]


def test_what_is_wrong_with_a_file_is_said_with_its_line(file, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("x = 1\ndef f(answer:\n    return 1\n")
    raising = tmp_path / "raising.py"
    raising.write_text("x = 1\nimport no_such_module\ndef f(answer):\n    return 1\n")
    strange = tmp_path / "strange.py"
    strange.write_text("\ndef f(text, gold):\n    return 1\n")
    for name, said in (
        (f"{file}:nothing", r"my_rewards.py:1: has no function 'nothing'; it has \['careless'"),
        (f"{tmp_path}/missing.py:f", "there is no file .*missing.py"),
        (f"{broken}:f", "broken.py:2: "),
        (f"{raising}:f", "raising.py:2: ModuleNotFoundError"),
        (f"{strange}:f", r"strange.py:2: f takes \['text', 'gold'\], wanted some of"),
    ):
        with pytest.raises(ValueError, match=said):
            score_local("<answer>a</answer>", "a", "any", spec={"verifier": name})


def test_a_type_of_ones_own(file, monkeypatch):
    monkeypatch.setattr(custom, "load", lambda function: pytest.fail("ran in this process"))
    with pytest.raises(ValueError, match="answer_type: got 'letters'"):
        reward.score("x", "x", "letters")
    with pytest.raises(ValueError, match=r"reward.verifiers.number: is reward.verifiers.number already"):
        register({"number": f"{file}:share"})
    with pytest.raises(ValueError, match=r"reward.verifiers.letters: got 'share', wanted FILE.py:FUNCTION"):
        register({"letters": "share"})
    register({"letters": f"{file}:share"})
    try:
        output = reward.score("<answer>ab</answer>", "abcd", "letters", prompt_type="answer")
        assert output.parts == {"accuracy": 0.5, "letters": 2.0, "format": 1.0}
        shown = explain("<answer>ab</answer>", "abcd", "letters")
        assert f"answer type   letters (verifier {file}:share)" in shown
        assert f"{file}:5: share -> 0.5000" in shown
    finally:
        del ANSWER_TYPES["letters"], VERIFIERS[f"{file}:share"]


def test_a_spec_from_data_may_name_it(file, tmp_path):
    row = json.loads(json.dumps({"verifier": f"{file}:share", "solved_threshold": 0.4}))
    assert score_local("<answer>ab</answer>", "abcd", "any", spec=row, prompt_type="answer").total > 0.5
