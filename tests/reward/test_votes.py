"""Groups that judge themselves: frequencies and majorities by hand, and what stays of the rollout's own score."""

import math

import pytest

from reward import score
from reward.votes import after_the_vote
from utils.sample import Sample


def sample(**spec):
    return Sample("a", (), "How many?", ("?",), "count", "any", "s", "answer", spec or None)


def scores(*completions, prompt_type="answer", **spec):
    return [score(c, "?", "any", prompt_type=prompt_type, spec=spec or None) for c in completions]


ANSWERS = ("<answer>Two</answer>", "<answer>two.</answer>", "<answer>3</answer>", "no answer at all")


def test_frequency_is_the_share_of_the_group_that_agrees():
    found = after_the_vote(sample(vote="frequency"), scores(*ANSWERS))
    assert [s.parts["accuracy"] for s in found] == [0.5, 0.5, 0.25, 0.0]
    assert [s.status for s in found] == ["ok", "ok", "ok", "no_answer"]
    # 0.9 accuracy + 0.1 format, which is paid for where there is an answer
    assert [s.total for s in found] == pytest.approx([0.55, 0.55, 0.325, 0.0])


def test_majority_pays_the_most_frequent_answer_alone_and_the_first_of_equals():
    found = after_the_vote(sample(vote="majority"), scores(*ANSWERS))
    assert [s.parts["accuracy"] for s in found] == [1.0, 1.0, 0.0, 0.0]
    equal = after_the_vote(sample(vote="majority"), scores(ANSWERS[2], ANSWERS[0]))
    assert [s.parts["accuracy"] for s in equal] == [1.0, 0.0]


def test_the_entropy_of_the_answers_is_the_groups_and_cancels_in_it():
    plain = after_the_vote(sample(vote="frequency"), scores(*ANSWERS))
    found = after_the_vote(sample(vote="frequency", vote_entropy_weight=0.5), scores(*ANSWERS))
    entropy = -(0.5 * math.log(0.5) + 0.25 * math.log(0.25))
    assert {s.parts["vote_entropy"] for s in found} == {entropy}
    assert [a.total - b.total for a, b in zip(plain, found, strict=True)] == pytest.approx([entropy / 2] * 4)


def test_nobody_answers_and_nobody_votes():
    nothing = after_the_vote(sample(vote="majority"), scores("", "?"))
    assert [s.total for s in nothing] == [0.0, 0.0]
    own = scores(*ANSWERS)
    assert after_the_vote(sample(), own) == own


def test_penalties_stay():
    spec = {"vote": "majority", "repetition": {"n": 1, "max_fraction": 0.5}}
    completion = "<answer>two</answer> so so so so so so so so so"
    (found,) = after_the_vote(sample(**spec), scores(completion, **spec))
    assert found.parts["repetition"] < 0
    assert found.total == pytest.approx(0.9 + 0.1 * found.parts["format"] + found.parts["repetition"])


@pytest.mark.parametrize("spec", [{"vote": "most"}, {"vote": True}, {"vote_entropy_weight": -1}])
def test_a_vote_of_another_kind_is_refused(spec):
    with pytest.raises(ValueError, match=f"spec.{next(iter(spec))}: got"):
        after_the_vote(sample(**spec), [])


def test_one_by_one_a_label_counts():
    assert score("<answer>2</answer>", "2", "number", spec={"vote": "frequency"}).total == 1.0
