"""Three synchronous, deterministic steps are the same whichever launcher started them."""

import pytest

from tests.cluster.launches import Launch, records
from tests.trains.test_launcher import with_length_penalty
from tests.trains.test_survival import SAME

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


def test_local_ray_and_slurm_give_the_same_records(raylets, slurm, overrides, runs, digits_data, tmp_path):  # noqa: PLR0917 - fixtures
    data = with_length_penalty(f"{digits_data}/stage1/train.parquet", tmp_path / "train.parquet")
    words = [
        *overrides, "deterministic=true", "rollout.max_head_offpolicyness=0", "total_train_steps=3",
        f"train_dataset.path={data}", f"gconfig.stop_token_ids=[258,{','.join(map(str, range(32)))}]",
    ]  # fmt: skip
    results = {}
    for name, variables in (("local", {}), ("ray", {"RAY_ADDRESS": raylets.address}), ("slurm", slurm)):
        nodes = ["cluster.n_nodes=1", "cluster.n_gpus_per_node=2"] if name == "local" else []
        launch = Launch(name, [*words, *nodes, f"trial_name={name}"], variables)
        try:
            assert launch.end(600) == 0, launch.text
        finally:
            launch.close()
        results[name] = [{key: record[key] for key in SAME} for record in records(runs, name)]
    assert len(results["local"]) == 3
    assert all(record["grad_norm"] > 0 for record in results["local"])
    assert results["ray"] == results["local"]
    assert results["slurm"] == results["local"]
