"""Clusters on this machine, each started once and ended with the tests."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.cluster import slurm_daemons
from tests.cluster.raylets import Raylets


@pytest.fixture(scope="session")
def short_folder():
    """Sockets of daemons lie below it, whose paths have a limit of 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="cl"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def runs(tmp_path):
    """Where a launch writes: a path with a space."""
    return tmp_path / "two words" / "runs"


@pytest.fixture
def overrides(tiny_checkpoint, digits_data, runs):
    """The demo's job, small: one node serves and one trains, files below `runs`, names in a shared folder."""
    return [
        "cluster.n_nodes=2",
        f"actor.path={tiny_checkpoint}",
        f"train_dataset.path={digits_data}/stage1/train.parquet",
        f"valid_dataset.path={digits_data}/stage1/heldout.parquet",
        f"cluster.fileroot={runs}",
        f"cluster.name_resolve.nfs_record_root={runs.parent}/names",
        "train_dataset.batch_size=4",
        "gconfig.n_samples=4",
        "gconfig.max_new_tokens=24",
        "valid_dataset.max_samples=8",
        "evaluator.eval_before_train=false",
        "stats_logger.wandb.mode=disabled",
    ]


@pytest.fixture(scope="session")
def raylets(short_folder):
    """Two Ray nodes, started from different working directories."""
    cluster = Raylets(short_folder / "ray", slurm_daemons.free_ports(1)[0])
    try:
        for host in ("127.0.0.2", "127.0.0.3"):
            place = short_folder / f"home-{host}"
            place.mkdir()
            cluster.add(host, place)
            cluster.wait(len(cluster.nodes))
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def slurm(short_folder):
    """Variables with which Slurm's commands reach two nodes of our own."""
    missing = slurm_daemons.install()
    if missing:
        pytest.skip(missing)
    with slurm_daemons.slurm(short_folder / "slurm") as variables:
        yield variables
