"""Whole runs with faults: whatever is killed or stopped, the records are those of a run where nothing was.

`SURVIVAL_SEED=7 make test-long` draws other victims and moments.
"""

import json
import os
import random
import re
import signal
import subprocess
import time

import pytest
from areal.launcher import live

from dataset.loader import create_dataloader
from tests.trains.test_launcher import descendants, matches, orphans, start, trainer, with_length_penalty

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

SEED = int(os.environ.get("SURVIVAL_SEED", "0"))
PHASES = ("rollout", "proximal", "update", "exchange", "save", "evaluate")
SERVER = ("sglang::scheduler", "sglang::detokenizer", "sglang_cpu.launch_server")
BATCH, ETA = 4, 2


class Launch:
    """A launch whose console is a file; `overrides` as on the command line."""

    def __init__(self, overrides, tmp_path):
        self.overrides, self.tmp_path = list(overrides), tmp_path
        self.run = tmp_path / "runs" / "digits-stage1" / "demo"
        self.console = tmp_path / "console"
        self.process = None

    def start(self):
        with self.console.open("a") as console:
            self.process = start(self.overrides, stdout=console)
        return self

    def text(self):
        return self.console.read_text()

    def until(self, condition, seconds=240, may_end=False):
        deadline = time.monotonic() + seconds
        while not condition():
            ended = self.process.poll() is not None
            assert may_end or not ended, self.text()
            assert time.monotonic() < deadline, self.text()
            if ended:
                return
            time.sleep(0.02)

    def is_in(self, phase, after=0):
        """Whether the trainer lives and is in that phase, `after` so many finished steps."""
        beat = live.Reader(self.run / live.NAME / "rank0.json", None).read()
        is_fresh = beat is not None and time.monotonic() - beat["written"] < 2.5
        return is_fresh and beat["step"] >= after and (phase is None or beat["phase"] == phase)

    def end(self):
        self.process.wait(timeout=600)
        return self.text()

    def records(self, name="metrics.jsonl"):
        path = self.run / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def processes(self, pattern):
        return [p for p in descendants(self.process) if matches(p, pattern)]


@pytest.fixture
def launch(overrides, tmp_path):
    made = []

    def make(*more):
        common = [f"rollout.max_head_offpolicyness={ETA}", "evaluator.eval_before_train=false"]
        made.append(Launch([*overrides, *common, *more], tmp_path))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and one.process.poll() is None:
            one.process.send_signal(signal.SIGTERM)
            try:
                one.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                one.process.kill()


def assert_undisturbed(launch, steps, order):
    """Every step once, every prompt at most once and none passed over, no token older than eta."""
    records = launch.records()
    assert [r["step"] for r in records] == list(range(1, steps + 1))
    assert [r["version"] for r in records] == list(range(steps))
    assert [r["buffer"]["consumed"] for r in records] == [BATCH * step for step in range(1, steps + 1)]
    assert max(r["gap_max"] for r in records) <= ETA
    assert max(r["parity_max"] for r in records) < 1e-4, "a server had other weights than the trainer"
    samples = [sample for r in records for sample in r["sample_ids"]]
    assert len(samples) == len(set(samples)) == BATCH * steps
    ahead = BATCH * (ETA + 1)
    assert set(samples) <= set(order[: len(samples) + ahead])
    assert set(order[: len(samples) - ahead]) <= set(samples), "a prompt was lost"


def data_order(overrides):
    """Ids of the training rows in the order in which a run draws them."""
    path = next(word.split("=")[1] for word in overrides if word.startswith("train_dataset.path="))
    model = next(word.split("=")[1] for word in overrides if word.startswith("actor.path="))
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(model, trust_remote_code=True)
    loader = create_dataloader(
        path, processor, batch_size=BATCH, shuffle=True, max_length=1024, rank=0, world_size=1, seed=219
    )
    return [row["id"] for rows in loader for row in rows]


def test_twenty_kills_and_the_records_of_an_undisturbed_run(launch, overrides, tmp_path):
    """Servers, verifiers, the trainer and the launcher, in all phases; the same command continues after the last."""
    draw = random.Random(SEED)
    victims = ["trainer"] * 2 + ["launcher"] * 2 + ["server"] * 6 + ["verifier"] * 10
    draw.shuffle(victims)
    steps = 120
    run = launch(
        f"total_train_steps={steps}",
        "recover.mode=on",
        "recover.freq_steps=2",
        "recover.retries=9",
        "launcher.max_server_restarts=30",
        "evaluator.freq_steps=3",
        "saver.freq_steps=10",
    ).start()
    killed = []
    for victim in victims:
        phase, after = draw.choice(PHASES), len(run.records())
        run.until(lambda phase=phase, after=after: run.is_in(phase, after), may_end=True)
        if run.process.poll() is not None:
            break
        killed.append((victim, phase))
        kill(run, victim, draw)
        if victim == "launcher":
            run.process.wait()
            run.until(lambda: not orphans(tmp_path), 60, may_end=True)
            run.start()
    text = run.end()
    assert run.process.returncode == 0, f"{killed}\n{text}"
    assert len(killed) == len(victims), f"the run was over after {killed}"
    assert_undisturbed(run, steps, data_order(overrides))
    assert [r["step"] for r in run.records("evaluations.jsonl")] == [*range(3, steps, 3), steps]
    assert not orphans(tmp_path)


