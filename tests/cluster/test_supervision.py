"""What the launchers make of Slurm's answers and of AReaL's command lines; the daemons are in test_slurm.py."""

import json
import shlex
import subprocess
import sys

import pytest
from areal.launcher import cluster, slurm_jobs

ARGUMENTS = [
    "train.py",
    "--config",
    "c.yaml",
    "cluster.fileroot=/two words",
    'data.columns={a: "b"}',
    "x=$HOME",
]


def areal_trainer(arguments):
    """As AReaL's Slurm launcher writes it."""
    words = " ".join(map(shlex.quote, arguments))
    inner = (
        f"export A=1;\ntorchrun --nnodes=1 --master-addr=$head_node_ip --master-port=$trainer_port {words}"
    )
    escaped = inner.replace('"', '\\"')
    return f'bash -c "{escaped}"'


def test_a_trainers_command_survives_spaces_quotes_and_dollars(tmp_path):
    argv = slurm_jobs.command_of(areal_trainer(ARGUMENTS))
    shown = argv[2].replace(
        " -m torch.distributed.run", ' -c "import json, sys; print(json.dumps(sys.argv))"'
    )
    done = subprocess.run(
        [argv[0], argv[1], shown],
        env={"head_node_ip": "10.0.0.1", "trainer_port": "4000"},
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = ["--nnodes=1", "--master-addr=10.0.0.1", "--master-port=4000", *ARGUMENTS]
    assert json.loads(done.stdout)[1:] == wanted


def test_a_servers_command_becomes_ours():
    words = " ".join(map(shlex.quote, ARGUMENTS))
    text = f"python3 -m areal.infra.launcher.sglang_server {words} sglang.random_seed=1"
    wanted = [sys.executable, "-m", "areal.launcher.sglang_server", *ARGUMENTS, "sglang.random_seed=1"]
    assert slurm_jobs.command_of(text) == wanted


def test_jobs_get_the_environment_of_the_launcher_but_for_what_belongs_to_its_machine(monkeypatch):
    for name in (
        "TMPDIR",
        "CUDA_VISIBLE_DEVICES",
        "SLURM_JOB_ID",
        "RAY_ADDRESS",
        "WANDB_API_KEY",
        "TMP_ROOT",
    ):
        monkeypatch.setenv(name, "x")
    carried = cluster.carried_environment()
    assert {"WANDB_API_KEY", "TMP_ROOT", "PATH"} <= carried.keys()
    assert not {"TMPDIR", "CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "RAY_ADDRESS"} & carried.keys()


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """A launcher with a server (job 1) and a trainer (job 2); `answers` is what Slurm's commands say."""
    answers = {"sbatch": iter(["1\n", "2\n"]), "squeue": "", "scontrol": "", "sacct": None}
    asked = []

    def ask(command):
        asked.append(command)
        answer = answers.get(command[0], "")
        if command[0] == "sbatch":
            answer = next(answers["sbatch"])
        if answer is None:
            return subprocess.CompletedProcess(command, 1, "", "Slurm accounting storage is disabled")
        return subprocess.CompletedProcess(command, 0, answer, "")

    monkeypatch.setattr(slurm_jobs, "_ask", ask)
    monkeypatch.setattr(slurm_jobs, "ASK_SECONDS", 0.0)
    made = slurm_jobs.SupervisedSlurmLauncher("experiment", "trial", str(tmp_path / "two words"), "none")
    common = {"count": 1, "nodes": 1, "n_gpus_per_node": 1, "cpus_per_task": 2, "mem_per_task": 2048}
    for name, command in (("llm_server", "python3 -m x"), ("trainer", areal_trainer(["train.py"]))):
        made.submit_array(job_name=name, cmd=command, container_image="", env_vars={"A": "b,c d"}, **common)
    made.answers, made.asked = answers, asked
    return made


def state(launcher, name, **values):
    (launcher.job_folder / f"{name}.0.json").write_text(json.dumps({"host": "beta", **values}))


@pytest.mark.parametrize(
    ("squeue", "wanted", "reason"),
    [
        ("2|TIMEOUT|beta|TimeLimit", "trainer (Slurm job 2, beta) ran into its time limit", "FAILED"),
        ("2|CANCELLED|beta|None", "was cancelled (scancel)", "CANCELLED"),
        ("2|NODE_FAIL|beta|NodeDown", "was lost with its node", "FAILED"),
        ("2|OUT_OF_MEMORY|beta|None", "for want of memory", "FAILED"),
        ("2|PREEMPTED|beta|None", "was preempted", "FAILED"),
        ("2|SPECIAL_EXIT|beta|None", "is SPECIAL_EXIT, ExitCode 3:0", "FAILED"),
    ],
)
def test_every_end_has_its_name(squeue, wanted, reason, launcher):
    launcher.answers["squeue"] = f"1|RUNNING|alpha|None\n{squeue}\n"
    launcher.answers["scontrol"] = "JobId=2 ExitCode=3:0"
    with pytest.raises(cluster.JobException) as failure:
        launcher.wait()
    assert wanted in launcher.failure
    assert failure.value.reason.name == reason, "only what failed is submitted again"
    assert launcher.status != 0


def test_the_exit_status_is_the_commands_own(launcher, capsys):
    launcher.answers["squeue"] = "1|RUNNING|alpha|None\n2|FAILED|beta|NonZeroExitCode\n"
    state(launcher, "trainer", state="ended", status=7, how="exited with status 7", stopped=False)
    (launcher.folder / "trainer.log").write_text("the reason\n")
    with pytest.raises(cluster.JobException):
        launcher.wait()
    assert launcher.status == 7
    assert "exited with status 7 on beta; its log: " in (error := capsys.readouterr().err)
    assert "the reason" in error


def test_a_server_that_ends_is_a_failure_and_a_trainer_that_ends_is_not(launcher):
    launcher.answers["squeue"] = "1|RUNNING|alpha|None\n2|COMPLETED|beta|None\n"
    launcher.wait()
    launcher.answers["squeue"] = "1|COMPLETED|alpha|None\n2|RUNNING|beta|None\n"
    with pytest.raises(cluster.JobException):
        launcher.wait()
    assert "llm_server (Slurm job 1, alpha)" in launcher.failure


def test_jobs_that_slurm_has_forgotten_are_known_by_what_they_left(launcher):
    """Slurm forgets a job after MinJobAge, and has no accounting everywhere."""
    launcher.answers["squeue"] = "1|RUNNING|alpha|None\n"
    state(launcher, "trainer", state="ended", status=0, how="exited with status 0", stopped=False)
    launcher.wait()
    state(launcher, "trainer", state="running", pid=1)
    with pytest.raises(cluster.JobException):
        launcher.wait()
    assert "is no longer known to Slurm" in launcher.failure


def test_a_waiting_job_says_why_once(launcher, capsys):
    launcher.answers["squeue"] = "1|PENDING||Resources\n2|PENDING||Priority\n"
    for _ in range(3):
        launcher.check_alive()
    assert not launcher.has_started()
    assert capsys.readouterr().out.count("llm_server (Slurm job 1) waits: Resources") == 1


def test_stopping_cancels_every_job_and_leaves_no_description(launcher):
    assert list(launcher.job_folder.glob("*.description"))
    launcher.stop_all()
    assert ["scancel", "1", "2"] in launcher.asked
    assert not list(launcher.job_folder.glob("*.description"))
