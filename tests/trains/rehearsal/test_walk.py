"""A whole rehearsal, and what its checks of the records call a problem."""

import json
from pathlib import Path

import pytest

from trains.arguments import read
from trains.config import Config
from trains.rehearsal import all as every
from trains.rehearsal import walk

STAGES = ("llavaov15-8b_stage1_grpo", "llavaov15-8b_stage2_grpo")
CONFIG = ["trains/grpo.py", "--config", f"configs/{STAGES[0]}.yaml"]


@pytest.mark.long  # `make rehearse` walks these files, too
@pytest.mark.timeout(900)
def test_8b_stage_1_then_stage_2_from_its_manifest(tmp_path, capfd):
    """bfloat16, the direct exchange, every answer type of the published layout, a resume and an export in both."""
    status = every.main(["--output", str(tmp_path / "all"), "--workers", "1", *STAGES])
    assert status == 0, capfd.readouterr().out
    pages = []
    for stage in ("llavaov15-8b-stage1", "llavaov15-8b-stage2"):
        run = tmp_path / "all/rehearsal" / stage / "trial0"
        page = json.loads((run / "rehearsal.json").read_text())
        pages.append(page)
        assert (page["verdict"], page["problems"]) == ("ready", [])
        assert [(step["step"], step["version"]) for step in page["steps"]] == [(1, 0), (2, 1), (3, 2)]
        assert page["steps"][-1]["buffer"]["consumed"] == 3 * 8
        assert all(0 < step["parity_max"] < 2e-2 for step in page["steps"])
        assert len(page["audit"]) >= 11
        assert set(page["references"].values()) == {1.0}
        assert page["written"]["export"].endswith("the same model")
        rollouts = [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]
        assert all(rollout["is_reference"] for step in rollouts for rollout in step["rollouts"])
    assert "built-in" in pages[0]["model"]
    assert pages[1]["model"].startswith(f"{tmp_path}/all/rehearsal/llavaov15-8b-stage1/trial0/final as it is")


@pytest.fixture
def config():
    return read([*CONFIG, "actor.freeze_projector=true"], Config)[0]


def step(number, **changes):
    norms = {"vision_block_00": 0.1, "projector": 0.0, "language_model": 2.0}
    return {"step": number, "gradient_norms": norms, "parity_mean": 1e-3, "parity_max": 1e-2, **changes}


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, None),
        ({"gradient_norms": {"vision_block_00": 0.0, "projector": 0.0}}, "in vision_block_00:"),
        ({"gradient_norms": {"language_model": float("nan")}}, "in language_model:"),
        ({"parity_mean": 0.06}, "differ by 0.06 nats"),
        ({"parity_mean": float("nan")}, "differ by nan nats"),
        ({"parity_mean": 0.017, "parity_max": 0.26}, None),  # rounding, on random Qwen models
        ({"parity_max": 0.7}, "differ by 0.7 nats in a token"),
        ({"step": 3}, "holds steps [1, 3], wanted [1, 2]"),
    ],
)
def test_steps(change, wanted, config, tmp_path):
    records = [step(1), step(2) | change]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    problems = walk.check_steps(tmp_path, config, [1, 2])[1]
    assert len(problems) == (wanted is not None)
    assert wanted is None or wanted in problems[0]


def test_references(tmp_path):
    """A reference that is not rewarded, unless the audit has said so already."""
    rollout = {"source": "s", "status": "ok", "id": "a", "accuracy": 1.0, "is_reference": True}
    rollouts = [rollout | {"answer_type": "number", "accuracy": 0.0}, rollout | {"answer_type": "bbox"}]
    drawn = {key: value for key, value in rollout.items() if key != "is_reference"} | {"answer_type": "any"}
    (tmp_path / "rollouts.jsonl").write_text(json.dumps({"step": 1, "rollouts": [*rollouts, drawn]}))
    means, problems = walk.check_references(tmp_path, {("s", "number"), ("s", "bbox")})
    assert means == {"s, number": 0.0, "s, bbox": 1.0}
    assert len(problems) == 1
    assert problems[0].startswith("s, number: the reference answer as a rollout scored 0.000")
    assert walk.check_references(tmp_path, {("s", "bbox")})[1] == []


def test_what_was_not_written_is_a_problem(config, tmp_path):
    names = f"{config.experiment_name}/{config.trial_name}"
    folder = tmp_path / names / "final"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(2**20))
    found, problems = walk.written(tmp_path, config)
    assert found == {"final checkpoint": f"{names}/final (1.0 MiB)"}
    assert [problem.split(":")[0] for problem in problems] == [
        "no checkpoint for people was written",
        "no recovery was written",
    ]
    walk.forget(tmp_path, config.experiment_name, config.trial_name)
    assert not (tmp_path / names).exists()
    assert tmp_path.exists()


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["[grpo] step 1/2", "[grpo] stopped by ParityError: far", "[launcher] ended"], "stopped by ParityError"),
        (["[launcher] started", "[launcher] llm_server/0 exited with status 1"], "[launcher] llm_server/0 exited"),
        (["[launcher] remark: a", "Traceback", "KeyError: 'x'", ""], "KeyError: 'x'"),
        ([], "no output"),
    ],
)  # fmt: skip
def test_why_a_launch_failed(lines, wanted):
    assert walk.cause(lines).startswith(wanted)


def test_paths_of_the_real_runs_are_left_alone():
    words = every.arguments_for(STAGES[1], Path("elsewhere"))
    config = read(words, Config)[0]
    assert config.cluster.fileroot == "elsewhere"
    assert [part["path"] for part in config.train_dataset.mixture] == [
        "elsewhere/data/stage2-long",
        "elsewhere/data/stage1-normal",
    ]
    assert [part["weight"] for part in config.train_dataset.mixture] == [0.9, 0.1]