def kill(run, victim, draw):
    if victim == "launcher":
        run.process.kill()
        return
    if victim == "trainer":
        trainer(run.process).kill()
        return
    found = run.processes("zygote_main" if victim == "verifier" else draw.choice(SERVER))
    if found:  # none while one that was killed before comes back
        draw.choice(found).kill()


def test_what_is_stopped_is_named_and_servers_come_back(launch, tmp_path):
    """SIGSTOP: a verifier, a server, a trainer rank, one after the other."""
    run = launch("total_train_steps=10000", "valid_dataset=null").start()
    run.until(lambda: len(run.records()) >= 2)
    stop_and_see(run, run.processes("zygote_main")[-1], r"HANG: verifier process \d+ of trainer rank 0")
    stop_and_see(run, run.processes("sglang::scheduler")[0], r"HANG: server \S+ hangs: its process \d+")
    run.until(lambda: "serves with the weights of version" in run.text())
    step = len(run.records())
    run.until(lambda: len(run.records()) >= step + 2)
    stop_and_see(run, trainer(run.process), r"rank 0 \(pid \d+\) is stopped .* in phase \w+ of step \d+")
    text = run.end()
    assert run.process.returncode == 1
    assert text.count("(most recent call first)") > 2, "stack traces of server and rank"
    assert 'trains/grpo.py", line' in text
    assert not orphans(tmp_path)


def stop_and_see(run, process, message, seconds=60):
    began = time.monotonic()
    process.send_signal(signal.SIGSTOP)
    run.until(lambda: re.search(message, run.text()), seconds, may_end=True)
    assert re.search(message, run.text()), run.text()
    assert time.monotonic() - began < seconds


def test_one_of_two_servers_dies_and_the_other_one_goes_on(launch, tmp_path):
    run = launch(
        "total_train_steps=10000",
        "valid_dataset=null",
        "allocation_mode=sglang:d2+fsdp:d1",
        "cluster.n_gpus_per_node=3",
    ).start()
    run.until(lambda: len(run.records()) >= 2)
    run.processes("sglang::scheduler")[0].kill()
    run.until(lambda: "it is started again" in run.text())
    step = len(run.records())
    run.until(lambda: len(run.records()) >= step + 2)
    assert "is ready" not in run.text(), "two steps were done by the other server alone"
    run.until(lambda: "serves with the weights of version" in run.text())
    step = len(run.records())
    run.until(lambda: len(run.records()) >= step + 3)
    run.process.send_signal(signal.SIGTERM)
    run.process.send_signal(signal.SIGTERM)  # a second one changes nothing
    run.end()
    assert run.process.returncode == 143
    records = run.records()
    assert max(r["parity_max"] for r in records) < 1e-4
    assert max(r["gap_max"] for r in records) <= ETA
    assert not orphans(tmp_path)


def test_a_crash_in_the_last_evaluation_and_a_longer_run_afterwards(launch, tmp_path):
    """The evaluation is made up for; then more steps, other frequencies, under the same name."""
    settings = ["recover.mode=on", "recover.freq_steps=1", "recover.retries=0", "evaluator.freq_steps=100"]
    settings += ["valid_dataset.max_samples=400"]  # long enough to be met
    run = launch("total_train_steps=2", *settings).start()
    run.until(lambda: run.is_in("evaluate", after=1))
    trainer(run.process).kill()
    run.end()
    assert run.process.returncode != 0
    assert [r["step"] for r in run.records("evaluations.jsonl")] == []
    again = launch("total_train_steps=5", *settings, "evaluator.freq_steps=2", "saver.freq_steps=2").start()
    again.end()
    assert again.process.returncode == 0, again.text()
    assert [r["step"] for r in again.records()] == [1, 2, 3, 4, 5]
    assert [r["step"] for r in again.records("evaluations.jsonl")][-1] == 5
    assert 3 <= len(again.records("evaluations.jsonl")) <= 4, (
        "every second step, which the first launch did not do"
    )
    assert list(tmp_path.rglob("epoch*globalstep*")), "nor did it save"


def test_three_steps_twice_are_the_same_to_the_last_bit(launch, overrides, digits_data, tmp_path):
    """`deterministic: true`: samples, rewards, losses and weights; answers of different lengths earn differently."""
    data = with_length_penalty(f"{digits_data}/stage1/train.parquet", tmp_path / "train.parquet")
    results = []
    for number in (1, 2):
        run = launch(
            "deterministic=true",
            "rollout.max_head_offpolicyness=0",
            "total_train_steps=3",
            f"train_dataset.path={data}",
            f"gconfig.stop_token_ids=[258,{','.join(map(str, range(32)))}]",
            f"trial_name=number{number}",
        ).start()
        run.end()
        assert run.process.returncode == 0, run.text()
        run.run = run.run.with_name(f"number{number}")
        records = [{key: r[key] for key in SAME} for r in run.records()]
        weights = {path.name: path.read_bytes() for path in (run.run / "final").glob("*.safetensors")}
        results.append((records, run.records("rollouts.jsonl"), run.records("evaluations.jsonl"), weights))
    assert len(results[0][0]) == 3
    assert any(record["grad_norm"] > 0 for record in results[0][0])
    for first, second in zip(*results, strict=True):
        assert first == second


SAME = ("sample_ids", "reward", "num_tokens", "grad_norm", "gradient_norms", "loss", "gap_histogram")
