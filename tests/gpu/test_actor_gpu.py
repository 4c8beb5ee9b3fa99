"""Steps of the training actor at published sizes on a GPU: speed and memory, and flash attention against sdpa."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(1800),
]
# A rank alone holds 16 bytes a parameter; activations of 6144 tokens come on top.
NEEDED_GIB = {"4b-half": 55, "4b": 90, "8b": 150}


def has_flash() -> bool:
    try:
        import flash_attn  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.fixture(scope="module")
def checkpoint_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("random")


def run_steps(folder, size, *options):
    output = folder / f"result-{size}.json"
    command = [
        sys.executable,
        "-W",
        "ignore",
        "benchmarks/actor_step.py",
        "--size",
        size,
        "--json",
        str(output),
    ]
    command += ["--checkpoint", str(folder / size), "--steps", "3", *options]
    result = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    print(result.stdout)
    return json.loads(output.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("size", list(NEEDED_GIB))
def test_steps_at_published_size(size, checkpoint_folder):
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    if memory < NEEDED_GIB[size]:
        pytest.skip(f"one rank of {size} needs {NEEDED_GIB[size]} GiB, this GPU has {memory:.0f}")
    attention = "flash_attention_2" if has_flash() else "sdpa"
    options = ["--attn", attention, "--tokens", "6144", "--prompts", "2", "--group", "8"]
    found = run_steps(checkpoint_folder, size, *options, "--image-tokens", "576", "--answer-tokens", "1024")
    assert found["estimated_bytes"] == pytest.approx(found["measured_bytes"], rel=0.15)
    assert found["tokens_per_second"] > 500
    assert found["share_of_matmul"] > 0.2, "packed steps of 6144 tokens keep the matrix units busy"


@pytest.mark.skipif(not has_flash(), reason="needs flash-attn")
def test_flash_attention_agrees_with_sdpa(tmp_path):
    """Packed rows with images in bf16: the same log-probabilities up to rounding, on the tiny model."""
    from llavaonevision1_5 import tiny
    from llavaonevision1_5.modeling import LLaVAOneVision1_5_ForConditionalGeneration as Model

    folder = tiny.build_tiny_checkpoint(tmp_path / "tiny")
    bounds = torch.tensor([0, 37, 100], dtype=torch.int32, device="cuda")
    image = [tiny.SPECIAL_IDS["<|vision_start|>"], *[tiny.SPECIAL_IDS["<|image_pad|>"]] * 4]
    ids = torch.randint(32, 127, (1, 100), generator=torch.Generator().manual_seed(0))
    ids[0, 3:8] = torch.tensor(image)
    positions = torch.cat([torch.arange(37), torch.arange(63)])[None].cuda()
    pixels = {
        "pixel_values": torch.randn(16, 588, generator=torch.Generator().manual_seed(1)).cuda(),
        "image_grid_thw": torch.tensor([[1, 4, 4]]).cuda(),
    }
    results = []
    for implementation in ("sdpa", "flash_attention_2"):
        model = (
            Model.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation=implementation)
            .cuda()
            .eval()
        )
        with torch.no_grad():
            output = model(ids.cuda(), position_ids=positions, cu_seq_lens_q=bounds, **pixels)
        results.append(output.logits.float().log_softmax(-1))
    assert (results[0] - results[1]).abs().mean() < 2e-2
