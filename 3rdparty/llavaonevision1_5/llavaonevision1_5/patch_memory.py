"""Patches of an image in memory that the server's processes share.

SGLang pickles a request from the process that prepares images to the one that runs the model, patches included: 12 MB
for an image of 1008 x 1008 pixels in float32, once for each rollout, although those of a group share the image and most
of them find it in the prefix cache. A `SharedTensor` pickles as its place instead and arrives as an ordinary tensor.
"""

from __future__ import annotations

import os
import uuid

import torch


class SharedTensor:
    """A tensor in anonymous memory of this process; its pickle is a tensor of the same memory.

    The memory lives as long as this object or a tensor made from its pickle, and ends with the processes: nothing is
    left behind in a file system. Linux only, as SGLang.
    """

    def __init__(self, tensor: torch.Tensor):
        self.shape, self.dtype, self.num_bytes = tuple(tensor.shape), tensor.dtype, tensor.nbytes
        self._name = f"patches-{uuid.uuid4().hex}"
        self._file = os.fdopen(os.memfd_create(self._name), "wb")
        self._file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
        self._file.flush()

    def __reduce__(self) -> tuple:
        return open_tensor, (os.getpid(), self._file.fileno(), self._name, self.shape, self.dtype)


def open_tensor(
    pid: int, descriptor: int, name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    """The tensor that process `pid` keeps under `descriptor`; not to be written to.

    Raises FileNotFoundError when that process has let go of it.
    """
    path = f"/proc/{pid}/fd/{descriptor}"
    if name not in os.readlink(path):  # the number has been given to another file
        raise FileNotFoundError(f"{path} is no longer {name}")
    size = torch.Size(shape).numel()
    if size == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.from_file(path, shared=False, size=size, dtype=dtype).reshape(shape)
