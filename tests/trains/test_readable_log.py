"""What people read of a trainer's log, and what they do not miss."""

from pathlib import Path

from areal.launcher.readable import ReadableLog, full_log

NOISE = [
    "\x1b[96m\x1b[1;38;2;180;140;80m(AReaL)\x1b[0m \x1b[96m20260101-10:00:00.001 [FSDPEngine Rank 0] INFO: mesh\x1b[0m",
    "\x1b[92m\x1b[1m(AReaL)\x1b[0m \x1b[92m20260101-10:00:00.001 StatsLogger INFO: \x1b[0m",
    "╒═══════╤═══════╕",
    "│ step  │ 1.000 │",
    "├───────┼───────┤",
    "╘═══════╧═══════╛",
    "",
    "Loading weights:   0%|          | 0/94 [00:00<?]\rLoading weights: 100%|██████████| 94/94 [00:00<00:00, 9it/s]",
    "/x/.venv/lib/python3.11/site-packages/torch/mesh.py:760: UserWarning: Slicing a dim",
    "  sliced_mesh_layout = self._get_slice_mesh_layout(names)",
    "wandb: Tracking run with wandb version 0.1",
    "wandb:",
]
KEPT = [
    "[grpo] step 1/2 | reward 0.5",
    "(AReaL) 20260101-10:00:00.001 [RemoteInfEngine Rank 0] WARNING: request failed",
    "(AReaL) 20260101-10:00:00.001 WorkflowExecutor ERROR: rejected",
    "Traceback (most recent call last):",
    '  File "/x/.venv/lib/python3.11/site-packages/torch/nn.py", line 1, in forward',
    "    return run(x)",
    "",
    "RuntimeError: 100% of memory | is used",
    "/project/dataset/loader.py:3: UserWarning: ours",
    "  warnings.warn()",
    "wandb: ERROR no disk",
    "something that nobody knows",
]


def test_noise_is_left_out_and_everything_else_kept(tmp_path):
    log = ReadableLog(tmp_path / "trainer.log")
    log.append([*NOISE, *KEPT, *NOISE])
    assert log.path.read_text().splitlines() == KEPT


def test_a_warning_and_its_source_may_come_one_by_one(tmp_path):
    log = ReadableLog(tmp_path / "trainer.log")
    for line in [*NOISE, *KEPT]:
        log.append([line])
    assert log.path.read_text().splitlines() == KEPT


def test_colours_and_returns_are_taken_off_what_is_kept(tmp_path):
    log = ReadableLog(tmp_path / "trainer.log")
    log.append(["\x1b[33mred\x1b[0m herring\r", "first\rsecond"])
    assert log.path.read_text() == "red herring\nsecond\n"


def test_the_full_log_lies_beside_it():
    assert full_log(Path("logs/trainer.log")) == Path("logs/trainer.full.log")
