"""Import-only stand-ins for the packages that SGLang imports but does not use on a CPU.

A stand-in package has any submodule and any name one asks for, because SGLang imports dozens of them at
module level. Nothing of it works: calling a stand-in, or making an instance of one, raises `StandInCalled`
with its full name. A package that is really installed is never replaced.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

PACKAGES = {
    "sgl_kernel": "CUDA kernels of SGLang; its import needs libcuda",
    "compressed_tensors": "a weight quantisation format",
    "gguf": "a weight file format",
    "IPython": "shows generated text in notebooks",
}


class StandInCalled(RuntimeError):
    """Code that needs a package for which only an import-only stand-in is present."""


class StandIn:
    """A name imported from a stand-in package. Attributes are stand-ins too; a call raises."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> StandIn:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(f"{self._name}.{name}")

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        package = self._name.partition(".")[0]
        raise StandInCalled(
            f"{self._name} was called, but {package} ({PACKAGES[package]}) is an import-only stand-in on this "
            "CPU server. Some option selects a path that needs the real package; compare the server's flags "
            "with sglang_cpu.flags()."
        )

    def __or__(self, other: object) -> Any:  # annotations such as `ScalarType | None`, evaluated at import
        return Any

    __ror__ = __or__

    def __repr__(self) -> str:
        return f"<import-only stand-in {self._name}>"


class StandInModule(ModuleType):
    """A module of a stand-in package; every public name in it is a `StandIn`."""

    def __getattr__(self, name: str) -> StandIn:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(f"{self.__name__}.{name}")


class _Loader:
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run: names are made when they are asked for."""


class _Finder:
    """Finds the given packages and all their submodules."""

    def __init__(self, packages: frozenset[str]) -> None:
        self.packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in self.packages:
            return None
        return importlib.machinery.ModuleSpec(fullname, _Loader(), is_package=True)


def install() -> frozenset[str]:
    """Install stand-ins for those of `PACKAGES` that are missing, and SGLang's own stub for triton.

    `sgl_kernel` is replaced even where its files exist: on a machine without a GPU its import fails.
    Returns the names stood in for. A second call changes nothing.
    """
    for finder in sys.meta_path:
        if isinstance(finder, _Finder):
            return finder.packages
    missing = frozenset(
        name for name in PACKAGES if name == "sgl_kernel" or importlib.util.find_spec(name) is None
    )
    sys.meta_path.insert(0, _Finder(missing))
    if importlib.util.find_spec("triton") is None:
        from sglang._triton_stub import install as install_triton_stub

        install_triton_stub()
    return missing
