"""Whole runs of conversations: the trainer killed between checkpoints, and what is counted of calls."""

import json

import pytest

from dataset.zoom_digits import write_zoom_digits
from tests.trains.test_launcher import first_line_with, orphans, start, trainer
from trains.demo.zoom_warm_start import ZoomWarmStartConfig, warm_start

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def zoom(tmp_path_factory):
    """Data, and a model that has learned to call the zoom, if not to look well."""
    folder = tmp_path_factory.mktemp("zoom")
    write_zoom_digits(folder / "data")
    config = ZoomWarmStartConfig(
        num_image_steps=100, num_clean_steps=60, num_careless_steps=0, num_heldout=20
    )
    warm_start(folder / "model", config)
    return folder


def test_a_trainer_killed_in_a_run_of_conversations_goes_on_where_it_was(zoom, tmp_path):
    """`kill -9` between checkpoints: steps done since the last one are repeated with the same prompts, none is lost."""
    process = start(
        [
            f"actor.path={zoom}/model",
            f"train_dataset.path={zoom}/data/train.parquet",
            "train_dataset.batch_size=4",
            "train_dataset.max_length=512",
            "train_dataset.max_pixels=3136",
            "valid_dataset=null",
            "gconfig.n_samples=4",
            f"cluster.fileroot={tmp_path}/runs",
            f"cluster.name_resolve.nfs_record_root={tmp_path}/names",
            "stats_logger.wandb.mode=disabled",
            "evaluator.eval_before_train=false",
            "prompts.layout=release",
            "agent.enabled=true",
            "agent.tools=[zoom]",
            "agent.max_tokens=400",
            "total_train_steps=6",
            "recover.mode=on",
            "recover.freq_steps=2",
            "recover.retries=1",
        ]
    )
    try:
        first_line_with(process, "step 3/")
        trainer(process).kill()
        output, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, output
    run = tmp_path / "runs" / "digits-stage1" / "demo"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in steps] == [1, 2, 3, 4, 5, 6]
    assert [record["buffer"]["consumed"] for record in steps] == [4, 8, 12, 16, 20, 24]
    assert all(0 <= record["gap_max"] <= 4 for record in steps)
    assert max(record["parity_max"] for record in steps) < 1e-4
    samples = [sample for record in steps for sample in record["sample_ids"]]
    assert len(set(samples)) == len(samples) == 24, "a prompt was trained on twice"
    assert any(record["agent"]["images"] > 0 for record in steps), (
        "nobody zoomed: this was no run of several turns"
    )
    assert not orphans(tmp_path)
