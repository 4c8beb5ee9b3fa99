"""`python -m areal.launcher.local`: real steps with real servers, and every way in which a run can end."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from areal.launcher import local, supervisor
from safetensors.torch import load_file

from dataset.prompts import PromptConfig
from llavaonevision1_5 import sglang_environment
from trains import report
from trains.buffer import NoSignalError
from trains.guards import ParityError
from trains.metrics import flat
from utils import metric_names
from utils.checkpoint import cli as checkpoint

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "configs/digits_cpu_stage1.yaml"
ENDS_WITHIN_SECONDS = 30


def start(arguments, **options):
    return subprocess.Popen(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "areal.launcher.local",
            "trains/grpo.py",
            "--config",
            CONFIG,
            *arguments,
        ],
        cwd=ROOT,
        stderr=subprocess.STDOUT,
        text=True,
        **{"stdout": subprocess.PIPE, **options},
    )


def first_line_with(process, text, timeout=240):
    deadline, seen = time.monotonic() + timeout, []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return line
        assert time.monotonic() < deadline, "".join(seen)
    raise AssertionError(f"ended without {text!r}:\n" + "".join(seen))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_real_steps(overrides, published_checkpoint, digits_data, tmp_path):
    """From a published checkpoint to an exported one; the run starts from an earlier run, as stage 2 does."""
    prepared, earlier = tmp_path / "prepared", tmp_path / "earlier"
    assert checkpoint.main(["prepare", str(published_checkpoint), str(prepared)]) == 0
    earlier.mkdir()
    (earlier / "run.json").write_text(json.dumps({"finished": True, "checkpoint": str(prepared)}))
    penalised = with_length_penalty(f"{digits_data}/stage1/train.parquet", tmp_path / "train.parquet")
    overrides = [*overrides, f"actor.path={earlier}", f"train_dataset.path={penalised}"]
    overrides.append(
        f"gconfig.stop_token_ids=[258,{','.join(map(str, range(32)))}]"
    )  # answers of all lengths
    process = start([*overrides, "total_train_steps=2"])
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    run = tmp_path / "runs" / "digits-stage1" / "demo"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in steps] == [1, 2]
    assert all(record["num_rollouts"] == 16 for record in steps)
    assert all(metric_names.differences(flat(record)) == ([], []) for record in steps), (
        "documented and recorded"
    )
    assert steps[0]["parity_tokens"] > 0
    assert max(record["parity_max"] for record in steps) < 1e-4
    assert all(0 <= record["gap_max"] <= 4 for record in steps)
    assert all(min(record["gradient_norms"].values()) > 0 for record in steps)
    assert "held-out accuracy after step 2" in output
    assert not orphans(tmp_path)
    assert f"[launcher] resolved: ++actor.path={prepared}" in output
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["started_from"] == str(prepared)
    assert PromptConfig(**manifest["prompts"]) == PromptConfig()
    assert f"--model-path {prepared} " in next(tmp_path.rglob("llm_server.log")).read_text()
    assert_exports(run, published_checkpoint, tmp_path / "exported")


def with_length_penalty(source, target):
    """The same data with a reward that falls with length: random weights solve nothing, and equal rewards have no
    gradient.
    """
    table = pq.read_table(source)
    penalty = {"overlong": {"max_tokens": 24, "buffer_tokens": 24}}
    specs = [json.dumps({**json.loads(text or "{}"), **penalty}) for text in table["spec"].to_pylist()]
    column = table.schema.get_field_index("spec")
    pq.write_table(table.set_column(column, "spec", pa.array(specs)), target)
    return target


def assert_exports(run, published, exported):
    """Trained weights, and everything else as it was published; the same answers from both folders to the last bit."""
    assert checkpoint.main(["export", str(run), str(exported), "--original", str(published)]) == 0
    before, after = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in (published, exported))
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == ["model.safetensors"]
    old, trained, new = (
        load_file(folder / "model.safetensors") for folder in (published, run / "final", exported)
    )
    assert {name: (t.shape, t.dtype) for name, t in old.items()} == {
        name: (t.shape, t.dtype) for name, t in new.items()
    }
    assert all(torch.equal(new[name], trained[name]) for name in new)
    assert not [name for name in new if torch.equal(new[name], old[name])], "two steps change every weight"
    assert checkpoint.main(["verify", str(run), str(exported), "--new-tokens", "8"]) == 0
    assert checkpoint.main(["verify", str(published), str(exported), "--new-tokens", "8"]) == 1


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_killed_trainer_is_started_again_and_goes_on_where_it_was(overrides, tmp_path):
    """`kill -9` between checkpoints: steps done since the last one are repeated with the same prompts, none is lost."""
    process = start(
        [
            *overrides,
            "total_train_steps=6",
            "valid_dataset=null",
            "evaluator.eval_before_train=false",
            "recover.mode=on",
            "recover.freq_steps=2",
            "recover.retries=1",
        ]
    )
    try:
        first_line_with(process, "step 3/")
        trainer(process).kill()
        output, _ = process.communicate(timeout=280)
    finally:
        process.kill()
    assert process.returncode == 0, output
    run = tmp_path / "runs" / "digits-stage1" / "demo"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in steps] == [1, 2, 3, 4, 5, 6]
    assert [record["version"] for record in steps] == [0, 1, 2, 3, 4, 5]
    assert [record["buffer"]["consumed"] for record in steps] == [4, 8, 12, 16, 20, 24]
    assert all(0 <= record["gap_max"] <= 4 for record in steps)
    assert max(record["parity_max"] for record in steps) < 1e-4, "the servers got the recovered weights"
    samples = [sample for record in steps for sample in record["sample_ids"]]
    assert len(set(samples)) == len(samples) == 24, "a prompt was trained on twice"
    assert not orphans(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "victim",
    ["trainer", *(pytest.param(name, marks=pytest.mark.long) for name in ("scheduler", "interrupt"))],
)
def test_every_end_is_quick_clean_and_named(victim, overrides, tmp_path):
    settings = [
        "total_train_steps=10000",
        "evaluator.eval_before_train=false",
        "launcher.max_server_restarts=0",
    ]
    process = start([*overrides, *settings])
    try:
        first_line_with(process, "step 1/")
        began = time.monotonic()
        if victim == "interrupt":
            process.send_signal(signal.SIGINT)
        else:
            target = scheduler(process) if victim == "scheduler" else trainer(process)
            target.kill()
        output, _ = process.communicate(timeout=ENDS_WITHIN_SECONDS + 30)
        assert time.monotonic() - began < ENDS_WITHIN_SECONDS
        if victim == "interrupt":
            assert process.returncode == 130
            assert "interrupted" in output
        else:
            assert process.returncode not in (0, 2)
            name = "llm_server" if victim == "scheduler" else "trainer"
            assert re.search(rf"\[launcher\] {name}/0 .*; its log: .*{name}\.log", output), output
        assert not orphans(tmp_path)
    finally:
        process.kill()


def scheduler(launcher):
    return [p for p in descendants(launcher) if matches(p, "sglang::scheduler")][-1]


def trainer(launcher):
    """The rank itself: torchrun's child, and not the verifiers that it forked."""
    ranks = [p for p in descendants(launcher) if matches(p, r"python.* trains/grpo\.py")]
    return next(p for p in ranks if matches(p.parent(), "torch.distributed.run"))


