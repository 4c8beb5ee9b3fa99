"""The benchmark: the plain baseline computes the same scores, and the step has the stated size."""

import json

import pytest

from reward.score import score_local
from reward.tools import bench
from reward.tools.bench_baseline import levenshtein, score_prompt
from reward.tools.bench_data import GROUP, STEP_MIX, make_prompt, make_step


def test_a_step_is_512_trajectories_and_reproducible():
    step = make_step(1)
    assert sum(len(prompt.completions) for prompt in step) == 512 == GROUP * sum(STEP_MIX.values())
    assert step == make_step(1)
    assert step != make_step(2)


@pytest.mark.parametrize(
    ("left", "right", "distance"), [("kitten", "sitting", 3), ("", "abc", 3), ("a", "a", 0)]
)
def test_plain_levenshtein(left, right, distance):
    assert levenshtein(left, right) == levenshtein(right, left) == distance


@pytest.mark.parametrize("kind", ["svg-code", "ocrtext", "math-expressions", "html-code"])
def test_the_baseline_agrees_with_the_verifiers(kind):
    prompt = make_prompt(kind, 5)
    prompt = prompt._replace(completions=prompt.completions[:6])
    ours = [score_local(c, prompt.answer, prompt.answer_type).parts["accuracy"] for c in prompt.completions]
    assert score_prompt(prompt) == pytest.approx(ours, abs=1e-9)
    assert max(ours) > 0.3


def test_the_command_reports_json(capsys):
    assert bench.main(["--rounds", "1", "--types", "number", "--no-step", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows"][0]["kind"] == "number"
    assert report["rows"][0]["difference"] == 0.0
    assert report["pool"]["timeouts"] == 0
