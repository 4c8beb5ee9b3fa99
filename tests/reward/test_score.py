import pytest

import reward
from reward.extract import MAX_COMPLETION_CHARS
from reward.parts.shaping import repetition_penalty, soft_overlong_penalty
from reward.parts.think_bbox import think_bbox_score
from reward.registry import ANSWER_TYPES, VERIFIERS
from reward.score import failed, score_local, score_quick
from reward.spec import COMMON

LONG = "I look at the picture and count what I see, then I check it once more. " * 3
THOUGHT = f"<think>{LONG}</think>"
BOXED = "\\boxed{5} "


@pytest.mark.parametrize("answer_type", ANSWER_TYPES)
def test_the_defaults_of_a_verifier_are_new_parameters_or_change_a_common_one(answer_type):
    defaults = VERIFIERS[answer_type].defaults
    assert all(COMMON[name] != value for name, value in defaults.items() if name in COMMON)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("x", "5", "integer"), "answer_type"),
        (("x", [], "number"), "answer"),
        (("x", "", "number"), "answer"),
        (("x", "  ", "any"), "answer"),
        (("x", ["5", ""], "number"), r"answer\[1\]"),
        (("x", [None], "number"), r"answer\[0\]"),
        (("x", [float("nan")], "number"), r"answer\[0\]"),
        (("x", [[]], "any"), r"answer\[0\]"),
        (("x", "five or six", "number"), "answer"),
        ((None, "5", "number"), "completion"),
    ],
)
def test_our_errors_name_the_field(arguments, field):
    with pytest.raises(ValueError, match=field):
        score_local(*arguments)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"prompt_type": "long"}, "prompt_type"),
        ({"progress": 1.5}, "progress"),
        ({"spec": {"tolerence": 1}}, "tolerence"),
        ({"spec": {"verifier": "numbers"}}, "verifier"),
        ({"spec": {"weights": {"accuracy": -1}}}, "weights"),
        ({"spec": {"weights": {"accuracy": 0}}}, "weights"),
        ({"spec": {"weights": {"speed": 1}}}, "weights"),
        ({"spec": [1]}, "spec"),
        ({"spec": {"overlong": {"max_tokens": 10, "buffer_tokens": 5}}}, "num_tokens"),
    ],
)
def test_bad_options_name_the_field(options, field):
    with pytest.raises(ValueError, match=field):
        score_local("<answer>5</answer>", "5", "number", **options)


@pytest.mark.parametrize(
    ("completion", "accuracy", "status"),
    [
        ("<answer>5</answer>", 1.0, "ok"),
        ("\\boxed{5}", 1.0, "ok"),
        ("<answer>6</answer>", 0.0, "ok"),
        ("<answer>five or six</answer>", 0.0, "unparseable"),
        ("5", 0.0, "no_answer"),
        ("", 0.0, "no_answer"),
        ("<answer></answer>", 0.0, "no_answer"),
        ("<answer>" + "5" * 3000 + "</answer>", 0.0, "rejected"),
        ("<answer>5</answer>" + " " * MAX_COMPLETION_CHARS, 0.0, "rejected"),
        ("<answer>\ud800</answer>", 0.0, "unparseable"),
        ("<answer>\x005</answer>", 0.0, "unparseable"),
    ],
)
def test_statuses(completion, accuracy, status):
    output = score_local(completion, "5", "number")
    assert (output.parts["accuracy"], output.status, output.total) == (accuracy, status, accuracy)


def test_best_of_several_references_counts():
    assert score_local("<answer>5</answer>", ["4", "5"], "number").total == 1.0


