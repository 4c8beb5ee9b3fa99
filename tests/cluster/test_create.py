"""`python -m dataset.create` on a Ray cluster that is running: it joins, spreads, and survives the loss of a node."""

import os
import re
import subprocess
import sys

import pytest

from dataset.curate.journal import Journal
from tests.cluster.launches import ROOT, Output, leftovers
from tests.dataset.curation_runs import manifest_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
NUM_ROWS = 120


def start(checkpoint, output, *more, variables):
    command = [
        "--model-name", str(checkpoint), "--dataset-name", "digits", "--rollout-n", "4", "--keep-all",
        "--max-samples", str(NUM_ROWS), "--output-dir", str(output), "--concurrency", "2", "--max-tokens", "16",
        "--device", "cpu", *more,  # the nodes' GPUs are made up
    ]  # fmt: skip
    return Output([sys.executable, "-W", "ignore", "-m", "dataset.create", *command], variables)


def positions(output):
    journal = Journal(output / "curation" / "digits" / "journal.bin", read_only=True)
    return sorted(r.header["position"] for _, r in journal.records() if r.header["kind"] == "measured")


def test_it_joins_spreads_and_loses_no_row_with_a_node(raylets, tiny_checkpoint, tmp_path):
    """A relative checkpoint: workers work in the command's folder and not in the raylet's."""
    checkpoint = os.path.relpath(tiny_checkpoint, ROOT)
    output = tmp_path / "two words"
    run = start(
        checkpoint,
        output,
        "--executor",
        "ray",
        "--num-workers",
        "2",
        variables={"RAY_ADDRESS": raylets.address},
    )
    try:
        run.until(rf"joined the Ray cluster at {re.escape(raylets.address)}: 2 node\(s\)")
        for worker in (0, 1):
            run.until(rf"worker {worker}: http://127\.0\.0\.1:\d+")
        pids = [int(p) for p in subprocess.run(
            ["pgrep", "-f", f"sglang_cpu.launch_server --model-path {checkpoint}"], capture_output=True, text=True,
            check=True,
        ).stdout.split()]  # fmt: skip
        raylets_of = {pid: raylets.host_of(pid) for pid in pids}
        assert {"127.0.0.2", "127.0.0.3"} <= set(raylets_of.values()), (
            f"one on each node: {raylets_of}\n{run.text}"
        )
        run.until_true(
            lambda: (output / "curation/digits/journal.bin").exists() and len(positions(output)) >= 10
        )
        raylets.kill("127.0.0.3")
        assert run.end(400) == 0, run.text
    finally:
        run.close()
        raylets.remove("127.0.0.3")
        raylets.add("127.0.0.3", tmp_path)
        raylets.wait(2)
    assert re.search(r"worker \d is out: its process died", run.text)
    assert positions(output) == list(range(NUM_ROWS))
    assert manifest_of(output)["counts"]["measured"] == NUM_ROWS
    assert not leftovers(tmp_path)
    assert raylets.is_given_back()


def test_a_cluster_that_does_not_answer_is_one_message(tiny_checkpoint, tmp_path):
    run = start(tiny_checkpoint, tmp_path / "out", variables={"RAY_ADDRESS": "127.0.0.2:1"})
    assert run.end(120) == 2
    assert run.until("no Ray cluster answers at 127.0.0.2:1")
    assert "Traceback" not in run.text
