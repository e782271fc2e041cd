"""Methods: what is learnt from the views of an image, behind one contract (`base`). What is here needs no torch.

A new method is a class like those of `joint`, in a module of one's own (`--method my_module:Name`) or a line here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..fields import kind_of, read
from ..lazy import lazily
from .options import (
    ConsistencyOptions,
    InpaintingOptions,
    MAEOptions,
    Options,
    RotationOptions,
    SimCLROptions,
    SupervisedOptions,
    VICRegOptions,
)

if TYPE_CHECKING:
    from .base import Batch, Method, Target, projection_head
    from .losses import nt_xent_loss, vicreg_loss

__all__ = [
    "METHODS",
    "Batch",
    "Method",
    "Options",
    "Target",
    "get_options",
    "load_method",
    "nt_xent_loss",
    "projection_head",
    "recipe_of",
    "vicreg_loss",
]

lazily(__name__, {"base": "Batch Method Target projection_head", "losses": "nt_xent_loss vicreg_loss"})

METHODS: dict[str, tuple[str, type[Options]] | type[Method]] = {  # where a class is, and its options; or the class
    "simclr": (f"{__name__}.joint:SimCLR", SimCLROptions),
    "vicreg": (f"{__name__}.joint:VICReg", VICRegOptions),
    "supervised": (f"{__name__}.supervised:Supervised", SupervisedOptions),
    "rotation": (f"{__name__}.rotation:Rotation", RotationOptions),
    "inpainting": (f"{__name__}.inpainting:Inpainting", InpaintingOptions),
    "consistency": (f"{__name__}.consistency:Consistency", ConsistencyOptions),
    "mae": (f"{__name__}.mae:MAE", MAEOptions),
}


def load_method(method: str) -> type[Method]:
    """The class of a method.

    Args:
        method: a name in `METHODS`, or `my_module:Name` for a class in a module of the current folder or of `sys.path`.
    Raises:
        ValueError: no such name, module or class, or the class is no `Method`.
    """
    known = METHODS.get(method)
    if isinstance(known, type):
        return known
    module, colon, name = (known[0] if known else method).partition(":")
    if not colon:
        raise ValueError(f"method must be one of {', '.join(METHODS)} or my_module:Name, got {method!r}")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(import_module(module), name, None)
    except ImportError as error:
        raise ValueError(f"method must name a module that can be imported, got {method!r} ({error})") from None
    from .base import Method  # and torch: a name that is not there has its answer by now

    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ValueError(f"method must name a class of {module} that is a Method, got {method!r}")
    return found


def _options_of(method: str) -> type[Options]:
    known = METHODS.get(method)
    return known[1] if isinstance(known, tuple) else load_method(method).Options


def recipe_of(method: str) -> dict[str, Any]:
    """The training values of a method where a configuration says None, and `options` where it has its own."""
    return {**Options.recipe, **_options_of(method).recipe}


def get_options(method: str, changes: Mapping[str, Any]) -> Any:
    """The options of a method, its defaults changed by name; words of a command line are read as the field's kind.

    Raises:
        ValueError: an unknown method or option, or a value out of range; the message lists what exists.
    """
    options = _options_of(method)
    kinds = {f.name: kind_of(f).removesuffix(" | None") for f in fields(options)}
    unknown = sorted(map(str, set(changes) - set(kinds)))
    if unknown:
        raise ValueError(f"options of {method} must be among {', '.join(kinds)}, got {', '.join(unknown)}")
    return options(**{k: read(k, v, kinds[k]) if isinstance(v, str) else v for k, v in changes.items()})
