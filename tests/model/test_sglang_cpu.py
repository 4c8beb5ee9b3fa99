"""The CPU launch of SGLang: flags, stand-ins that cannot be used by mistake, the torchvision hook."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

import sglang_cpu
from llavaonevision1_5 import sglang_environment
from sglang_cpu.process import running_server


def run(program: str, **environment: str) -> str:
    """Run a program in a fresh interpreter and return what it prints; stand-ins must not leak into the tests."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_flags_and_environment_need_the_standard_library_alone():
    program = """
        import sys
        import sglang_cpu, llavaonevision1_5
        sglang_cpu.flags(), sglang_cpu.environment(), llavaonevision1_5.sglang_environment()
        heavy = {"torch", "transformers", "sglang", "numpy", "areal"} & set(sys.modules)
        assert not heavy, heavy
    """
    run(program)


def test_command_line():
    options = {"device": "cpu", "disable-cuda-graph": True, "port": 1, "left-out": False, "also-not": None}
    assert sglang_cpu.command_line(options) == ["--device", "cpu", "--disable-cuda-graph", "--port", "1"]


def test_the_cache_size_is_always_explicit():
    assert sglang_cpu.flags()["max-total-tokens"] == sglang_cpu.DEFAULT_MAX_TOTAL_TOKENS
    assert sglang_cpu.flags(max_total_tokens=512)["max-total-tokens"] == 512
    with pytest.raises(ValueError, match="max_total_tokens must be positive, got 0"):
        sglang_cpu.flags(max_total_tokens=0)


def test_patches_outlive_a_cancelled_request_and_reach_another_process():
    """Let go of with the request that asked first, they would be gone when the scheduler opens those of the others."""
    program = """
        import sglang_cpu.launch_server
        import asyncio, collections, gc, pickle, subprocess, sys, time
        from concurrent.futures import ThreadPoolExecutor
        import torch
        from llavaonevision1_5.patch_memory import SharedTensor
        from llavaonevision1_5.sglang_processor import processor

        def prepare(image):
            time.sleep(0.2)
            if image == "broken":
                raise ValueError(image)
            return processor.Patches(SharedTensor(torch.arange(6.0).reshape(2, 3)), None, 2, 1)

        def pieces(ours):
            return len(ours._images), len(ours._used), ours._image_bytes

        async def main():
            ours = processor.LLaVAOneVision1_5_SGLangProcessor.__new__(processor.LLaVAOneVision1_5_SGLangProcessor)
            ours._images, ours._used, ours._image_bytes = collections.OrderedDict(), {}, 0
            ours.io_executor, ours._prepare = ThreadPoolExecutor(1), prepare
            first, second = (asyncio.create_task(ours._patches("image")) for _ in range(2))
            await asyncio.sleep(0.05)
            first.cancel()
            sent = pickle.dumps((await second).pixel_values)
            del first, second
            gc.collect()
            opened = "import pickle, sys; print(pickle.load(sys.stdin.buffer).tolist())"
            said = subprocess.run([sys.executable, "-c", opened], input=sent, capture_output=True, check=True).stdout
            assert said.split() == b"[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]".split(), said
            assert pieces(ours) == (1, 1, 24)
            try:
                await ours._patches("broken")
            except ValueError:
                await asyncio.sleep(0)
            assert pieces(ours) == (1, 1, 24)
            processor.CACHE_BYTES, processor.KEEP_SECONDS = 30, 1000.0
            await ours._patches("second")
            assert pieces(ours) == (2, 2, 48)  # too many, but a request may still wait for each
            processor.KEEP_SECONDS = 0.0
            await ours._patches("third")
            await asyncio.sleep(0)
            assert list(ours._images) == ["third"], list(ours._images)
            gc.collect()
            try:
                pickle.loads(sent)
            except FileNotFoundError:
                return
            raise AssertionError("the memory was not let go of")

        asyncio.run(main())
    """
    run(program)


def test_a_called_stand_in_raises_with_its_name():
    program = """
        from sglang_cpu import stand_ins

        assert "sgl_kernel" in stand_ins.install()
        assert stand_ins.install() == stand_ins.install()
        import sgl_kernel.flash_attn
        from sgl_kernel import moe_sum_reduce, silu_and_mul as kernel
        from sgl_kernel.scalar_type import scalar_types

        for call in (
            lambda: kernel(1, out=2),
            lambda: sgl_kernel.flash_attn.flash_attn_varlen_func(),
            lambda: scalar_types.uint4b8(),
            lambda: sgl_kernel.Anything.at.all(),
        ):
            try:
                call()
            except stand_ins.StandInCalled as error:
                print(error)
            else:
                raise SystemExit("a stand-in was called and did not raise")
    """
    lines = run(program).splitlines()
    assert [line.split()[0] for line in lines] == [
        "sgl_kernel.silu_and_mul",
        "sgl_kernel.flash_attn.flash_attn_varlen_func",
        "sgl_kernel.scalar_type.scalar_types.uint4b8",
        "sgl_kernel.Anything.at.all",
    ]
    assert all("import-only stand-in" in line for line in lines)


