"""Shards of rollouts: what they hold equals the batch, they stay within their limit, and a full disk stops nothing."""

import base64
import json
import os

import pandas
import pytest
import torch
from datasets import load_dataset

from reward import RewardOutput
from tests.trains.test_guards_and_metrics import group
from trains.rollout_records import ImageStore, RolloutRecords, readable_prompt, runs
from utils.rollout_files import COLUMNS, shards


class Tokenizer:
    def decode(self, ids):
        return "".join(f"<{token}>" for token in ids)


def records(folder, **options):
    return RolloutRecords(folder, 0, Tokenizer(), **{"max_gigabytes": 1.0, "token_share": 1.0} | options)


def trained(**options):
    result = group(**options)
    result["advantages"] = torch.tensor([[0.5], [-0.5]]) * result["policy_mask"]
    result["entropy"] = torch.tensor([[9.0, 0.1, 0.2, 9.0], [9.0, 0.3, 9.0, 9.0]])
    return result


def test_a_shard_holds_what_the_step_held(tmp_path):
    first, second = trained(), trained()
    second["info"][0].scores[1] = RewardOutput(
        0.0, {"accuracy": 0.0, "iou": 0.25}, "ok", "x\ud800", ("a rule",)
    )
    path = records(tmp_path).write(12, 11, [first, second])
    assert shards(tmp_path) == [(path, 12)]
    rows = pandas.read_parquet(path)
    assert list(rows.columns) == list(COLUMNS)
    assert list(zip(rows.step, rows.version, rows.group, rows.rollout, strict=True)) == [
        (12, 11, 0, 0), (12, 11, 0, 1), (12, 11, 1, 0), (12, 11, 1, 1),
    ]  # fmt: skip
    assert list(rows.reward) == [1.0, 0.0, 1.0, 0.0]
    assert list(rows.advantage) == [0.5, -0.5, 0.5, -0.5]
    assert list(rows.num_tokens) == [2, 1, 2, 1]
    assert rows.prompt[0] == "<5><6>"
    row = rows.iloc[0]
    assert list(row.token_ids) == [7, 8]
    assert list(row.tokens) == ["<7>", "<8>"]
    assert list(row.behavior_logprobs) == [-1.0, -2.0]
    assert list(row.proximal_logprobs) == [-0.75, -1.75]
    assert list(row.entropy) == pytest.approx([0.1, 0.2])
    assert [dict(run) for run in row.versions] == [
        {"version": 3, "num_tokens": 1}, {"version": 2, "num_tokens": 1},
    ]  # fmt: skip
    last = rows.iloc[3]
    assert {part["name"]: part["value"] for part in last.parts} == {"accuracy": 0.0, "iou": 0.25}
    assert (last.extracted, list(last.trace)) == ("x?", ["a rule"]), "half a surrogate pair fits in no file"


def test_a_reply_of_a_tool_stands_between_what_was_drawn(tmp_path):
    """A turn of one token, a reply of one, and a turn of one more."""
    turns = trained()
    for name, value in (("attention_mask", True), ("loss_mask", 1), ("versions", 3), ("input_ids", 4)):
        column = torch.full((2, 1), value, dtype=turns[name].dtype)
        turns[name] = torch.cat([turns[name], column], dim=1)
    turns["attention_mask"][1, 3:] = False
    turns["loss_mask"][0, 3], turns["versions"][0, 3] = 0, -1
    for name in ("behavior_logprobs", "proximal_logprobs", "entropy", "advantages"):
        turns[name] = torch.nn.functional.pad(turns[name], (0, 1))
    row = pandas.read_parquet(records(tmp_path).write(1, 0, [turns])).iloc[0]
    assert list(row.token_ids) == [7, 8, 4]
    assert [run["version"] for run in row.versions] == [3, -1, 3]
    assert len(row.tokens) == len(row.entropy) == len(row.behavior_logprobs) == 3
    assert row.num_tokens == 2


def test_datasets_reads_shards_of_different_parts_as_one_table(tmp_path):
    writer = records(tmp_path / "rollouts", token_share=0.0)
    writer.write(1, 0, [trained()])
    other = trained()
    other["info"][0].scores[0] = RewardOutput(1.0, {"accuracy": 1.0, "format": 1.0}, "ok", "7", ("said",))
    writer.write(2, 1, [other])
    files = str(tmp_path / "rollouts" / "*.parquet")
    table = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert table["step"][:] == [1, 1, 2, 2]
    assert table[0]["tokens"] is None
    assert [part["name"] for part in table[2]["parts"]] == ["accuracy", "format"]


def test_a_share_of_each_group_keeps_its_tokens(tmp_path):
    rows = pandas.read_parquet(records(tmp_path, token_share=0.01).write(1, 0, [trained(), trained()]))
    assert [tokens is not None for tokens in rows.tokens] == [True, False, True, False]


def test_an_image_is_kept_once_and_named(tmp_path):
    store = ImageStore(tmp_path)
    names = store.put([base64.b64encode(content).decode() for content in (b"one", b"two", b"one")])
    assert names[0] == names[2] != names[1]
    assert {path.read_bytes() for path in (tmp_path / "_images").iterdir()} == {b"one", b"two"}
    shown = trained()
    shown["info"][0].image_files = names[:1]
    records(tmp_path).write(1, 0, [shown])
    rows = pandas.read_parquet(tmp_path)  # the folder, images and all
    assert (tmp_path / rows.images[0][0]).read_bytes() == b"one"


def test_images_of_replies_belong_to_their_rollout(tmp_path):
    """And stay as long as a shard names them."""
    names = ImageStore(tmp_path).put([base64.b64encode(content).decode() for content in (b"one", b"two")])
    shown = trained()
    shown["info"][0].rollout_image_files = [[], names]
    for name in names:
        os.utime(tmp_path / name, (1, 1))
    row = pandas.read_parquet(records(tmp_path).write(1, 0, [shown])).reply_images
    assert [list(files) for files in row] == [[], names]
    assert all((tmp_path / name).stat().st_mtime > 1 for name in names)


def test_the_oldest_go_when_the_folder_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr("trains.rollout_records.STEPS_BETWEEN_LOOKS", 1)
    old, young = ImageStore(tmp_path).put([base64.b64encode(bytes([i]) * 50).decode() for i in (1, 2)])
    writer = records(tmp_path)
    for step in (1, 2, 3):
        shown = trained()
        shown["info"][0].image_files = [young if step > 1 else old]
        path = writer.write(step, step - 1, [shown])
        for file in (path, tmp_path / shown["info"][0].image_files[0]):
            os.utime(file, (step, step))
    writer.max_bytes = 2.5 * path.stat().st_size
    writer.write(4, 3, [shown])
    assert [step for _, step in shards(tmp_path)] == [3, 4]
    assert [file.name for file in (tmp_path / "_images").iterdir()] == [young.removeprefix("_images/")]


def test_steps_that_are_done_again_are_forgotten(tmp_path):
    writer = records(tmp_path)
    for step in (1, 2, 3):
        writer.write(step, step - 1, [trained()])
    writer.forget_steps_after(2)
    assert [step for _, step in shards(tmp_path)] == [1, 2]


def test_runs_and_prompts_are_short():
    assert runs([3, 3, 4]) == [{"version": 3, "num_tokens": 2}, {"version": 4, "num_tokens": 1}]
    assert (
        readable_prompt("a" + "<|image_pad|>" * 16 + "b<|image_pad|>") == "a<|image_pad|> x 16b<|image_pad|>"
    )


def test_rows_are_plain_data(tmp_path):
    rows = list(records(tmp_path)._rows(trained(), 0))
    json.dumps(rows)
