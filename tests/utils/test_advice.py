"""Each illness is named by the right advice within 20 steps, and a healthy run by none."""

import random

import pytest

from tests.utils.viewer.runs import healthy_record
from utils.advice import advise
from utils.advice_rules import RULES

SICK_FROM = 11
CUDA = {"device": "cuda", "parity_limit": 1e-3}


def run(change=None, num_steps=60, seed=0):
    """Records of a run that learns; from step SICK_FROM on `change` is applied to each, with how far it has gone."""
    rng = random.Random(seed)
    records = [healthy_record(step, num_steps, rng=rng) for step in range(1, num_steps + 1)]
    for record in records[SICK_FROM - 1 :] if change else ():
        change(record, min((record["step"] - SICK_FROM + 1) / 10, 1.0))
    return records


def put(**values):
    """A change that sets numbers, `a__b` inside of a section."""

    def change(record, share):
        for name, value in values.items():
            *sections, key = name.split("__")
            place = record
            for section in sections:
                place = place.setdefault(section, {})
            place[key] = value(share) if callable(value) else value

    return change


PLANTED = {
    "too stale": put(gap_mean=4.0, waiting_share=0.0),
    "weights capped": put(behavior_capped=0.05),
    "few tokens count": put(effective_sample_size=0.3),
    "entropy falling": put(entropy=0.02, reward=0.4),
    "entropy rising": put(entropy=lambda share: 0.3 + 3 * share, reward=lambda share: 0.4 - 0.3 * share),
    "all groups equal": put(groups_without_signal=1.0, reward=0.5),
    "every answer is paid": put(groups_without_signal=1.0, reward=1.0),
    "no answer is paid": put(groups_without_signal=1.0, reward=0.0),
    "answers are cut off": put(truncated=0.4),
    "longer without reward": put(length_mean=lambda share: 12 + 40 * share, reward=0.4),
    "paid without an answer": put(hacking__no_answer_reward=0.4),
    "several answers": put(hacking__several_answers=0.9),
    "always the same answer": put(
        **{"hacking__constant_answer/number": 0.99, "by_answer_type__number": {"solved": 0.2}}
    ),
    "the letter's place decides": put(
        hacking={
            "options_chosen/A": 0.9,
            "options_chosen/B": 0.1,
            "options_correct/A": 0.25,
            "options_correct/B": 0.25,
            "options_correct/C": 0.5,
        }
    ),
    "boxes over everything": put(hacking__whole_image_boxes=0.8),
    "drawings of nothing": put(hacking__no_better_than_blank=0.95),
    "reward collapses": put(reward=lambda share: 0.5 - 0.45 * share),
    "the policy moves too fast": put(behavior_kl=0.4),
    "KL rising": put(reference_kl=lambda share: 0.5 * share),
    "parity drifting": put(parity_mean=2e-3),
    "the trainer waits": put(waiting_share=0.8),
    "work thrown away": lambda record, _: record["buffer"].update(evicted=6 * (record["step"] - SICK_FROM)),
    "verifiers fail": put(statuses__timeout=0.1),
    "gradient not finite": put(num_skipped=1, grad_norm=float("nan")),
}


def test_few_questions_a_step_are_no_bias():
    """Three questions in each step, of four letters: chosen and correct ones always differ, but not in the mean."""
    rng = random.Random(0)

    def chance(record, _):
        for kind in ("chosen", "correct"):
            letters = [rng.choice("ABCD") for _ in range(3)]
            shares = {f"options_{kind}/{letter}": letters.count(letter) / 3 for letter in letters}
            record["hacking"] |= shares

    assert advise(run(chance, num_steps=200)) == []


def test_every_rule_has_its_illness():
    assert {rule.name for rule in RULES} == PLANTED.keys() | {"held-out falls"}


@pytest.mark.parametrize("name", PLANTED)
def test_an_illness_is_named_within_twenty_steps(name):
    records = run(PLANTED[name])
    for record in records:
        record.setdefault("reference_kl", 0.01)
    said = {item.name: item for item in advise(records, settings=CUDA)}
    assert name in said, said
    assert SICK_FROM <= said[name].step <= SICK_FROM + 20
    assert any(c.isdigit() for c in said[name].text), "with its number"
    before = [item for item in said.values() if item.step < SICK_FROM]
    assert not before


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_said_of_a_healthy_run(seed):
    evaluations = [
        {"step": step, "overall": {"accuracy": 0.5 + step / 200, "num_samples": 400}} for step in (0, 30, 60)
    ]
    assert advise(run(seed=seed), evaluations, CUDA) == []


def test_learning_the_verifier_and_not_the_task():
    evaluations = [
        {"step": step, "overall": {"accuracy": accuracy, "num_samples": 400}}
        for step, accuracy in ((20, 0.7), (50, 0.5))
    ]
    (item,) = advise(run(), evaluations)
    assert (item.name, item.step, item.last) == ("held-out falls", 51, 60)
    small = [{**record, "overall": {**record["overall"], "num_samples": 20}} for record in evaluations]
    assert advise(run(), small) == [], "twenty samples cannot tell"


def test_records_that_lack_numbers_or_hold_none_say_nothing():
    assert advise([{"step": step} for step in range(1, 40)]) == []
    assert advise([{**record, "reward": float("nan"), "entropy": None} for record in run()]) == []
    assert advise([]) == []


def test_a_finding_names_its_key():
    for rule in RULES:
        assert rule.reason
        assert any(word in rule.change for word in ("actor.", "rollout.", "loss.", "buffer.", "reward.", "gconfig.",
            "train_dataset", "prompts.", "allocation_mode", "spec", "rows")), rule.name  # fmt: skip