def descendants(launcher):
    return psutil.Process(launcher.pid).children(recursive=True)


def matches(process, pattern):
    try:
        return re.search(pattern, " ".join(process.cmdline())) or re.search(pattern, process.name())
    except psutil.Error:
        return None


def orphans(tmp_path):
    """Processes that still have this run's folder on their command line."""
    mine = os.getpid()
    return [
        p.info["cmdline"]
        for p in psutil.process_iter(["pid", "cmdline"])
        if p.info["pid"] != mine and any(str(tmp_path) in word for word in p.info["cmdline"] or ())
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("actor.path=/nowhere/model", "actor.path='/nowhere/model'"),
        ("actor.optimiser.lr=1e-3", "optimiser"),
        ("allocation_mode=sglang:d1+torch:d1", "allocation_mode='sglang:d1+torch:d1'"),
        ("allocation_mode=d1", "every part needs its backend"),
        ("gconfig.top_p=0.9", "gconfig.top_p=0.9"),
        ("gconfig.temperature=0.5", None),  # actor.temperature follows it
        ("actor.temperature=0.5", "actor.temperature=0.5 must equal gconfig.temperature=1.0"),
        ("gconfig.n_samples=1", "group_size = 1"),
        ("loss.behavior_cap=null", "behavior_cap = null"),
        ("train_dataset.path=./data/not-there", "train_dataset.path='./data/not-there' does not exist"),
        ("train_dataset.max_length=4096", "exceed sglang.context_length=2048"),
        ("rollout.consumer_batch_size=5", "rollout.consumer_batch_size=5 must be train_dataset.batch_size=4"),
        ("actor.num_minibatches=3", "actor.num_minibatches=3 does not divide"),
        ("loss.kl_coefficient=0.1 ref.path=null", "ref.path=null with loss.kl_coefficient=0.1"),
        ("loss.kl_coefficient=0.1 ref.path=./nowhere", "ref.path='./nowhere': there is no checkpoint"),
    ],
)
def test_a_wrong_setting_is_one_message_and_starts_nothing(change, message, overrides, capsys, monkeypatch):
    started = []
    monkeypatch.setattr(local.areal_local, "local_main", started.append)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["local"])
    status = local.main(["trains/grpo.py", "--config", CONFIG, *overrides, *change.split()])
    error = capsys.readouterr().err
    if message is None:
        assert status == 0, error
        assert started
    else:
        assert status == 2
        assert message in error
        assert "Traceback" not in error
        assert not started


