"""AReaL's classes of settings without its engines, for commands that read a configuration and answer.

`import areal` brings torch, transformers and every engine before its first line is of use to anybody, seconds of
processor time; `areal.api.cli_args` needs almost nothing of it. A process that calls `import_alone` first reads that
module by itself. What it names of the heavy ones is imported at its first use, so nothing is different but the time,
and that what is read here is no attribute of the package: write `from areal.api import ...`, as everywhere.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from operator import attrgetter
from types import ModuleType
from typing import Any

WANTED = ("areal.api.cli_args", "areal.api.alloc_mode", "areal.launcher")
# packages whose own code is postponed, their modules being found as ever
PACKAGES = ("areal", "areal.infra", "areal.engine.fsdp_utils")
# modules of which functions and objects are named at import, and used later or never
MODULES = (
    "areal.infra.platforms",
    "torch",
    "torch.distributed",
    "transformers",
    "transformers.integrations",
    "transformers.integrations.hub_kernels",
)


def import_alone() -> None:
    """Import the modules of `WANTED`; nothing to do where AReaL is there already."""
    if "areal" in sys.modules:
        return
    root = importlib.util.find_spec("areal").submodule_search_locations[0]
    postponed: dict[str, ModuleType] = {name: _Later(name) for name in MODULES if name not in sys.modules}
    for name in PACKAGES:
        postponed[name] = ModuleType(name)
        postponed[name].__path__ = ["/".join([root, *name.split(".")[1:]])]
    sys.modules.update(postponed)
    try:
        for name in WANTED:
            importlib.import_module(name)
    finally:
        for name in postponed:
            del sys.modules[name]


class _Later(ModuleType):
    """Stands for a module while another one is imported that only names things of it."""

    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _LaterObject(self.__name__, name)


class _LaterObject:
    """A thing of such a module: the real one is imported when it is called or, afterwards, looked into."""

    def __init__(self, module: str, name: str):
        self._place = module, name

    def _real(self) -> Any:
        module, name = self._place
        return attrgetter(name)(importlib.import_module(module))

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._real()(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        module, own = self._place
        if isinstance(sys.modules.get(module), _Later):
            return _LaterObject(module, f"{own}.{name}")
        return getattr(self._real(), name)

    def __or__(self, other: Any) -> Any:  # `torch.distributed.ProcessGroup | None`, an annotation
        return self