def format_of(completion, prompt_type, **spec):
    return score_local(completion, "5", "number", prompt_type=prompt_type, spec=spec).parts["format"]


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (f"{THOUGHT}<answer>5</answer>", 1),
        (f"{THOUGHT}\nThe answer is \\boxed{{5}}.", 1),
        (f"{THOUGHT}<answer>5</answer><answer>6</answer>", 1),
        (f"Well. {THOUGHT}<answer>5</answer><|im_end|>", 1),
        ("<answer>5</answer>", 0),
        (f"{THOUGHT}5", 0),
        (f"{THOUGHT}<answer>5", 0),
        (f"{THOUGHT}<answer></answer>", 0),
        (f"<think>{LONG}<answer>5</answer>", 0),
        (f"{LONG}</think><answer>5</answer>", 0),
        (f"{THOUGHT}{THOUGHT}<answer>5</answer>", 0),
        (f"<think>{THOUGHT}</think><answer>5</answer>", 0),
        (f"<answer>5</answer>{THOUGHT}", 0),
        (f"<think></think>{LONG}<answer>5</answer>", 0),
        (f"<think>x</think><answer>{LONG}</answer>", 0),
        (f"<think>x</think>\\boxed{{{LONG}}}", 0),
        (f"<think>{LONG}<answer>5</answer></think>", 0),
        (f"{THOUGHT}{'<answer>55555</answer>' * 3}", 1),
        (f"{THOUGHT}{'<answer>5</answer>' * 9}", 0),
        (f"{THOUGHT}{BOXED * 5}", 1),
        (f"{THOUGHT}{BOXED * 9}", 0),
        (f"<think>{LONG}{BOXED * 9}</think><answer>5</answer>", 0),
        (f"{THOUGHT}<answer>{BOXED * 5}</answer>", 1),  # a box within the answer counts once
    ],
)
def test_format_of_a_thinking_prompt(completion, expected):
    assert format_of(completion, "think") == expected


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<answer>5</answer>", 1),
        ("\\boxed{5}", 1),
        ("The answer is <answer>5</answer>.", 1),
        ("<answer>5</answer><|im_end|>", 1),
        ("5", 0),
        ("<think>x</think><answer>5</answer>", 0),
        ("<think></think><answer>5</answer>", 0),
        ("x</think><answer>5</answer>", 0),
        (f"{LONG}<answer>5</answer>", 0),
        ("", 0),
    ],
)
def test_format_of_an_answer_only_prompt(completion, expected):
    assert format_of(completion, "answer") == expected


def test_answer_may_fill_a_fifth_of_the_completion():
    # 100 characters: <think> + 55 + </think> + <answer> + 13 + </answer>; a fifth is 20
    for num_answer, expected in ((20, 1), (21, 0)):
        thinking = "x" * (100 - 32 - num_answer)
        completion = f"<think>{thinking}</think><answer>{'5' * num_answer}</answer>"
        assert len(completion) == 100
        assert format_of(completion, "think") == expected
    assert format_of(f"<think>x</think><answer>{'5' * 99}</answer>", "think", max_answer_fraction=1.0) == 1


def total(completion, **spec):
    return score_local(completion, "5", "number", prompt_type="think", spec=spec).total


def test_weights_are_normalised():
    good, bare, wrong = f"{THOUGHT}<answer>5</answer>", "<answer>5</answer>", f"{THOUGHT}<answer>6</answer>"
    assert total(good) == pytest.approx(1.0)
    assert total(bare) == pytest.approx(0.9)
    assert total(wrong) == 0.0  # the format alone never pays
    assert total(wrong, format_needs_solved=False) == pytest.approx(0.1)
    assert total(bare, weights={"accuracy": 3, "format": 1}) == pytest.approx(0.75)
    assert total(bare, weights={"accuracy": 2}) == 1.0
    assert total(wrong, weights={"format": 1}) == 0.0


def test_format_pays_with_a_solved_graded_answer_alone():
    def graded(box):
        completion = f"{THOUGHT}<answer>{box}</answer>"
        return score_local(completion, "[0, 0, 10, 10]", "bbox", prompt_type="think").total

    assert graded("[0, 0, 10, 6]") == pytest.approx(0.9 * 0.6 + 0.1)
    assert graded("[0, 0, 10, 4]") == pytest.approx(0.9 * 0.4)  # IoU 0.4 is not solved


def test_another_verifier_by_spec():
    assert score_local("<answer>B</answer>", "b", "any", spec={"verifier": "multiple-choice"}).total == 1.0
    nested = {"verifier": "number", "params": {"tolerance": 0.5}}
    assert score_local("<answer>5.4</answer>", "5", "any", spec=nested).total == 1.0


def spatial(thinking, answer="5", problem_type="spatial", prompt_type="think"):
    completion = f"<think>{thinking} {LONG}</think><answer>{answer}</answer>"
    return score_local(completion, "5", "number", problem_type=problem_type, prompt_type=prompt_type)


