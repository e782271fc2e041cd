"""What a notebook shows and writes: figures, tables, claims, provenance. Nothing else here writes.

Every function displays at once, in a form that GitHub, JupyterLab and the exported page all show; what the page must
know of an output (that it is a caption, that a claim does not hold) travels in the output's metadata under `cxr`.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
from IPython.display import display
from matplotlib.figure import Figure

from ..config import PretrainConfig
from ..data import Dataset
from ..fields import table
from ..methods import get_options
from ..recipes import resolve
from ..study import get_profile, project_root
from ..writing import write_bytes, write_table

__all__ = ["at_a_glance", "claim", "provenance", "save_figure", "save_table", "value_table"]

MARKS = {True: "✓", False: "✗ not borne out by these runs:", None: "– not measured in this profile:"}

GLANCE = {  # by what the records say, or what was done: its name, what was asked, and why
    "size": ("px", "224", "a run at 224 px takes a day on two cores"),
    "backbone": ("encoder", "ResNet-18", ""),
    "epochs": ("epochs", "20 to 50", ""),
    "batch_size": ("batch", "–", "SimCLR wants negatives, VICReg more steps"),
    "optimizer": ("optimizer", "LARS", "the runs are over before LARS has warmed up"),
    "seed": ("seeds", "–", ""),
    "minutes": ("minutes a run", "–", ""),
    "the last stage refitted": ("ImageNet weights", "torchvision's", "the original file was not to be had"),
    "3 epochs of 10,000 images": ("CIFAR-10", "100 epochs", "100 epochs take eight days a method here"),
}


def _show(mime: str, content: str, **about: Any) -> None:
    plain = re.sub(r"<[^>]+>", " ", content)
    display({mime: content, "text/plain": plain}, raw=True, metadata={"cxr": about})


def _target(kind: str, slug: str, suffix: str) -> Path:
    if not re.fullmatch(r"(\d\d|index)_[a-z0-9_]{1,80}", slug):
        raise ValueError(f"slug must be the notebook's number, _ and up to 80 of a-z, 0-9 and _, got {slug[:120]!r}")
    folder = Path(os.environ.get("CXR_REPORT") or project_root() / "report" / get_profile().name, kind)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{slug}{suffix}"


def save_figure(figure: Figure, slug: str, *, caption: str) -> None:
    """Write `figures/<slug>.png` below the report's folder, in 256 colours, and show that picture above its caption.

    Args:
        slug: `NN_words`, NN the notebook's number (or `index`).
        caption: what, n, seeds, and one line to take away; Markdown.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, bbox_inches="tight")
    drawn = PIL.Image.open(buffer).convert("RGB")  # a quarter of matplotlib's bytes, and not to be told from it
    few = drawn.quantize(256, method=PIL.Image.Quantize.MEDIANCUT, dither=PIL.Image.Dither.NONE)
    few.save(buffer := io.BytesIO(), format="png", optimize=True)
    png = buffer.getvalue()
    write_bytes(_target("figures", slug, ".png"), png)
    about = {"alt": caption, "width": round(100 * figure.get_figwidth())}
    display({"image/png": png, "text/plain": caption}, raw=True, metadata={"image/png": about})
    _show("text/markdown", caption, kind="caption")


def save_table(frame: pd.DataFrame, slug: str, *, caption: str, columns: Mapping[str, str] | None = None) -> None:
    """Write the frame as `tables/<slug>.csv` and show it, or some of its columns, above the caption.

    Scores have three decimals, points (`difference`, `gain`) one, counts none. A figure is joined by its interval:
    `x_low, x_high` for `x`; `low, high` for `difference`, else for scores. A line of one seed is marked †.

    Args:
        columns: {column: its title}, the encoder and the main figure first; None shows all.
    """
    write_table(_target("tables", slug, ".csv"), frame)
    if frame.empty:
        _show("text/markdown", f"{caption} None.", kind="caption")
        return
    titles = columns or {str(name): str(name) for name in frame}
    alone = (frame.filter(regex="^seeds(_[ab])?$") == 1).any(axis=1)
    shown = pd.DataFrame({title: _texts(frame, name) for name, title in titles.items()})
    shown.iloc[:, 0] += np.where(alone, "†", "")
    _show("text/html", _html(shown))
    _show("text/markdown", f"{caption} † One seed." if alone.any() else caption, kind="caption")


