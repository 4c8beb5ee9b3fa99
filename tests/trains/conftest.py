"""Fixtures of the tests that launch a real run."""

import pytest


@pytest.fixture
def overrides(tiny_checkpoint, digits_data, tmp_path):
    """Command-line overrides for a small run whose files all lie under `tmp_path`."""
    return [
        f"actor.path={tiny_checkpoint}",
        f"train_dataset.path={digits_data}/stage1/train.parquet",
        f"valid_dataset.path={digits_data}/stage1/heldout.parquet",
        f"cluster.fileroot={tmp_path}/runs",
        f"cluster.name_resolve.nfs_record_root={tmp_path}/names",
        "train_dataset.batch_size=4",
        "gconfig.n_samples=4",
        "gconfig.max_new_tokens=24",
        "valid_dataset.max_samples=20",
        "stats_logger.wandb.mode=disabled",
    ]
