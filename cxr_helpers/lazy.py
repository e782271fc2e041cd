"""Packages whose names are imported when they are asked for: a mistake on a command line must not wait for torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["lazily"]


def lazily(package: str, modules: Mapping[str, str]) -> list[str]:
    """Give a package, by its `__name__`, names that are imported when asked for; returns them.

    Args:
        modules: {module of the package: the names it has, separated by blanks}.
    """
    places = {name: module for module, names in modules.items() for name in names.split()}

    class Package(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name not in places:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            return getattr(import_module(f"{package}.{places[name]}"), name)

        def __setattr__(self, name: str, value: Any) -> None:
            if not (isinstance(value, ModuleType) and name in places):  # a function keeps its name from its module
                super().__setattr__(name, value)

        def __dir__(self) -> list[str]:
            return sorted({*super().__dir__(), *places})

    sys.modules[package].__class__ = Package
    return sorted(places)
