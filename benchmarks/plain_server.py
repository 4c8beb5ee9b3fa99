"""SGLang's CPU server without what a group shares, for comparison: see benchmarks/rollout_sharing.py.

Its attention is SGLang's own, and the patches of an image travel to the scheduler once more with each request.
"""

import torch

import sglang_cpu.tuning
from llavaonevision1_5 import patch_memory

# before the next import, which makes the changes
sglang_cpu.tuning.share_attention = lambda: None

from sglang_cpu import launch_server  # noqa: E402


def sent_along(tensor: torch.Tensor) -> torch.Tensor:
    """In the place of `SharedTensor`: the tensor itself, with the attribute that is read of one."""
    tensor.num_bytes = tensor.nbytes
    return tensor


patch_memory.SharedTensor = sent_along

if __name__ == "__main__":
    launch_server.main()
