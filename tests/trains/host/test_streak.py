"""A count shared by several processes."""

import torch.distributed as dist
import torch.multiprocessing as mp

from trains.host.streak import SharedStreak


def rank_main(rank, path):
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    streak = SharedStreak("test")
    if rank == 0:
        assert [streak.add(), streak.add()] == [1, 2]
    dist.barrier()
    if rank == 1:
        assert streak.add() == 3
        streak.reset()
    dist.barrier()
    if rank == 0:
        assert streak.add() == 1
    dist.destroy_process_group()


def test_one_count_for_all_ranks(tmp_path):
    mp.spawn(rank_main, (str(tmp_path / "rendezvous"),), nprocs=2)
