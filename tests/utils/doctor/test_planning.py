"""Before there is a checkpoint: plans, keys that were meant, words of the command line, files found behind links."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from areal.api import cli_args
from areal.launcher import preflight

from llavaonevision1_5 import tiny
from tests.utils.doctor.machines import FILES, GIB, ROOT, machine_for, node
from trains.demo.tokenizer import VOCAB_SIZE
from utils.doctor import known_models
from utils.doctor import report as doctor
from utils.doctor.model_sizes import Architecture


def test_every_misspelt_key_is_named_by_its_full_name(arguments):
    wrong = ["actor.optimizer.lrr=1", "actor.lr=1", "los.eps_clip=0.1", "zzz=1"]
    fine = ["+train_dataset.columns.problem=question", "+reward.verifiers.mine=a.py:score"]
    found = doctor.examine(arguments("llavaov15-4b_stage1_grpo", *wrong, *fine), node()).problems
    hints = [
        re.match(r"(\S+) is not a key of this configuration(?:; did you mean (\S+)\?)?", line)
        for line in found
    ]
    assert [hint.groups() for hint in hints] == [
        ("actor.optimizer.lrr", "actor.optimizer.lr"),
        ("actor.lr", "actor.optimizer.lr"),
        ("los.eps_clip", "loss.eps_clip"),
        ("zzz", None),
    ]


@pytest.mark.parametrize("stem", [stem for stem in FILES if "cpu" not in stem])
def test_a_shipped_configuration_is_planned_without_checkpoint_and_data(
    stem, tmp_path, monkeypatch, arguments
):
    monkeypatch.chdir(tmp_path)
    words = ["--config", str(ROOT / "configs" / f"{stem}.yaml")]
    bare = doctor.examine(words, machine_for(stem))
    assert bare.status == 3, bare.problems
    assert {text.split("=")[0].split("[")[0] for text in bare.missing} >= {"actor.path"}
    with_files = doctor.examine(arguments(stem), machine_for(stem))
    assert bare.plan.model == with_files.plan.model, "the named model has the sizes of its config.json"
    assert doctor.memory_table(bare.plan) == doctor.memory_table(with_files.plan)
    assert "planned with the sizes of" in doctor.report(bare)
    assert "MISSING: actor.path=" in doctor.report(bare)
    assert doctor.examine(words, machine_for(stem), gpu_memory_bytes=24 * GIB).plan is not None
    unknown = doctor.examine([*words, "actor.path=./pretrained/mine"], machine_for(stem))
    assert unknown.plan is None
    assert any(text.startswith("no plan: ./pretrained/mine names none of") for text in unknown.remarks)


SHIPPED = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.stem != "base")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_file_has_a_plan_and_names_all_that_is_missing(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    diagnosis = doctor.examine(["--config", str(path)], machine_for(path.stem))
    assert diagnosis.problems == []
    assert diagnosis.status == 3
    keys = {text.split("=")[0].partition("[")[0].removesuffix(".path") for text in diagnosis.missing}
    data = "train_dataset.mixture" if "stage2" in path.stem else "train_dataset"
    assert keys >= {"actor", data}
    assert "planned with the sizes of" in doctor.report(diagnosis)
    assert "\n  optimizer" in doctor.report(diagnosis)


def test_the_demos_model_has_the_demos_sizes():
    built = tiny.build_config()
    built.text_config.vocab_size = VOCAB_SIZE
    name, config = known_models.config_of("./runs/digits-stage1/demo")
    assert name == known_models.DEMO
    assert Architecture.from_config(config) == Architecture.from_config(built.to_dict())
    assert known_models.config_of("./pretrained/tiny-llavaov15") == (name, config)
    assert known_models.config_of("./pretrained/tiny-llavaov150") is None


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("LLaVA-OneVision-1.5-4B", 4.74), ("LLaVA-OneVision-1.5-8B", 8.53), ("Qwen2-VL-2B", 2.21),
        ("Qwen2-VL-7B", 8.29),
        ("Qwen2.5-VL-3B", 3.75), ("Qwen2.5-VL-7B", 8.29), ("Qwen3-VL-2B", 2.13), ("Qwen3-VL-4B", 4.44),
        ("Qwen3-VL-8B", 8.77),
    ],
)  # fmt: skip
def test_known_models_have_their_published_size(name, billions):
    for path in (
        f"./pretrained/{name}-Instruct",
        f"runs/{name.lower().replace('-', '_')}/final",
        f"org/{name}",
    ):
        found, config = known_models.config_of(path)
        assert found == name
    assert Architecture.from_config(config).parameters / 1e9 == pytest.approx(billions, abs=0.01)
    assert known_models.config_of(f"./{name}0-Instruct".replace("B0", "0B")) is None


def test_the_dry_run_refuses_what_a_launch_refuses_and_plans_without_files(arguments, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=2000 * GIB))
    words = arguments("digits_cpu_stage1", "+enable_offload=true", "--dry-run")
    with pytest.raises(preflight.ConfigurationError, match=r"enable_offload=True has no effect"):
        preflight.load(["trains/grpo.py", *words], "local")
    absent = arguments("llavaov15-8b_stage1_grpo", "actor.path=./llavaov15-8b")
    with pytest.raises(SystemExit) as end:
        preflight.load(["trains/grpo.py", *absent, "--dry-run"], "local")
    assert end.value.code == 3
    out = capsys.readouterr().out
    assert "MISSING: actor.path='./llavaov15-8b'" in out
    assert "trainer rank 3" in out
    with pytest.raises(preflight.ConfigurationError, match=r"actor\.path='./llavaov15-8b'"):
        preflight.load(["trains/grpo.py", *absent], "local")


@pytest.mark.parametrize("launcher", ["local", "ray", "slurm"])
def test_help_is_no_error(launcher, capsys):
    with pytest.raises(SystemExit) as end:
        preflight.load(["--help"], launcher)
    assert end.value.code == 0
    assert f"usage: python -m areal.launcher.{launcher} ENTRY.py --config" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to run was named"),
        (["configs/base.yaml"], "the first word is 'configs/base.yaml', wanted an entry script"),
        (["trains/nope.py"], "entry script trains/nope.py does not exist"),
        (["trains/grpo.py", "--confg", "x"], "unknown option --confg"),
        (["trains/grpo.py", "seed=1"], "no --config FILE was given"),
        (["trains/grpo.py", "--config"], "no --config FILE was given"),
        (["trains/grpo.py", "--config", "nope.yaml"], "--config nope.yaml does not exist"),
        (
            ["trains/grpo.py", "--config", "configs/base.yaml", "seed"],
            "'seed' is no override; wanted key=value",
        ),
    ],
)
def test_a_usage_error_is_the_error_and_one_line(words, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(preflight.ConfigurationError) as error:
        preflight.load(words, "local")
    first, usage = str(error.value).splitlines()
    assert first.startswith(message)
    assert usage.startswith("usage: ")


def test_a_virtual_environment_behind_a_link_reads_this_checkouts_configuration(tmp_path):
    """hydra resolves the link of AReaL's module before it goes up from there: the neighbour's file was read."""
    package = Path(cli_args.__file__).resolve().parents[2]
    neighbour, here = tmp_path / "neighbour", tmp_path / "here"
    for folder, seed in ((neighbour, 1), (here, 2)):
        (folder / "configs").mkdir(parents=True)
        (folder / "configs" / "x.yaml").write_text(f"seed: {seed}\n")
    (neighbour / "a" / "b" / "areal" / "api").mkdir(parents=True)
    shutil.copyfile(
        package / "areal" / "api" / "cli_args.py", neighbour / "a" / "b" / "areal" / "api" / "cli_args.py"
    )
    (here / "a").symlink_to(neighbour / "a")
    program = (
        "import areal, sys; areal.__path__.insert(0, 'a/b/areal'); import areal.api; "
        "areal.api.__path__.insert(0, sys.argv[2] + '/a/b/areal/api'); sys.modules.pop('areal.api.cli_args'); "
        "import areal.api.cli_args as c; import areal.api; areal.api.cli_args = c; "
        "from areal.launcher import resolve_links; resolve_links() if sys.argv[1] == 'yes' else None; "
        "print(c.parse_cli_args(['--config', 'configs/x.yaml'])[0].seed)"
    )
    seeds = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program, resolve, str(here)],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-1]
        for resolve in ("no", "yes")
    ]
    assert seeds == ["1", "2"]


def test_a_dry_run_with_a_problem_exits_as_a_refusal_does(monkeypatch):
    found = doctor.Diagnosis(problems=["key=1: wanted 2"], missing=["no checkpoint"])
    monkeypatch.setattr(doctor, "examine", lambda argv: found)
    text, status = doctor.describe(["--config", "any.yaml"])
    assert "PROBLEM: key=1: wanted 2" in text
    assert "MISSING: no checkpoint" in text
    assert status == 2
    found.problems.clear()
    assert doctor.describe(["--config", "any.yaml"])[1] == 3
