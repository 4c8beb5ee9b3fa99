"""One trainer rank without servers: two steps on made-up answers, the second with a NaN; keeps a capsule of each.

    python capsule_worker.py CHECKPOINT DIGITS_FOLDER OUTPUT_FOLDER      (with torchrun's environment variables)

Writes `recorded.json`: what each step would have written to metrics.jsonl.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import torch


def main() -> None:
    from areal.api import FinetuneSpec
    from areal.utils.hf_utils import load_hf_processor_and_tokenizer

    from dataset.encode import encode_prompt
    from dataset.media_tokens import media_token_ids
    from tests.test_configs import load
    from trains.actor import VisionActor
    from trains.capsule import Capsules
    from trains.host import allocation
    from trains.metrics import update_metrics
    from utils.sample import Sample

    checkpoint, digits, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    config = load(
        Path("configs/digits_cpu_stage1.yaml"),
        f"actor.path={checkpoint}",
        "actor.capsule='every 1'",
        "gconfig.n_samples=3",
    )
    torch.manual_seed(0)
    actor = VisionActor(config.actor, config.loss, media_token_ids(checkpoint), config.gconfig.max_new_tokens)
    actor.create_process_group(parallel_strategy=allocation.parse("sglang:d1+fsdp:d1").train)
    actor.initialize(addr=None, ft_spec=FinetuneSpec(1, 4, 4))
    processor, _ = load_hf_processor_and_tokenizer(checkpoint)
    rows = pq.read_table(digits / "stage1" / "train.parquet").slice(0, 3).to_pylist()
    capsules, recorded = Capsules(config, actor, output), []
    for step in range(2):
        batch = [made_up_group(Sample.from_row(row), processor, encode_prompt) for row in rows]
        actor.compute_advantages(batch)
        if step == 1:
            capsules.every = 0  # as on_failure: the failing step is kept by itself
            batch[1]["behavior_logprobs"][2, int(batch[1]["policy_mask"][2].nonzero()[1])] = torch.nan
        capsules.before_update(step, batch)
        update = actor.ppo_update(batch)
        record = {**update_metrics(actor.export_stats()), **update}
        capsules.after_step(record)
        recorded.append(record)
    (output / "recorded.json").write_text(json.dumps(recorded))
    actor.destroy()


def made_up_group(sample, processor, encode_prompt):
    """Three answers of random letters, 5, 8 and 3 tokens long, drawn from nobody's policy."""
    from trains.types import GroupInfo

    encoded = encode_prompt(processor, sample)
    prompt, lengths = torch.tensor(encoded.input_ids), [5, 8, 3]
    width = len(prompt) + max(lengths)
    ids, mask = torch.zeros(3, width, dtype=torch.int64), torch.zeros(3, width, dtype=torch.int32)
    for i, length in enumerate(lengths):
        ids[i, : len(prompt)] = prompt
        ids[i, len(prompt) : len(prompt) + length] = torch.randint(40, 120, (length,))
        mask[i, len(prompt) : len(prompt) + length] = 1
    info = GroupInfo(
        0, sample.id, sample.source, sample.answer_type, "answer", ["7"], [], ["x"] * 3, [], lengths, 0
    )
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(width) < torch.tensor(lengths)[:, None] + len(prompt)),
        "loss_mask": mask,
        "logprobs": -5 * torch.rand(3, width) * mask,
        "versions": torch.where(mask > 0, 0, -1).int(),
        "rewards": torch.tensor([1.0, 0.0, 0.5]),
        "images": [encoded.multi_modal_input],
        "info": [info],
    }


if __name__ == "__main__":
    main()
