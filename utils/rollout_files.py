"""The files of `rollouts/` in a run's folder: their names and columns. trains/rollout_records.py writes them."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

FOLDER, IMAGES = "rollouts", "_images"  # names that begin so are passed over by readers of parquet folders
SHARD = re.compile(r"step-(\d+)-rank(\d+)\.parquet")

PART = pa.struct([("name", pa.string()), ("value", pa.float64())])
RUN = pa.struct([("version", pa.int32()), ("num_tokens", pa.int32())])
TEXTS, FLOATS = pa.list_(pa.string()), pa.list_(pa.float32())
# name: (type, what it is)
COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "step": (pa.int32(), "Step that trained on it, as in metrics.jsonl."),
    "version": (pa.int32(), "Version of the weights that the step began with."),
    "rank": (pa.int32(), "Trainer rank that trained on it."),
    "group": (pa.int32(), "Number of its group among those of step and rank."),
    "rollout": (pa.int32(), "Its number in the group."),
    "sample_id": (pa.string(), "Id of the row of data."),
    "source": (pa.string(), "Data set that the row came from."),
    "answer_type": (pa.string(), "Kind of answer: the verifier."),
    "prompt_type": (pa.string(), "`answer` or `think`."),
    "answer": (TEXTS, "Reference answers; one of them suffices."),
    "spec": (pa.string(), "Specification of the reward, JSON; null: the verifier's defaults."),
    "prompt": (
        pa.string(),
        "The prompt as the model read it, special tokens included; image tokens are counted.",
    ),
    "images": (
        TEXTS,
        "Files of the prompt's images, as the model saw them, relative to the folder of the shards.",
    ),
    "image_sizes": (
        pa.list_(pa.list_(pa.int32())),
        "Their width and height in the data, which references may mean.",
    ),
    "completion": (pa.string(), "What the model wrote, without special tokens."),
    "reply_images": (TEXTS, "Files of the images that tools replied with, in order, likewise."),
    "is_reference": (pa.bool_(), "Put there by a rehearsal, not drawn."),
    "reward": (pa.float64(), "Total reward, before shaping and normalisation."),
    "parts": (pa.list_(PART), "Parts of the reward by name."),
    "status": (
        pa.string(),
        "Of the verifier: ok, no_answer, unparseable, timeout, crash, rejected, judge_*.",
    ),
    "extracted": (pa.string(), "The answer as the verifier saw it; null if there was none."),
    "trace": (TEXTS, "The rules that were applied, a sentence each."),
    "truncated": (pa.bool_(), "Ended at the token limit."),
    "num_prompt_tokens": (pa.int32(), "Tokens of the prompt, images included."),
    "num_tokens": (pa.int32(), "Generated tokens."),
    "advantage": (pa.float32(), "As the loss used it, the same for all of its tokens."),
    "versions": (
        pa.list_(RUN),
        "Versions of the weights that drew its tokens, as runs in order; -1: a tool's reply.",
    ),
    "token_ids": (
        pa.list_(pa.int32()),
        "Generated tokens; null, like all below, unless sampled by records.token_share.",
    ),
    "tokens": (TEXTS, "Their texts, special tokens included."),
    "behavior_logprobs": (
        FLOATS,
        "Log-probability of each under the weights that drew it, by the server, in nats.",
    ),
    "proximal_logprobs": (FLOATS, "The same under the weights before the step, by the trainer."),
    "entropy": (FLOATS, "Entropy of the policy where each was drawn, in nats."),
}
SCHEMA = pa.schema([pa.field(name, kind) for name, (kind, _) in COLUMNS.items()])


def shards(folder: Path) -> list[tuple[Path, int]]:
    """The shards of a folder and their steps, in order."""
    found = ((path, SHARD.fullmatch(path.name)) for path in folder.glob("step-*.parquet"))
    return sorted(
        ((path, int(match[1])) for path, match in found if match), key=lambda shard: (shard[1], shard[0])
    )
