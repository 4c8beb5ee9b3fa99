"""A run named in place of a checkpoint: where its manifest leads, and what is said when it leads nowhere."""

import json
from pathlib import Path

import pytest
from areal.api.cli_args import parse_cli_args

from trains import config as trains_config
from utils import run_manifest
from utils.checkpoint import cli as checkpoint
from utils.evaluate import cli as evaluate
from utils.evaluate import offline as evaluate_offline
from utils.run_manifest import checkpoint_of

ROOT = Path(__file__).resolve().parents[2]
STAGES = {
    "llavaov15-8b_stage2_grpo": "llavaov15-8b-stage1",
    "llavaov15-4b_stage2_grpo": "llavaov15-4b-stage1",
    "digits_cpu_stage2": "digits-stage1",
}


def make_run(folder, *, finished=True, steps=(), **changes):
    """A run's folder as `trains/report.py` leaves it, with a checkpoint that has no weights."""
    (folder / "final").mkdir(parents=True)
    (folder / "final" / "config.json").write_text("{}")
    manifest = {
        "finished": finished,
        "checkpoint": str(folder / "final") if finished else None,
        "total_steps": 60,
        **changes,
    }
    (folder / "run.json").write_text(json.dumps(manifest))
    if steps:
        lines = [json.dumps({"step": step}) for step in steps]
        (folder / "metrics.jsonl").write_text(
            "\n".join([*lines, '{"step": 9'])
        )  # the last line is half written
    return folder


def test_a_run_stands_for_its_checkpoint(tmp_path):
    run = make_run(tmp_path / "run")
    assert checkpoint_of(run) == checkpoint_of(run / "run.json") == str(run / "final")