def test_think_bbox_pays_only_with_a_correct_answer():
    boxes = "The cat is at [10, 20, 30, 40], the dog at [50, 60, 70, 80]."
    assert spatial(boxes).total == pytest.approx(1.0)
    assert spatial(boxes, "6").total == 0.0
    assert spatial("No boxes here.").total == pytest.approx(1.0 / 1.1)
    assert "think_bbox" not in spatial(boxes, problem_type="math").parts
    assert "think_bbox" not in spatial(boxes, prompt_type="answer").parts


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ("The cat (10, 20, 30, 40).", 1.0),
        ('{"bbox_2d": [10, 20, 30, 40], "label": "cat"}', 1.0),
        ("cat [10, 20, 30, 40], dog [30, 40, 10, 20]", 0.5),
        ("cat [10, 20, 30, 40], again [10, 20, 30, 40]", 0.5),
        ("[10, 20, 30, 40]", 0.0),
        ("the list [1, 2, 3]", 0.0),
        ("cat [nan, 1, 2, 3]", 0.0),
        ("cat [40, 30, 20, 10]", 0.0),
        ("cat [-5, 20, 30, 40]", 0.0),
        ("a cat and a dog", 0.0),
        ("".join(f"cat [0, 0, {i + 1}, 9]\n" for i in range(40)), 0.0),
    ],
)
def test_think_bbox_score(thinking, expected):
    assert think_bbox_score(f"<think>{thinking}</think><answer>5</answer>") == pytest.approx(expected)


def test_soft_overlong_penalty():
    values = [soft_overlong_penalty(n, 100, 20) for n in (0, 80, 85, 90, 100, 500)]
    assert values == pytest.approx([0, 0, -0.25, -0.5, -1, -1])
    spec = {"overlong": {"max_tokens": 100, "buffer_tokens": 20}}
    output = score_local("<answer>5</answer>", "5", "number", spec=spec, num_tokens=90)
    assert (output.total, output.parts["overlong"]) == (pytest.approx(0.5), pytest.approx(-0.5))


def test_repetition_penalty():
    assert repetition_penalty("a b c d e f", 2, 0.3) == 0.0
    assert repetition_penalty("a " * 100, 2, 0.0) == pytest.approx(-(1 - 1 / 99))
    assert repetition_penalty("a b a b", 2, 0.0) == pytest.approx(-1 / 3)
    assert repetition_penalty("a", 5, 0.3) == 0.0


def test_failures_of_a_worker_keep_the_other_parts():
    output = failed("timeout", f"{THOUGHT}<answer>x^2</answer>", "math-expressions", prompt_type="think")
    assert (output.total, output.status, output.extracted) == (0.0, "timeout", "x^2")
    assert output.parts == {"accuracy": 0.0, "format": 1.0}


def test_quick_decides_what_is_cheap_and_nothing_else():
    assert score_quick("<answer>5</answer>", "5", "math-expressions").total == 1.0
    assert score_quick("<answer>x</answer>", "x", "math-expressions") is None
    assert score_quick("<answer>abc</answer>", "abc", "ocrtext").total == 1.0
    assert score_quick("<answer>" + "a" * 9000 + "</answer>", "a" * 9000, "ocrtext") is None
    assert score_quick("<answer>B</answer>", "B", "multiple-choice").total == 1.0


def test_synchronous_score_reaches_workers():
    output = reward.score("<answer>(x+1)^2</answer>", "x^2+2x+1", "math-expressions", prompt_type="answer")
    assert (output.total, output.status) == (1.0, "ok")
    with pytest.raises(ValueError, match="answer"):
        reward.score("<answer>5</answer>", "???", "math-expressions")


def test_weights_on_a_verifiers_own_part_alone_do_not_make_a_bad_answer_an_error():
    spec = {"weights": {"iou": 1.0}}
    assert reward.score("<answer>[0, 0, 10, 10]</answer>", "[0, 0, 10, 10]", "bbox", spec=spec).total == 1.0
    for completion in ("no tags", "<answer>no box</answer>", "<answer>[9, 9, 1, 1]</answer>"):
        assert reward.score(completion, "[0, 0, 10, 10]", "bbox", spec=spec).total == 0.0


def test_a_verifier_that_raises_on_an_answer_scores_a_crash(monkeypatch):
    from reward.registry import VERIFIERS
    from reward.verifiers import number

    def broken(extracted, prepared, params):
        raise ValueError("a mistake of ours about the model's answer")

    monkeypatch.setitem(VERIFIERS, "number", number.VERIFIER._replace(verify=broken))
    output = reward.score("<answer>7</answer>", "7", "number")
    assert (output.total, output.status) == (0.0, "crash")