@pytest.mark.parametrize("argv", [[], ["trains/grpo.py"], ["trains/none.py", "--config", CONFIG]])
def test_a_wrong_command_line_shows_the_usage_or_the_missing_file(argv, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert local.main(argv) == 2
    assert "[launcher]" in capsys.readouterr().err


@pytest.fixture(autouse=True)
def adopts_nobody_afterwards():
    """A `SupervisedLauncher` made here turns this very process into a parent of orphans."""
    yield
    supervisor._libc.prctl(supervisor.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def launcher_with(command, tmp_path):
    launcher = supervisor.SupervisedLauncher("experiment", "trial", str(tmp_path))
    launcher.submit("trainer", command)
    return launcher


def test_the_trainers_exit_status_is_kept_and_its_children_end(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = tmp_path / "failing.py"
    script.write_text(
        "import subprocess, sys\n"
        "subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "print('[grpo] a line for people', flush=True)\n"
        "print('the reason', file=sys.stderr, flush=True)\n"
        "sys.exit(7)\n"
    )
    launcher = launcher_with(f"python3 {script}", tmp_path)
    try:
        with pytest.raises(supervisor.JobException):
            launcher.wait()
        assert launcher.status == 7
        assert "trainer/0 exited with status 7" in launcher.failure
        assert "the reason" in launcher.failure
    finally:
        launcher.stop_all()
    assert not [p for p in psutil.Process().children(recursive=True) if "1000" in p.cmdline()]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ParityError("x"), "CANCELLED"),
        (NoSignalError("x"), "CANCELLED"),
        (ValueError("wrong data"), "CANCELLED"),
        (RuntimeError("out of memory"), "FAILED"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_error_that_would_come_again_starts_nothing_again(error, reason, tmp_path, capsys):
    """AReaL starts a job again that is FAILED, not one that is CANCELLED; what an earlier start said does not count."""
    with pytest.raises(type(error)), report.reported_failure():
        raise error
    said = capsys.readouterr().out
    script = tmp_path / "failing.py"
    script.write_text(f"import sys; print({said!r}); print('Traceback ...'); sys.exit(int(sys.argv[1]))\n")
    launcher = launcher_with(f"python3 {script} 3", tmp_path)
    try:
        with pytest.raises(supervisor.JobException) as ended:
            launcher.wait()
        assert ended.value.reason.name == reason
        launcher.stop_all()
        launcher.submit("trainer", "python3 -c 1/0")
        with pytest.raises(supervisor.JobException) as ended:
            launcher.wait()
        assert ended.value.reason.name == "FAILED"
    finally:
        launcher.stop_all()


def test_the_tail_shows_the_cause_and_not_torchruns_frames():
    log = b"""=== 2026-01-01 00:00:00 earlier start
E1126 12:00:00.0 1 torch/distributed/elastic/multiprocessing/api.py:984] failed (exitcode: 1) local_rank: 0
=== 2026-01-02 00:00:00 torchrun trains/grpo.py
W1126 12:00:00.0 1 torch/distributed/run.py:851] Setting OMP_NUM_THREADS
Traceback (most recent call last):
  File "trains/grpo.py", line 3
OSError: No space left on device

W1126 12:00:01.0 1 torch/distributed/elastic/multiprocessing/api.py:1010] Sending process 7 closing signal SIGTERM
E1126 12:00:01.0 1 torch/distributed/elastic/multiprocessing/api.py:984] failed (exitcode: 1) local_rank: 0 (pid: 6)
Traceback (most recent call last):
  File "torch/distributed/run.py", line 9
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
"""
    lines = supervisor.last_words(log).splitlines()
    assert lines[0].startswith("=== 2026-01-02")
    assert lines[-1] == "OSError: No space left on device"
    assert supervisor.last_words(b"") == ""


def test_orphans_are_reaped_while_the_run_goes_on(tmp_path):
    """One that nobody waits for would fill the process table of a long run."""
    script = tmp_path / "leaving.py"
    script.write_text(
        "import subprocess, sys, time, psutil\n"
        "for _ in range(5): subprocess.run(['sh', '-c', 'sleep 0.1 &'])\n"
        "time.sleep(0.1 + 1.0)\n"
        "dead = [p for p in psutil.Process().parent().children() if p.status() == psutil.STATUS_ZOMBIE]\n"
        "sys.exit(len(dead))\n"
    )
    launcher = launcher_with(f"python3 {script}", tmp_path)
    try:
        launcher.wait()
    finally:
        launcher.stop_all()


def test_lines_for_people_reach_the_console_and_others_only_the_log(tmp_path, capsys):
    script = tmp_path / "good.py"
    script.write_text(
        "import sys; print('[grpo] step 1'); print('chatter'); print('(AReaL) 20260101 X INFO: noise');"
        "sys.stdout.write('not ended')\n"
    )
    launcher = launcher_with(f"python3 {script}", tmp_path)
    try:
        launcher.wait()
    finally:
        launcher.stop_all()
    output = capsys.readouterr().out
    assert "[grpo] step 1" in output
    assert "chatter" not in output
    log = Path(launcher.log_path_of("trainer"))
    lines = log.read_text().splitlines()
    assert lines[1].startswith("=== ")
    assert lines[2:] == ["[grpo] step 1", "chatter", "not ended"]
    assert "INFO: noise" in log.with_name("trainer.full.log").read_text()


@pytest.mark.parametrize("name", ["local", "ray", "slurm"])
def test_every_launcher_hands_on_the_checkpoint_of_an_earlier_run(
    name, overrides, tiny_checkpoint, tmp_path, monkeypatch
):
    (tmp_path / "run.json").write_text(json.dumps({"finished": True, "checkpoint": str(tiny_checkpoint)}))
    nodes = f"cluster.n_nodes={1 if name == 'local' else 2}"
    words = ["trains/grpo.py", "--config", CONFIG, *overrides, f"actor.path={tmp_path}", nodes]
    seen = []

    def areal_main(config):
        assert sglang_environment().items() <= config.rollout.scheduling_spec[0].env_vars.items()
        seen.append(sys.argv[1:])

    areal_launcher = importlib.import_module(f"areal.infra.launcher.{name}")
    monkeypatch.setattr(areal_launcher, f"{name}_main", areal_main)
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr("ray._private.services.canonicalize_bootstrap_address", lambda _: "127.0.0.1:1")
    monkeypatch.setattr("areal.launcher.ray_jobs.answers", lambda _: True)
    monkeypatch.setattr("areal.launcher.slurm.COMMANDS", ())
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [name, *words])
    assert importlib.import_module(f"areal.launcher.{name}").main() == 0
    assert seen == [[*words, f"++actor.path={tiny_checkpoint}"]], "AReaL starts every process with these"


@pytest.mark.parametrize("name", ["ray", "slurm"])
def test_an_allocation_that_is_not_made_of_whole_nodes_is_one_message(name, overrides, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = ["trains/grpo.py", "--config", CONFIG, *overrides, "cluster.n_nodes=1"]
    assert importlib.import_module(f"areal.launcher.{name}").main(words) == 2
    assert "cluster.n_nodes=1 nodes have cluster.n_gpus_per_node=1 each" in capsys.readouterr().err


def test_an_unfinished_run_starts_nothing(overrides, tmp_path, capsys, monkeypatch):
    (tmp_path / "run.json").write_text(json.dumps({"finished": False, "checkpoint": None, "total_steps": 60}))
    (tmp_path / "metrics.jsonl").write_text('{"step": 37}\n')
    monkeypatch.setattr(local.areal_local, "local_main", lambda *_: pytest.fail("started"))
    monkeypatch.chdir(ROOT)
    words = ["trains/grpo.py", "--config", CONFIG, *overrides, f"actor.path={tmp_path}"]
    assert local.main(words) == 2
    assert f"actor.path='{tmp_path}': {tmp_path}/run.json says" in (error := capsys.readouterr().err)
    assert "step 37 of 60" in error