@pytest.mark.parametrize("path", ["lmms-lab/model", "./nowhere", ""])
def test_any_other_path_stays_as_it_is(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checkpoint_of(path) == path


def test_a_checkpoint_stays_even_beside_a_manifest(tmp_path):
    run = make_run(tmp_path / "run", finished=False)
    assert checkpoint_of(run / "final") == str(run / "final")


def test_a_manifest_may_name_a_checkpoint_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(Path("one"))
    run = make_run(Path("two"), checkpoint="one/saved")
    Path("one/final").rename("one/saved")
    assert checkpoint_of(run) == "one/saved"


def test_a_moved_run_keeps_its_checkpoint(tmp_path, monkeypatch):
    """The old place holds another run's checkpoint by now."""
    monkeypatch.chdir(tmp_path)
    make_run(Path("run")).rename("archived")
    make_run(Path("run"))
    assert checkpoint_of("archived") == "archived/final"


def remove_checkpoint(run):
    (run / "final" / "config.json").unlink()


ERRORS = {
    "no manifest": (
        {},
        lambda run: (run / "run.json").unlink(),
        r"there is no .*run\.json; that run has to be trained first",
    ),
    "unfinished": (
        {"finished": False, "steps": (36, 37)},
        None,
        r"has not finished \(step 37 of 60 is the last in metrics\.jsonl\); wait for it, start it again .*recover",
    ),
    "no step yet": (
        {"finished": False},
        None,
        r"has not finished \(no step in metrics\.jsonl\); wait for it",
    ),
    "checkpoint gone": (
        {},
        remove_checkpoint,
        r"names the checkpoint .*final, which is gone: .* train the run again",
    ),
    "of an evaluation": (
        {},
        lambda run: (run / "run.json").write_text('{"model": "x"}'),
        r"is not the manifest of a training run: finished and checkpoint are wanted",
    ),
    "half written": (
        {},
        lambda run: (run / "run.json").write_text('{"fini'),
        r"run\.json cannot be read: Untermin",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_a_run_lacks_is_named(name, tmp_path):
    options, spoil, message = ERRORS[name]
    run = make_run(tmp_path / "run", **options)
    if spoil is not None:
        spoil(run)
    with pytest.raises(ValueError, match=message):
        checkpoint_of(run / "run.json")


def parse(*argv):
    return parse_cli_args(["trains/grpo.py", "--config", *argv])[0]


@pytest.mark.parametrize("stem", STAGES)
def test_stage_2_starts_where_stage_1_of_its_trial_ended(stem, tmp_path):
    run = make_run(tmp_path / STAGES[stem] / "seed1")
    argv = [str(ROOT / "configs" / f"{stem}.yaml"), f"cluster.fileroot={tmp_path}", "trial_name=seed1"]
    config = parse(*argv)
    overrides = run_manifest.hand_over(config)
    for found in (config, parse(*argv, *overrides)):
        assert found.actor.path == found.sglang.model_path == found.tokenizer_path == str(run / "final")


def test_the_reference_may_be_a_run_and_names_need_no_care(tmp_path):
    """Commas, spaces, quotes and equals signs mean something in an override."""
    run = make_run(tmp_path / "lr=1e-6, it's one")
    argv = [str(ROOT / "configs" / "digits_cpu_stage1.yaml"), f'ref={{path: "{run}"}}']
    overrides = run_manifest.hand_over(parse(*argv))
    assert len(overrides) == 1
    assert parse(*argv, *overrides).ref.path == str(run / "final")


def test_a_wrong_run_is_named_with_its_key(tmp_path):
    run = make_run(tmp_path / "run", finished=False)
    config = parse(str(ROOT / "configs" / "digits_cpu_stage1.yaml"), f"actor.path={run}")
    with pytest.raises(ValueError, match=rf"^actor\.path='{run}': .*has not finished"):
        run_manifest.hand_over(config)


def test_the_trainer_itself_resolves_a_run(tiny_checkpoint, digits_data, tmp_path):
    """Started without a launcher (torchrun), `load` finds what `check` tells the launchers."""
    run = make_run(tmp_path / "stage1", checkpoint=str(tiny_checkpoint))
    remove_checkpoint(run)
    argv = [
        "--config",
        str(ROOT / "configs" / "digits_cpu_stage1.yaml"),
        f"actor.path={run}",
        f"train_dataset.path={digits_data}/stage1/train.parquet",
        f"valid_dataset.path={digits_data}/stage1/heldout.parquet",
        f"cluster.fileroot={tmp_path}/runs",
        f"cluster.name_resolve.nfs_record_root={tmp_path}/names",
    ]
    assert trains_config.check(argv) == [f"++actor.path={tiny_checkpoint}"]
    config = trains_config.load(argv)
    assert config.actor.path == config.sglang.model_path == str(tiny_checkpoint)
    again = trains_config.load([*argv, f"++actor.path={tiny_checkpoint}"])
    assert again.actor.path == str(tiny_checkpoint)


def test_the_tools_take_a_run(tiny_checkpoint, tmp_path, capsys):
    run = make_run(tmp_path / "run", checkpoint=str(tiny_checkpoint))
    remove_checkpoint(run)
    assert checkpoint.main(["verify", str(run)]) == 0
    assert f"{tiny_checkpoint}: layout" in capsys.readouterr().out
    words = ["--model", str(run), "--output", str(tmp_path / "out")]
    assert evaluate.main([*words, "--tasks", "docvqa", "--mode", "fast", "--write-only"]) == 0
    assert (tmp_path / "out" / "model" / "config.json").resolve() == (
        tiny_checkpoint / "config.json"
    ).resolve()
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["model"] == str(tiny_checkpoint)

    unfinished = make_run(tmp_path / "unfinished", finished=False)
    words = ["--model", str(unfinished), "--output", str(tmp_path / "out")]
    assert (
        checkpoint.main(["export", str(unfinished), str(tmp_path / "e"), "--original", str(tiny_checkpoint)])
        == 1
    )
    assert evaluate.main([*words, "--tasks", "docvqa", "--mode", "fast", "--write-only"]) == 1
    assert evaluate_offline.main([*words, "--data", "none.parquet"]) == 1
    assert capsys.readouterr().err.count("has not finished") == 3
