"""SGLang's own server on a CPU-only machine: `python -m sglang_cpu.launch_server --model-path ...`.

SGLang 0.5.10.post1 has all it needs to generate on a CPU with plain PyTorch operators, but it imports CUDA
kernel packages on the way. This package supplies import-only stand-ins for them (`stand_ins`), the flags and
the environment that select the PyTorch paths (here, in one place), and the launch script that puts both into
every process of the server. A GPU run never imports it.

This module needs the standard library alone, so that a launcher can ask it for flags and environment.
"""

from __future__ import annotations

DEFAULT_MAX_TOTAL_TOKENS = 65_536


def flags(*, max_total_tokens: int = DEFAULT_MAX_TOTAL_TOKENS) -> dict[str, str | int | bool]:
    """Server flags of a CPU run, by option name without dashes in front; True stands for a bare switch.

    `max_total_tokens` is the size of the KV cache in tokens. It is always explicit: without it SGLang takes a
    fixed share of the machine's memory (6 GB and more beside a trainer).
    """
    if max_total_tokens <= 0:
        raise ValueError(f"max_total_tokens must be positive, got {max_total_tokens}")
    return {
        "device": "cpu",
        "attention-backend": "torch_native",
        "sampling-backend": "pytorch",
        "grammar-backend": "none",
        "dtype": "float32",  # the trainer computes in float32 on CPU; log-probabilities must agree
        "trust-remote-code": True,  # a checkpoint's auto_map leads to its configuration and processor
        "enable-multimodal": True,
        "skip-tokenizer-init": True,  # token ids in, token ids out
        "max-total-tokens": max_total_tokens,
        "disable-cuda-graph": True,
        "disable-overlap-schedule": True,
        "skip-server-warmup": True,
        "sleep-on-idle": True,  # an idle scheduler would otherwise spin on a core that the trainer needs
    }


def environment(*, num_threads: int = 1) -> dict[str, str]:
    """Environment variables of a CPU server process and of its children.

    One OpenMP thread was the fastest setting measured (2118 against 890 tokens/s at 128 requests, 2 cores).
    """
    return {
        "SGLANG_USE_CPU_ENGINE": "1",  # without it SGLang takes a machine without GPU for an unknown platform
        "OMP_NUM_THREADS": str(num_threads),
        "MKL_NUM_THREADS": str(num_threads),
        "TOKENIZERS_PARALLELISM": "false",
        # Without it torch.distributed resolves the host name, which containers often cannot.
        "GLOO_SOCKET_IFNAME": "lo",
    }


def command_line(options: dict[str, str | int | bool | None]) -> list[str]:
    """Arguments for `launch_server` from a dict like that of `flags()`; None and False are left out.

    >>> command_line({"device": "cpu", "disable-cuda-graph": True, "port": 30000})
    ['--device', 'cpu', '--disable-cuda-graph', '--port', '30000']
    """
    arguments: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        arguments.append("--" + name.replace("_", "-"))
        if value is not True:
            arguments.append(str(value))
    return arguments