def test_equal_answers_to_a_costly_verifier_are_judged_once(monkeypatch):
    asked = []

    def verify(text, gold, params):
        asked.append(text)
        return VERIFIERS["any"].verify(text, gold, params)

    costly = VERIFIERS["any"]._replace(verify=verify, remembers=True)
    monkeypatch.setitem(VERIFIERS, "costly", costly)
    monkeypatch.setitem(ANSWER_TYPES, "costly", "costly")
    totals = [score_local(f"{p}<answer>{t}</answer>", "b", "costly").total for p in "xy" for t in ("a", "b")]
    assert (totals, asked) == ([0.0, 1.0, 0.0, 1.0], ["a", "b"])
    assert score_local("<answer>b</answer>", "a", "costly").total == 0.0  # another reference
    monkeypatch.setitem(VERIFIERS, "costly", costly._replace(remembers=False))
    assert score_local("<answer>b</answer>", "b", "costly").total == 1.0
    assert asked == ["a", "b", "b", "b"]


@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_progress_may_be_either_end(progress):
    assert reward.score("<answer>5</answer>", "5", "number", progress=progress).total == 1.0


def test_progress_moves_the_eps_of_a_box():
    answer = ("<answer>[0, 0, 10, 9]</answer>", "[0, 0, 10, 10]", "bbox")  # IoU 0.9
    spec = {"eps_schedule": True}
    assert score_local(*answer, spec=spec).parts["accuracy"] == pytest.approx(0.9)
    assert score_local(*answer, spec=spec, progress=0.05).parts["accuracy"] == pytest.approx(0.9)
    assert score_local(*answer, spec=spec, progress=0.5).parts["accuracy"] == 0.0
    assert score_quick(*answer, spec=spec, progress=0.5).parts["accuracy"] == 0.0


def test_the_longest_completion_is_still_read():
    answer = "<answer>5</answer>"
    assert score_local(answer.rjust(MAX_COMPLETION_CHARS), "5", "number").status == "ok"
    assert score_local(answer.rjust(MAX_COMPLETION_CHARS + 1), "5", "number").status == "rejected"


def test_a_mistake_in_a_spec_is_an_error_even_when_it_shows_late(monkeypatch):
    def broken(extracted, prepared, params):
        raise ValueError("spec.tolerance: shows late")

    monkeypatch.setitem(VERIFIERS, "number", VERIFIERS["number"]._replace(verify=broken))
    with pytest.raises(ValueError, match=r"spec\.tolerance"):
        score_quick("<answer>5</answer>", "5", "number")


def test_a_reference_that_cannot_be_read_is_an_error_also_without_an_answer():
    with pytest.raises(ValueError, match="answer: number cannot read"):
        score_quick("no answer", "five or six", "number")


def test_a_verifiers_accuracy_is_bounded_and_its_cost_known(monkeypatch):
    from reward.types import Verdict

    def generous(extracted, prepared, params):
        return Verdict(float(extracted))

    monkeypatch.setitem(VERIFIERS, "number", VERIFIERS["number"]._replace(verify=generous))
    totals = [score_local(f"<answer>{x}</answer>", "5", "number").parts["accuracy"] for x in (-3, 0.25, 7)]
    assert totals == [0.0, 0.25, 1.0]


def test_the_overlong_penalty_reaches_every_way_of_scoring():
    spec = {"overlong": {"max_tokens": 100, "buffer_tokens": 50}}
    for answer_type in ("number", "ocrtext"):
        output = score_quick("<answer>5</answer>", "5", answer_type, spec=spec, num_tokens=75)
        assert output.total == pytest.approx(0.5)


def test_a_remote_verifier_is_asked_about_answers_alone(monkeypatch):
    """And it sees the whole completion, as one of the user's own does; the others do not."""
    seen = []

    def verify(extracted, prepared, params):
        seen.append(params.get("completion"))
        return VERIFIERS["any"].verify(extracted, prepared, params)

    for options in ({"remote": True, "isolated": True}, {"open_params": True}, {}):
        monkeypatch.setitem(VERIFIERS, "boolean", VERIFIERS["any"]._replace(verify=verify, **options))
        score_local("<answer>5</answer>", "5", "boolean")
    assert seen == ["<answer>5</answer>", "<answer>5</answer>", None]

    monkeypatch.setitem(VERIFIERS, "boolean", VERIFIERS["any"]._replace(remote=True, isolated=True))
    assert score_quick("<answer>5</answer>", "5", "boolean") is None, "the pool asks"
    for completion, status in (
        ("5", "no_answer"),
        ("<answer></answer>", "no_answer"),
        ("<answer>5</answer>".rjust(MAX_COMPLETION_CHARS + 1), "rejected"),
        ("<answer>5</answer>".ljust(MAX_COMPLETION_CHARS + 1), "rejected"),
    ):
        assert score_quick(completion, "5", "boolean").status == status
