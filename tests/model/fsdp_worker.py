"""One rank of `test_areal_engine.py`: AReaL's FSDP engine on its share of the batch.

    python fsdp_worker.py CHECKPOINT BATCH_FILE OUTPUT_FOLDER      (with torchrun's environment variables)

BATCH_FILE holds a list of batches, one per rank. Writes `logprobs_RANK.pt`, and on rank 0 `gradients.pt` and
the model saved by the engine in `saved/`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from llavaonevision1_5.areal import register_with_areal


def main() -> None:
    from areal.api import FinetuneSpec, SaveLoadMeta
    from areal.api.cli_args import MicroBatchSpec, OptimizerConfig, TrainEngineConfig
    from areal.engine.fsdp_engine import FSDPEngine

    checkpoint, batch_file, output = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    register_with_areal()
    torch.set_num_threads(1)
    config = TrainEngineConfig(
        experiment_name="test",
        trial_name="test",
        path=checkpoint,
        backend="fsdp:d2",
        attn_impl="sdpa",
        dtype="float32",
        mb_spec=MicroBatchSpec(max_tokens_per_mb=4096),
        optimizer=OptimizerConfig(lr=1e-3),
    )
    engine = FSDPEngine(config)
    engine.create_process_group()
    engine.initialize(None, FinetuneSpec(total_train_epochs=1, dataset_size=16, train_batch_size=2))
    batch = torch.load(batch_file, weights_only=False)[engine.rank]

    torch.save(engine.forward_batch(dict(batch)), output / f"logprobs_{engine.rank}.pt")

    gradients = {}

    def keep_gradients() -> dict[str, float]:
        for name, parameter in engine.model.named_parameters():
            gradients[name] = parameter.grad.full_tensor()
        return {}

    engine.optimizer_step = keep_gradients

    def loss_fn(logprobs, entropy, data, **_):
        mask = torch.roll(data["loss_mask"], shifts=-1, dims=-1)
        return -(logprobs * mask).sum() / mask.sum()

    engine.train_batch(dict(batch), loss_fn, lambda data: data["loss_mask"].sum().float())
    if engine.rank == 0:
        torch.save(gradients, output / "gradients.pt")
    engine.save(
        SaveLoadMeta(
            path=str(output / "saved"),
            weight_format="hf",
            with_optim=False,
            tokenizer=engine.tokenizer,
            processor=engine.processor,
        )
    )
    engine.destroy()


if __name__ == "__main__":
    main()
