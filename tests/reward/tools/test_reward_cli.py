import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reward.__main__ import main
from reward.counters import RewardCounters, num_answers, total_variation
from reward.score import score_local
from reward.tools.audit import audit

ROWS = [
    ("a", ["B"], "multiple-choice", "choices", json.dumps({"options": ["1 cm", "2 cm", "3 cm"]})),
    ("b", ["C"], "multiple-choice", "choices", None),
    ("c", ["7"], "number", "counts", None),
    ("d", ["12"], "number", "counts", None),
    ("e", ["[1, 2, 30, 40]"], "bbox", "boxes", None),
    ("f", ["[50, 60, 90, 80]"], "bbox", "boxes", None),
    ("g", ["x^2+1"], "math-expressions", "mathematics", None),
    ("h", ["\\frac{1}{2}"], "math-expressions", "mathematics", None),
]


def write(path, rows):
    columns = dict(
        zip(("id", "answer", "answer_type", "source", "spec"), zip(*rows, strict=True), strict=True)
    )
    types = {"answer": pa.list_(pa.string())}
    pq.write_table(pa.table({k: pa.array(v, types.get(k, pa.string())) for k, v in columns.items()}), path)


def test_audit_of_sound_data(tmp_path, capsys):
    write(tmp_path / "part.parquet", ROWS)
    assert main(["audit", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("good") == 4
    results = {result.source: result for result in audit(tmp_path)}
    assert results["choices"].means == {
        "self": 1.0,
        "blank": 0.0,
        "boilerplate": 0.0,
        "wrong option": 0.0,
        "other answer": 0.0,
    }
    assert results["counts"].means["wrong option"] is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("x", ["five or six"], "number", "bad", None), "cannot read"),
        (("x", [], "number", "bad", None), "empty"),
        (("x", ["5"], "integer", "bad", None), "answer_type"),
        (("x", ["yes"], "boolean", "bad", json.dumps({"tolerance": 1})), "tolerance"),
        (("x", ["unknown"], "any", "bad", json.dumps({"weights": {"accuracy": -1}})), "weights"),
    ],
)
def test_audit_names_what_is_wrong(tmp_path, capsys, row, message):
    write(tmp_path / "part.parquet", [*ROWS, row])
    assert main(["audit", str(tmp_path), "--sample", "8"]) == 1
    printed = capsys.readouterr().out
    assert "FAILS" in printed
    assert message in printed


def test_audit_finds_rewards_that_pay_for_anything(tmp_path, capsys):
    rows = [(str(i), [f"a common text {i}"], "ocrtext", "easy", None) for i in range(4)]
    write(tmp_path / "part.parquet", rows)
    assert main(["audit", str(tmp_path / "part.parquet")]) == 1
    assert "other answer" in capsys.readouterr().out


def test_audit_without_data_is_an_error(tmp_path, capsys):
    assert main(["audit", str(tmp_path / "none")]) == 2
    assert "no data at" in capsys.readouterr().err


def test_explain_from_file_and_standard_input(tmp_path, capsys, monkeypatch):
    completion = "<think>I count five.</think><answer>**5 apples**</answer>"
    arguments = ["explain", "--answer-type", "number", "--answer", "5", "--prompt-type", "think"]
    file = tmp_path / "completion.txt"
    file.write_text(completion)
    assert main([*arguments, str(file)]) == 0
    from_file = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO(completion))
    assert main(arguments) == 0
    assert capsys.readouterr().out == from_file
    for line in (
        "unwrapped     '5 apples'",
        "read 5, reference 5",
        "accuracy",
        "format",
        "total         0.9000",
    ):
        assert line in from_file
    assert main([*arguments[:2], "integer", *arguments[3:], str(file)]) == 2
    assert "integer" in capsys.readouterr().err


def count(counters, completion, answer, answer_type, **options):
    counters.add(score_local(completion, answer, answer_type, **options), completion, answer, answer_type)


def test_counters_by_hand():
    counters = RewardCounters()
    for completion in (
        "<answer>A</answer>",
        "<answer>A</answer>",
        "<answer>A</answer><answer>B</answer>",
        "none",
    ):
        count(counters, completion, "B", "multiple-choice")
    assert counters.numbers() == {
        "no_answer_reward": 0.0,
        "several_answers": 0.25,
        "constant_answer/multiple-choice": pytest.approx(2 / 3),
        "option_position_bias": pytest.approx(2 / 3),  # A 2/3, B 1/3 against B always
        "options_chosen/A": pytest.approx(2 / 3),
        "options_chosen/B": pytest.approx(1 / 3),
        "options_correct/B": 1.0,
    }


def test_counters_see_whole_image_boxes():
    counters = RewardCounters()
    spec = {"image_size": [100, 100]}
    count(counters, "<answer>[0, 0, 100, 100]</answer>", "[10, 10, 20, 20]", "bbox", spec=spec)
    count(counters, "<answer>[10, 10, 20, 20]</answer>", "[10, 10, 20, 20]", "bbox", spec=spec)
    assert counters.numbers()["whole_image_boxes"] == 0.5


def test_answers_in_the_thinking_are_not_several():
    assert num_answers("<think><answer>A</answer></think><answer>B</answer>") == 1
    assert num_answers("\\boxed{1} \\boxed{2}") == 2


def test_total_variation_ends():
    from collections import Counter

    assert total_variation(Counter("AABB"), Counter("AB")) == 0.0
    assert total_variation(Counter("AA"), Counter("B")) == 1.0