def _texts(frame: pd.DataFrame, name: str) -> list[str]:
    """A column as text, each figure with its interval where the frame has that."""
    common = name == "difference" or (name in ("auc", "accuracy", "value") and "difference" not in frame)
    low, high = ("low", "high") if common else (f"{name}_low", f"{name}_high")
    if low not in frame:
        return [_cell(value, name) for value in frame[name]]
    lines = [[_cell(value, name) for value in line] for line in frame[[name, low, high]].itertuples(index=False)]
    return [value if a == "–" else f"{value} [{a},\u00a0{b}]" for value, a, b in lines]


def _cell(value: Any, name: str) -> str:
    """A value as a table shows it."""
    if value is None or value is pd.NA or value != value:  # NaN
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if name in ("p", "p_holm"):
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    points = "difference" in name or "gain" in name
    return (f"{value:+.1f}" if points else f"{value:.1f}" if "minutes" in name else f"{value:.3f}").replace("-", "−")


def _html(shown: pd.DataFrame) -> str:
    """Text as an HTML table at most 700 px wide that scrolls in its own box."""
    with pd.option_context("display.max_colwidth", None):
        table = shown.to_html(index=False, border=0, justify="left")
    return f'<div class="table" style="max-width:700px;overflow-x:auto" tabindex="0">{table}</div>'


def value_table(*configs: PretrainConfig) -> pd.DataFrame:
    """Every declared value of trainings and of their methods, for `save_table`; its default where that is another.

    Args:
        configs: the methods' recipes are filled in.
    Returns:
        `method, name, value, unit, default, why`, all text.
    """
    rows = [
        {"method": config.method, **row}
        for config in map(resolve, configs)
        for row in (*table(config), *table(get_options(config.method, config.options)))
        if not isinstance(row["value"], Mapping) and row["name"] != "method"
    ]
    frame = pd.DataFrame(rows, columns=["method", "name", "value", "unit", "default", "why"], dtype=object)
    frame = frame.map(lambda value: f"{value:g}" if isinstance(value, float) else "–" if value is None else str(value))
    return frame.assign(default=frame["default"].where(frame["default"] != frame["value"], ""))


def at_a_glance(rows: Iterable[Any], data: Mapping[str, Dataset]) -> pd.DataFrame:
    """What the assignment asked, what was done, and why: `what, asked, done, why`, from the records of pretraining."""
    pretraining = [run for row in rows for run in row.runs if run.record.get("method", "supervised") != "supervised"]
    recorded = {key: [str(run.record[key]) for run in pretraining] for key in GLANCE if hasattr(PretrainConfig, key)}
    done = {key: ", ".join(dict.fromkeys(values)) or "–" for key, values in recorded.items()}
    minutes = [run.environment.get("seconds", 0) / 60 for run in pretraining]
    done["minutes"] = f"{min(minutes):.0f} to {max(minutes):.0f}" if minutes else "–"
    lines = []
    for name, dataset in data.items():
        why = "" if dataset.provenance.get("status") == "official" else "a rebuilt copy, or a part"
        lines.append((name, "MedMNIST's own", " / ".join(f"{len(split):,}" for split in dataset.splits.values()), why))
    lines += [(name, asked, done.get(key, key), why) for key, (name, asked, why) in GLANCE.items()]
    return pd.DataFrame(lines, columns=["what", "asked", "done", "why"])


def provenance(rows: Iterable[Any]) -> None:
    """Fold the runs that a page rests on, with commit, device and command, at its end; `rows` are `study.run_all`'s."""
    lines = []
    for label, run in ((row.label, run) for row in rows for run in row.runs):
        made, record = run.environment, run.record
        commit = str(made.get("commit", "unknown"))[:10] + "+" * bool(made.get("dirty"))
        line = {"encoder": label, "data": f"{record['dataset']} {record['size']} px", "seed": record["seed"]}
        lines.append(line | {"commit": commit, **{key: made.get(key, "–") for key in ("device_name", "command")}})
    summary = f"<summary>Provenance: {len(lines)} runs</summary>"
    _show("text/html", f"<details>{summary}{_html(pd.DataFrame(lines))}</details>", kind="provenance")


def claim(sentence: str, holds: bool | None) -> None:
    """Show the author's sentence with whether these runs bear it out, and leave it for the index.

    Args:
        sentence: Markdown.
        holds: what it rests on, such as `compare(rows, a, b).better`; None is not measured.
    """
    if holds not in (True, False, None):
        raise ValueError(f"holds must be True, False or None where nothing was measured, got {holds!r}")
    known = None if holds is None else bool(holds)
    _show("text/markdown", f"**{MARKS[known]}** {sentence}", kind="claim", holds=known, sentence=sentence)
