"""Servers and trainers: the pipeline model with shared prompts, measured lengths, and the shipped splits."""

import json
from dataclasses import replace

import pytest

from tests.benchmarks.test_pipeline_simulation import FIXED
from tests.utils.doctor.machines import ROOT, node
from trains import gate
from trains.arguments import read
from trains.config import Config
from trains.file_gate import Missing
from trains.metrics import _histogram
from utils.doctor import lengths as length_files
from utils.doctor import report as doctor
from utils.doctor import split
from utils.doctor.pipeline_model import Group, Server, simulate
from utils.doctor.plan import make_plan
from utils.training_file import read_sections

SHORT, THINKING = length_files.SHORT, length_files.THINKING
LONG = (1500, 0.9)


def plan_of(name):
    config, _ = read(["--config", str(ROOT / "configs" / f"{name}.yaml")], Config)
    return config, make_plan(config, node())


def assumed(shape, config):
    return length_files.assumed("a test", shape, prompt=400.0, longest=config.gconfig.max_new_tokens)


# --- the model ---------------------------------------------------------------------------------------------------


def test_the_trainer_computes_a_prompt_once_for_its_group():
    """2 groups of 2 answers of 10 tokens behind prompts of 90, at 0.01 s a token: 2 x (90 + 20) = 220 tokens, 2.2 s;
    one by one 2 x 2 x 100 = 400. Rollout, reward and exchange take 1.75 s. Parts of at most 100 tokens hold one answer.
    """
    p = replace(FIXED, train_fixed_seconds=0, train_seconds_per_token=0.01, prompt_tokens=90)
    assert simulate(p).step_seconds == pytest.approx(1.75 + 4.0)
    shared = replace(p, share_prompts=True)
    assert simulate(shared).step_seconds == pytest.approx(1.75 + 2.2)
    assert simulate(replace(shared, tokens_per_mb=100)).step_seconds == pytest.approx(1.75 + 4.0)
    assert simulate(replace(shared, tokens_per_mb=110)).step_seconds == pytest.approx(1.75 + 2.2)
    images = replace(shared, train_seconds_per_prompt=0.3)  # one of each group, two groups
    assert simulate(images).step_seconds == pytest.approx(1.75 + 2.2 + 0.6)
    assert simulate(replace(images, share_prompts=False)).step_seconds == pytest.approx(1.75 + 4.0 + 1.2)


def test_a_server_reads_the_prompt_of_a_group_once_until_the_weights_change():
    """1 s for the first of the group, 0.1 s for its next one; another group pays 1 s again, and so do all after."""
    server = Server(replace(FIXED, prefill_seconds=1.0, shared_prefill_seconds=0.1, max_running_requests=9))
    one, two = Group([], 0, False), Group([], 0, False)
    server.queue.extend([(10.0, one), (10.0, one), (10.0, two)])
    server.admit(0)
    assert server.stall == pytest.approx(1.0 + 0.1 + 1.0)
    server.stall = 0.0
    server.interrupt()
    assert server.stall == pytest.approx(1.0 + 0.1 + 1.0)
    apart = Server(replace(FIXED, prefill_seconds=1.0, max_running_requests=9))
    apart.queue.extend([(10.0, one), (10.0, one)])
    apart.admit(0)
    assert apart.stall == pytest.approx(2.0)


def test_a_group_stays_on_one_server():
    """Two servers with one place each and a group of 2 answers of 1 s: 1 s where they part, 2 s where they stay."""
    p = replace(FIXED, num_servers=2, max_running_requests=1, groups_per_step=1, train_fixed_seconds=0.0)
    assert simulate(p).step_seconds == pytest.approx(1.0 + 0.25 + 0.5)
    assert simulate(replace(p, has_affinity=True)).step_seconds == pytest.approx(2.0 + 0.25 + 0.5)


# --- lengths -----------------------------------------------------------------------------------------------------


def test_lengths_of_a_run(tmp_path):
    """Two steps of 4 answers behind prompts of 100 tokens; the sample has the histogram's shape."""
    lines = []
    for lengths in ([10, 10, 20, 40], [10, 10, 20, 20]):
        answers = sum(lengths)
        lines.append(
            {"num_rollouts": 4, "num_tokens": answers, "num_sequence_tokens": 400 + answers}
            | {"length_histogram": _histogram(lengths)}
        )
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = length_files.read(tmp_path, longest=64)
    assert found.prompt == 100
    n = len(found.answers)
    assert [found.answers.count(size) / n for size in (10, 19, 38)] == [0.5, 0.375, 0.125]
    assert found.median in (10, 19)


def test_lengths_of_a_rehearsal(tmp_path):
    """Three quarters think: how long nobody knows; the others are as long as their references."""
    facts = {
        "prompt_mean": 300.0,
        "references": {"12": 3, "30": 1},
        "thinking_share": 0.75,
        "is_bytes": False,
    }
    page = tmp_path / "rehearsal.json"
    page.write_text(json.dumps({"lengths": facts}))
    found = length_files.read(tmp_path, longest=4096)
    assert found.prompt == 300.0
    n = len(found.answers)
    assert found.answers.count(12) / n == pytest.approx(0.75 * 0.25, abs=0.01)
    assert sorted(found.answers)[round(n * 0.625)] == pytest.approx(600, rel=0.02), (
        "the median of those that think"
    )
    assert "assumed answers of 600 tokens" in found.what
    page.write_text(json.dumps({"lengths": facts | {"is_bytes": True}}))
    with pytest.raises(ValueError, match="counted bytes"):
        length_files.read(tmp_path, longest=4096)
    page.write_text(json.dumps({"problems": ["no data"]}))
    with pytest.raises(ValueError, match="before it had measured any"):
        length_files.read(page, longest=4096)
    with pytest.raises(ValueError, match=r"wanted a run's folder with metrics\.jsonl"):
        length_files.read(tmp_path / "nowhere", longest=4096)


