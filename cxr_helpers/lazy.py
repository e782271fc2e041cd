"""Packages whose names are imported when they are asked for: a mistake on a command line must not wait for torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["lazily"]


class _Package(ModuleType):
    """A package that knows in which of its modules each of its names is."""

    _places: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        if name not in self.__dict__.get("_places", {}):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{self.__name__}.{self._places[name]}"), name)
        super().__setattr__(name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in self._places):  # a function keeps its name from its module
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._places})


def lazily(package: str, modules: Mapping[str, str]) -> list[str]:
    """Give a package, by its `__name__`, names that are imported when asked for; returns them.

    Args:
        modules: {module of the package: the names it has, separated by blanks}.
    """
    found = sys.modules[package]
    found.__dict__["_places"] = {name: module for module, names in modules.items() for name in names.split()}
    found.__class__ = _Package
    return sorted(found.__dict__["_places"])
