"""Import-only stand-ins for what AReaL imports and a trainer rank alone never calls (Ray, loggers, servers, numba).

    import benchmarks.stand_ins   # before AReaL

Only packages that are not installed are stood in for. Whatever is taken from a stand-in is a class that can be
inherited from, or a decorator that leaves the function as it is; used in any other way it raises ModuleNotFoundError.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import Any

PACKAGES = (
    "accelerate", "aiofiles", "aiohttp", "datasets", "fastapi", "flask", "httpx", "numba", "openai", "pandas", "peft",
    "pyarrow", "ray", "scipy", "sklearn", "swanlab", "tensorboardX", "trackio", "uvicorn", "uvloop", "wandb",
    "werkzeug",
)  # fmt: skip


class _Meta(type):
    """Attributes of a stand-in class are stand-ins too: `ray.util.placement_group.PlacementGroup`."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _make(f"{cls.__qualname__}.{name}")

    def __or__(cls, other: Any) -> Any:  # in annotations
        return Any

    __ror__ = __or__


def _make(name: str) -> Any:
    def new(cls: type, *args: Any, **options: Any) -> Any:
        if cls.__qualname__ != name:  # a class that inherits from a stand-in
            return object.__new__(cls)
        if len(args) == 1 and not options and isinstance(args[0], types.FunctionType | type):
            return args[0]  # a decorator without arguments
        if options or not args:  # or one with them
            return lambda function: function
        raise ModuleNotFoundError(f"{name} was called, but {name.partition('.')[0]} is not installed")

    def subscript(cls: type, item: Any) -> type:
        return cls

    return _Meta(
        name, (), {"__new__": new, "__class_getitem__": classmethod(subscript), "__module__": __name__}
    )


class _StandIn(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _make(f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value


def _asked_by_areal() -> bool:
    """Whether the import under way stands in AReaL; others (transformers) go without what is not installed."""
    frame = sys._getframe(2)
    while frame is not None and "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("areal", __name__)


class _Finder:
    """Finds `PACKAGES` that nothing else has found, and all below them."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        if name.partition(".")[0] not in PACKAGES or not _asked_by_areal():
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> types.ModuleType:
        module = _StandIn(spec.name)
        module.__version__ = "0"
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        module.__path__ = []


sys.meta_path.append(_Finder())