def test_the_doctor_names_a_bad_lengths_path_as_a_problem(arguments, tmp_path):
    found = doctor.examine(arguments("llavaov15-8b_stage1_grpo"), node(), lengths=tmp_path / "gone")
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"--lengths {tmp_path}/gone: wanted")


# --- recommendations ---------------------------------------------------------------------------------------------


def test_the_doctor_recommends_by_measured_lengths(arguments, tmp_path, monkeypatch):
    """A split 6 % slower than the best is not kept, one 4 % slower is."""
    record = {"num_rollouts": 2, "num_tokens": 60, "num_sequence_tokens": 860}
    (tmp_path / "metrics.jsonl").write_text(
        json.dumps(record | {"length_histogram": {"20": 1, "40": 1}}) + "\n"
    )
    speeds = {1: 90.0, 2: 100.0, 3: 97.0, 4: 94.0, 5: 80.0, 6: 70.0, 7: 60.0}
    seen = []

    def result(p):
        seen.append(p)
        return type("Result", (), {
            "tokens_per_second": speeds[p.num_servers], "trainer_wait_share": 0.0, "step_seconds": 5.0,
        })  # fmt: skip

    monkeypatch.setattr(split, "simulate", result)
    found = doctor.examine(arguments("llavaov15-8b_stage1_grpo"), node(), lengths=tmp_path)
    text = doctor.report(found, with_splits=True)
    assert {(p.prompt_tokens, p.share_prompts, p.median_tokens) for p in seen} == {(400, True, 40.0)}
    assert "servers + trainers, for " in text
    assert [line.split()[:3] for line in text.splitlines() if "<- recommended" in line] == [["2", "+", "6:"]]
    assert "to take it: allocation_mode=sglang:d2+fsdp:d6 train_dataset.batch_size=30" in text
    assert "7 + 1:" not in text, "one rank has no room for 8B"
    speeds[4] = 96.0
    text = doctor.report(found, with_splits=True)
    assert [line.split()[:3] for line in text.splitlines() if "<- recommended" in line] == [["4", "+", "4:"]]
    assert "to take it" not in text
    assert "servers + trainers" not in doctor.report(found)


def test_what_sharing_saves_is_in_the_parameters():
    config, plan = plan_of("llavaov15-8b_stage1_grpo")
    lengths = assumed(SHORT, config)
    fused = split.parameters(plan, lengths, 4, 4, 32)
    config.loss.proximal_pass = "separate"
    separate = split.parameters(plan, lengths, 4, 4, 32)
    assert separate.train_seconds_per_token / fused.train_seconds_per_token == pytest.approx(5 / 4)
    assert fused.shared_prefill_seconds < 0.1 * fused.prefill_seconds
    config.actor.share_prompts = False
    assert not split.parameters(plan, lengths, 4, 4, 32).share_prompts


SHIPPED = [("llavaov15-8b_stage1_grpo", SHORT), ("splits/llavaov15-4b_stage2_5x3_grpo", LONG)]
MORE = [
    ("llavaov15-8b_stage2_grpo", THINKING), ("llavaov15-4b_stage1_grpo", SHORT),
    ("llavaov15-4b_stage2_grpo", THINKING), ("qwen25vl-3b_stage1_grpo", SHORT),
]  # fmt: skip


def within_five_percent_of_the_best(name, shape):
    config, plan = plan_of(name)
    found = split.splits(plan, assumed(shape, config))
    ours = next(s for s in found if (s.servers, s.trainers) == (plan.server_gpus, plan.train_gpus))
    assert ours.tokens_per_second >= 0.95 * found[0].tokens_per_second
    assert ours.batch == config.train_dataset.batch_size
    return found


@pytest.mark.parametrize(("name", "shape"), SHIPPED)
def test_a_shipped_split_is_within_five_percent_of_the_best(name, shape):
    found = within_five_percent_of_the_best(name, shape)
    if "splits/" in name:
        other = next(s for s in found if s.servers == 4)
        assert other.tokens_per_second < 0.95 * found[0].tokens_per_second, "otherwise nobody needs the file"


@pytest.mark.long
@pytest.mark.parametrize(("name", "shape"), MORE)
def test_the_other_shipped_splits_too(name, shape):
    within_five_percent_of_the_best(name, shape)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/splits").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_split_changes_nothing_else(path):
    assert f"splits/{path.stem}" in dict(SHIPPED)
    assert f"--config configs/splits/{path.name}" in path.read_text()
    config, _ = read(["--config", str(path)], Config)
    base = next(p for p in ROOT.glob("configs/*.yaml") if f"../{p.stem}@" in path.read_text())
    usual, _ = read(["--config", str(base)], Config)
    assert all(isinstance(text, Missing) for text in gate.problems(config))
    assert config.experiment_name == usual.experiment_name, "the next stage finds it"
    changed = {
        key for key in vars(config) if key != "allocation" and getattr(config, key) != getattr(usual, key)
    }
    assert changed <= {"allocation_mode", "train_dataset", "rollout"}
    config.train_dataset.batch_size = usual.train_dataset.batch_size
    config.rollout.consumer_batch_size = usual.rollout.consumer_batch_size
    assert (config.train_dataset, config.rollout) == (usual.train_dataset, usual.rollout)
    assert read_sections(path, ["prompts"]) == read_sections(base, ["prompts"])
