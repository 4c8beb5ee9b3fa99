"""The published widths through every tool on a CPU: prepare -> serve -> parity -> export, with time and memory.

    python benchmarks/published_slice.py [--json FILE] [--keep FOLDER]

A random checkpoint in the published layout with the 8B model's widths (hidden 4096, vision 1024, vocabulary 151,936),
two text layers, four vision blocks, in bfloat16: what depth repeats is left out, every shape is real. SGLang samples
answers to text and images; the trainer's model scores the same tokens. Fails above `LARGEST_MEAN_NATS` of mean
difference or `LARGEST_BYTES` of memory (of this process and its children, shared pages counted once).
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script from anywhere
from llavaonevision1_5 import checkpoint, sglang_environment, tiny
from llavaonevision1_5.configuration import LLaVAOneVision1_5_Config
from llavaonevision1_5.modeling import LLaVAOneVision1_5_ForConditionalGeneration
from llavaonevision1_5.processing import LLaVAOneVision1_5_Processor
from utils.checkpoint.compare import compare_weights

LARGEST_MEAN_NATS = 0.02
LARGEST_BYTES = 20 * 2**30
ANSWER_TOKENS = 32
IMAGE_SIZES = ((), ((448, 336),), ((336, 448), (224, 224)))  # width, height of the images of each prompt


class PeakMemory(threading.Thread):
    """The largest proportional memory of this process and its children, sampled four times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.num_bytes, self.is_over = 0, threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(0.25):
            me = psutil.Process()
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue  # it has just ended
            self.num_bytes = max(self.num_bytes, total)


def build_published(folder: Path) -> Path:
    """A random checkpoint of the slice in the published layout; `folder` is made."""
    base = tiny.build_config(
        hidden_size=4096,
        intermediate_size=12288,
        num_layers=2,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        vision_width=1024,
        vision_depth=4,
        vision_heads=16,
        suppress_media_tokens=True,  # random weights would sample them
    ).to_dict()
    base.pop("auto_map", None)
    base["text_config"]["vocab_size"] = 151_936
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = LLaVAOneVision1_5_ForConditionalGeneration(LLaVAOneVision1_5_Config(**base))
    finally:
        torch.set_default_dtype(default)
    model.save_pretrained(folder)
    tiny.build_processor(max_pixels=28 * 28 * 1024).save_pretrained(folder)
    tiny.to_published_layout(folder)
    return folder


def encode(processor: Any) -> Iterator[tuple[list[int], dict[str, torch.Tensor], list[str]]]:
    """(token ids, model inputs of the images, images as the server takes them) of every prompt."""
    generator = np.random.default_rng(0)
    for sizes in IMAGE_SIZES:
        images = [
            Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
            for width, height in sizes
        ]
        content = [*({"type": "image"} for _ in images), {"type": "text", "text": "What is to be seen here?"}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        found = processor(images=images or None, text=text, return_tensors="pt")
        pixels = {name: found[name] for name in ("pixel_values", "image_grid_thw") if name in found}
        yield found["input_ids"][0].tolist(), pixels, [_base64(image) for image in images]


def _base64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def sample(url: str, ids: list[int], images: list[str]) -> tuple[list[int], list[float]]:
    """An answer of the server: tokens and their log-probabilities."""
    request = {
        "input_ids": ids,
        "image_data": images,
        "sampling_params": {"max_new_tokens": ANSWER_TOKENS, "temperature": 1.0, "ignore_eos": True},
        "return_logprob": True,
    }
    body = urllib.request.Request(
        f"{url}/generate", json.dumps(request).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(body, timeout=600) as response:
        entries = json.load(response)["meta_info"]["output_token_logprobs"]
    return [entry[1] for entry in entries], [entry[0] for entry in entries]


@torch.no_grad()
def differences(model: torch.nn.Module, prompts: list, answers: list) -> list[float]:
    """|log-probability of the server - of the model| of every sampled token, in nats."""
    found: list[float] = []
    for (ids, pixels, _), (tokens, logprobs) in zip(prompts, answers, strict=True):
        logits = model(torch.tensor([ids + tokens]), **pixels).logits[0, len(ids) - 1 : -1].float()
        scores = logits.log_softmax(-1).gather(-1, torch.tensor(tokens)[:, None])[:, 0]
        found += (scores - torch.tensor(logprobs)).abs().tolist()
    return found


def measure(root: Path) -> dict[str, Any]:
    """Walk the slice through `root`; seconds of each phase, differences in nats, memory in bytes."""
    from sglang_cpu.process import running_server

    seconds: dict[str, float] = {}

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - start
        print(f"{name:<10}{seconds[name]:8.1f} s", flush=True)

    memory = PeakMemory()
    memory.start()
    with phase("build"):
        published = build_published(root / "published")
    with phase("prepare"):
        prepared = checkpoint.prepare(published, root / "prepared")
    prompts = list(encode(LLaVAOneVision1_5_Processor.from_pretrained(prepared)))
    with phase("serve"):
        options = {"dtype": "bfloat16", "max-total-tokens": 8192}
        environment = {**sglang_environment(), "OMP_NUM_THREADS": str(os.cpu_count())}
        with running_server(
            prepared,
            log_path=root / "server.log",
            options=options,
            environment=environment,
            timeout_seconds=600,
        ) as url:
            answers = [sample(url, ids, images) for ids, _, images in prompts]
    with phase("parity"):
        model = LLaVAOneVision1_5_ForConditionalGeneration.from_pretrained(
            prepared, dtype=torch.bfloat16
        ).eval()
        apart = differences(model, prompts, answers)
    with phase("export"):
        model.save_pretrained(root / "trained")
        exported = checkpoint.export(root / "trained", root / "exported", original=published)
        weights = compare_weights(published, exported)
    memory.is_over.set()
    memory.join()
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": len(apart),
        "mean_nats": float(np.mean(apart)),
        "largest_nats": max(apart),
        "weights_after_export": weights,
        "seconds": seconds,
        "peak_bytes": memory.num_bytes,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument(
        "--keep", type=Path, help="an empty folder for the checkpoints (default: removed again)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(args.keep or Path(temporary))
    print(
        f"{found['parameters'] / 1e9:.2f} billion parameters, {found['tokens']} tokens: mean difference "
        f"{found['mean_nats']:.4f} nats, largest {found['largest_nats']:.4f}; after export "
        f"{found['weights_after_export']}; {found['peak_bytes'] / 2**30:.1f} GiB at most"
    )
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if is_right(found) else 1


def is_right(found: dict[str, Any]) -> bool:
    return (
        found["mean_nats"] <= LARGEST_MEAN_NATS
        and found["peak_bytes"] <= LARGEST_BYTES
        and found["weights_after_export"] == "the weights are equal"
    )


if __name__ == "__main__":
    sys.exit(main())
