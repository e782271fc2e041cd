"""Which values a page's runs used, and the reason that the code gives where it sets them."""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import Any

import pandas as pd

from ..augment import POLICIES
from ..config import PretrainConfig, ProbeConfig
from ..fields import help_of
from ..methods import METHODS, get_options, load_method, recipe_of
from ..recipes import resolve
from .lineage import NAMES, label_of

__all__ = ["field_notes", "hyperparameter_table"]


def field_notes(source: type) -> dict[str, str]:
    """What a class says about its values where it defines them: comments at line ends, docstrings below fields."""
    if is_dataclass(source):
        return {f.name: help_of(f) for f in fields(source)}
    text = textwrap.dedent(inspect.getsource(source))
    lines, comments, docs = text.splitlines(), {}, {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        found = re.match(r"\s*(?:\"(\w+)\"|(\w+))\s*:", lines[token.start[0] - 1]) if token.string[:1] == "#" else None
        if found:
            comments[found[1] or found[2]] = token.string.lstrip("# ")
    body = ast.parse(text).body[0]
    assert isinstance(body, ast.ClassDef)
    for item, after in pairwise(body.body):
        if isinstance(item, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            docs[ast.unparse(item.target)] = str(after.value.value)
    return {key: " ".join(filter(None, (docs.get(key), comments.get(key)))) for key in {**docs, **comments}}


_TRAINING = (
    "epochs",
    "batch_size",
    "optimizer",
    "lr",
    "weight_decay",
    "warmup_epochs",
    "online_lr",
    "backbone_lr_factor",
)


def _column_of(config: PretrainConfig) -> str:
    """Which column a configuration's values stand in: its method, and what it starts from."""
    scratch = label_of({**vars(config), "init": "random", "label_fraction": 1.0, "init_sha256": None})
    if config.init == "random":
        return scratch if config.label_fraction == 1 else f"{scratch}, part of the labels"
    if load_method(config.method).needs_labels:
        return "Fine-tuned"
    return f"{scratch} from {'ImageNet' if config.init == 'imagenet' else 'given weights'}"


def hyperparameter_table(plan: Iterable[PretrainConfig], probe: ProbeConfig = ProbeConfig()) -> pd.DataFrame:
    """Every value the trained methods of a plan and the probes used, and the reason the code gives where it sets it.

    A reason stands there only for a value that is the method's own; the others are the profile's or the plan's.
    """
    trained: dict[str, PretrainConfig] = {}
    for config in plan:
        if config.epochs > 0:
            trained.setdefault(_column_of(config), resolve(config))
    meanings, rows = field_notes(PretrainConfig), []
    for key in _TRAINING:
        own = {c.method for c in trained.values() if getattr(c, key) == recipe_of(c.method).get(key)}
        given = {
            NAMES.get(method, method): field_notes(load_method(method).Options).get(key)
            for method in METHODS
            if method in own
        }
        reasons = [f"{name}: {reason}." for name, reason in given.items() if reason]
        values = {name: getattr(config, key) for name, config in trained.items()}
        rows.append({"parameter": key, **values, "what it is and why": " ".join([meanings.get(key, ""), *reasons])})
    policies = {name: config.policy for name, config in trained.items()}
    why = " ".join(f"`{name}`: {POLICIES[name].reason}" for name in dict.fromkeys(policies.values()))
    rows.append({"parameter": "policy", **policies, "what it is and why": why})
    rows += _option_rows(trained)
    notes = field_notes(ProbeConfig)
    for key, value in vars(probe).items():
        shown = ", ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else value
        rows.append({"parameter": key, "probes": shown, "what it is and why": notes.get(key, "")})
    columns = ["parameter", *trained, "probes", "what it is and why"]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _option_rows(trained: Mapping[str, PretrainConfig]) -> list[dict[str, Any]]:
    """One row per option of each method, its value in every column that has the method, and the reason for the value:
    that of the method's recipe, or that of the default; a value that a plan set has none here."""
    rows = []
    for method in dict.fromkeys(config.method for config in trained.values()):
        given = {name: vars(get_options(c.method, c.options)) for name, c in trained.items() if c.method == method}
        recipe, defaults = recipe_of(method).get("options", {}), vars(get_options(method, {}))
        of_recipe, of_default = field_notes(load_method(method).Options), field_notes(load_method(method).Options)
        for key in next(iter(given.values())):
            values = {name: options[key] for name, options in given.items()}
            reasons = {defaults[key]: of_default.get(key, "")}
            reasons |= {recipe[key]: of_recipe.get(key, "")} if key in recipe else {}
            known = {value: reasons[value] for value in values.values() if reasons.get(value)}
            text = "; ".join(f"{value:g}: {why}" if len(known) > 1 else why for value, why in known.items())
            rows.append({"parameter": key, **values, "what it is and why": text})
    return rows
