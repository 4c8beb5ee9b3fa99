"""Makes PyPI's torchvision importable beside a CPU build of torch.

torchvision's wheel on PyPI links CUDA libraries, so its compiled operators do not load with CPU torch. Its
Python side still registers shape functions for `nms` and `qnms` and stops with
`operator torchvision::nms does not exist`. Declaring the two schemas first is enough for everything but the
operators themselves, and those then fail with torchvision's own explanation.

`install()` puts a finder in front of the import system. It costs nothing until torchvision is imported, and
it declares nothing when the compiled operators load (CUDA torch, or a torchvision built for CPU).
`python -m sglang_cpu.install_hook` makes every process of an environment call it at start.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []  # a torch.library.Library undoes its definitions when it is collected


def declare_missing_operators(torchvision_folder: Path) -> bool:
    """Declare the schemas of `nms` and `qnms` if torchvision's compiled operators cannot be loaded.

    Returns whether they were declared. Does nothing with CUDA torch.
    """
    import torch

    if torch.version.cuda is not None or getattr(torch.version, "hip", None) is not None or _libraries:
        return False
    for extension in sorted(torchvision_folder.glob("_C*.so")):
        try:
            ctypes.CDLL(str(extension))
        except OSError:
            continue  # linked against CUDA libraries that are not here
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        library.define(schema)
    _libraries.append(library)
    return True


class _DeclaringLoader:
    """Torchvision's own loader, with the declaration before the module runs."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        declare_missing_operators(Path(module.__file__ or "").parent)
        self._loader.exec_module(module)


class TorchvisionFinder:
    """Answers for the top-level name `torchvision` only.

    It stays on `sys.meta_path`: transformers probes with `find_spec` long before anything is imported.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "torchvision":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _DeclaringLoader(spec.loader)
        return spec


def install() -> None:
    """Put the finder first on `sys.meta_path`; a second call changes nothing."""
    if not any(isinstance(finder, TorchvisionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, TorchvisionFinder())