def test_external_packages_import_and_are_complete():
    """SGLang only logs an import error of an external package and then serves without it."""
    program = """
        import sglang_cpu.launch_server
        import torch
        from sglang.srt.managers.multimodal_processor import PROCESSOR_MAPPING, import_processors
        from sglang.srt.models.registry import ModelRegistry, import_model_classes

        import llavaonevision1_5
        from llavaonevision1_5.sglang_model import model, qwen_vl
        from llavaonevision1_5.sglang_processor import processor

        found = import_model_classes("llavaonevision1_5.sglang_model", strict=True)
        families = ["Qwen2VL", "Qwen2_5_VL", "Qwen3VL"]
        qwen = [f"{family}ForConditionalGeneration" for family in families]
        assert list(found) == [llavaonevision1_5.ARCHITECTURE, *qwen]
        assert [ModelRegistry.models[name] for name in qwen] == qwen_vl.EntryClass
        assert ModelRegistry.models[llavaonevision1_5.ARCHITECTURE] is model.EntryClass
        import_processors("llavaonevision1_5.sglang_processor", overwrite=True)
        assert PROCESSOR_MAPPING[model.EntryClass] is processor.LLaVAOneVision1_5_SGLangProcessor

        from sglang.srt.configs.model_config import multimodal_model_archs
        assert llavaonevision1_5.ARCHITECTURE in multimodal_model_archs

        given = ["--dtype", "bfloat16", "--max-total-tokens=99"]
        arguments = sglang_cpu.launch_server.arguments_with_defaults(given)
        assert arguments[-3:] == given
        assert arguments.count("--dtype") == 1 and "--max-total-tokens" not in arguments
        assert arguments[:2] == ["--device", "cpu"]

        double = lambda x: 2 * x
        assert torch.compile(double) is double
        assert torch.compile(dynamic=True)(double) is double

        assert model._place("model.layers.3.mlp.up_proj.weight") == ("model.layers.3.mlp.gate_up_proj.weight", 1)
        assert model._place("model.layers.3.mlp.down_proj.weight") == ("model.layers.3.mlp.down_proj.weight", None)
        assert model._place("visual.blocks.0.attn.qkv.weight") == ("visual.blocks.0.attn.qkv.weight", None)

        place = processor.place_images
        assert place([1, 9, 9, 2, 9, 3], [2, 1], 9) == ([1, 9, 9, 2, 9, 3], [(1, 2), (4, 4)])
        assert place([1, 9, 2, 9, 3], [2, 1], 9) == ([1, 9, 9, 2, 9, 3], [(1, 2), (4, 4)])
        assert place([9, 9, 9], [2, 1], 9) == ([9, 9, 9], [(0, 1), (2, 2)])
        assert place([1, 2], [], 9) == ([1, 2], [])
        for ids, counts in [([9], []), ([1, 9, 9, 9], [2]), ([9, 9, 1, 9, 9], [4, 4, 4]), ([9, 1, 9], [2])]:
            try:
                place(ids, counts, 9)
            except ValueError as error:
                print(error)
            else:
                raise SystemExit(f"{ids} with {counts} was accepted")
    """
    lines = run(program, **sglang_environment()).splitlines()
    assert [line for line in lines if "image" in line][-4:] == [
        "the prompt has 1 image tokens; 0 images need 0 tokens ([]) or one mark each",
        "the prompt has 3 image tokens; 1 images need 2 tokens ([2]) or one mark each",
        "the prompt has 4 image tokens; 3 images need 12 tokens ([4, 4, 4]) or one mark each",
        "the 2 tokens of image 0 are not in one piece (from 0 to 2)",
    ]


def test_torchvision_imports_beside_cpu_torch():
    program = """
        import importlib.util, sys
        from sglang_cpu import torchvision_ops

        torchvision_ops.install()
        torchvision_ops.install()
        finders = [f for f in sys.meta_path if isinstance(f, torchvision_ops.TorchvisionFinder)]
        assert len(finders) == 1
        assert importlib.util.find_spec("torchvision") is not None
        assert finders[0] in sys.meta_path  # a probe does not use it up
        import torchvision
        from torchvision.transforms.v2 import functional
        import torch
        assert functional.resize(torch.zeros(3, 8, 8), [4, 4]).shape == (3, 4, 4)
        if torchvision_ops._libraries:
            try:
                torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
            except RuntimeError as error:
                assert "custom C++ ops" in str(error)
            else:
                raise SystemExit("an operator that does not exist has run")
    """
    run(program)


@pytest.mark.slow  # a whole start of the server
def test_a_server_that_dies_says_why(tmp_path):
    with (
        pytest.raises(RuntimeError, match=r"the server ended with status \d+"),
        running_server(tmp_path / "absent", log_path=tmp_path / "log", timeout_seconds=120),
    ):
        pass


@pytest.mark.slow
def test_a_server_killed_during_its_start_leaves_no_process(checkpoint, tmp_path):
    command = [
        sys.executable,
        "-m",
        "sglang_cpu.launch_server",
        "--model-path",
        str(checkpoint),
        "--port",
        "1",
    ]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            command, env={**os.environ, **sglang_environment()}, stdout=log, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + 120
    children: list[psutil.Process] = []
    while len(children) < 3:  # scheduler, detokenizer, and multiprocessing's resource tracker
        assert server.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
        children = psutil.Process(server.pid).children(recursive=True)
    server.kill()
    server.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    for process in alive:
        process.kill()
    assert not alive
