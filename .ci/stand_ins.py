"""Imports a serving engine's argument parser without a GPU, torch or the rest of what the engine needs.

What cannot be imported is stood in for by classes that can be called, subclassed, subscripted and named in annotations. Nothing
of the engine runs but the definition of its options and the validators of its own configuration classes.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from abc import ABCMeta
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Meta(ABCMeta):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _made(f"{cls.__name__}.{name}")

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and callable(args[0]) and not isinstance(args[0], _Meta):
            return args[0]  # stands in for a decorator
        return type.__call__(cls)

    def __getitem__(cls, key: Any) -> Any:
        return cls

    def __or__(cls, other: Any) -> Any:
        return Any

    __ror__ = __or__

    def __iter__(cls) -> Any:
        return iter(())

    def __len__(cls) -> int:
        return 0

    def __lt__(cls, other: Any) -> bool:
        return True

    __gt__ = __le__ = __ge__ = __lt__

    def __hash__(cls) -> int:
        return id(cls)

    def __eq__(cls, other: Any) -> bool:
        return cls is other


class StandIn(metaclass=_Meta):
    """Takes any argument, has any attribute."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __init_subclass__(cls, **kwargs: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _made(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and callable(args[0]):
            return args[0]
        return self

    def __getitem__(self, key: Any) -> Any:
        return self

    def __iter__(self) -> Any:
        return iter(())

    def __bool__(self) -> bool:
        return False

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *args: Any) -> None:
        return None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.any_schema()


def _made(name: str) -> Any:
    return _Meta(name.rpartition(".")[2], (StandIn,), {"__module__": "stand_ins"})


class _Module(ModuleType):
    __path__: list[str] = []
    lacks: frozenset[str] | set[str] = frozenset()
    """Attributes that the engine asks for to find out what machine it is on."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in self.lacks:
            raise AttributeError(name)
        made = _made(name)
        setattr(self, name, made)
        return made


def stand_in(*names: str) -> None:
    """These modules are stood in for, and what lies below them."""
    for name in names:
        module = _Module(name)
        module.__version__ = "0.0.0"
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        sys.modules[name] = module
        parent, _, last = name.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], last, module)


def pretend(versions: dict[str, str]) -> None:
    """What ``importlib.metadata.version`` says of packages that are not installed."""
    real = importlib.metadata.version

    def version(name: str) -> str:
        try:
            return versions.get(name) or real(name)
        except importlib.metadata.PackageNotFoundError:
            return "0.0.0"

    importlib.metadata.version = version


def import_with_stand_ins(name: str, most: int = 200) -> ModuleType:
    """A module of the engine; whatever it fails to find is stood in for. Imports that it guards itself stay."""
    top = name.partition(".")[0]
    for _ in range(most):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or isinstance(sys.modules.get(error.name), _Module):
                raise
            stand_in(error.name)
            for half in [
                key for key, module in sys.modules.items() if key.split(".")[0] == top and not isinstance(module, _Module)
            ]:
                del sys.modules[half]  # imported by a package that itself failed
    raise ImportError(f"{name} wants more than {most} modules that are not there")
