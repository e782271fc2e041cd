"""Films with boxes on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..config import RuntimeConfig
from ..detect import CORNERS, films_of
from ..fields import require
from ..runs import Run
from ..study import readers_of
from .pictures import film_sheet
from .style import styled

__all__ = ["boxes_sheet", "draw_run", "film_rows"]

COLOURS = ["#4cc9f0", "#f9c74f", "#ff2d2d", "#90be6d", "#c77dff", "#ff99c8", "#ffffff", "#4361ee"]  # seen on grey


def film_rows(
    images: Any, films: Iterable[int], readers: pd.DataFrame, truth: pd.DataFrame, found: pd.DataFrame | None
) -> dict[str, list[tuple[Any, pd.DataFrame, str]]]:
    """Rows for `boxes_sheet`: all that readers drew, the true boxes, and as many that a detector is surest of."""
    rows = {}
    for film in films:
        drawn, true = (table[table["film"] == film] for table in (readers, truth))
        tiles = {f"{drawn['reader'].nunique()} readers": drawn} if len(drawn) else {}
        tiles |= {"fused" if len(drawn) else "true": true}
        if found is not None:
            tiles |= {"detector": found[found["film"] == film].nlargest(len(true), "score")}
        rows[f"film {film}"] = [(images[film], boxes, words) for words, boxes in tiles.items()]
    return rows


@styled
def boxes_sheet(rows: Mapping[str, Sequence[tuple[Any, pd.DataFrame, str]]], names: Sequence[str]) -> Figure:
    """Rows of films with boxes on them: of each film [C, S, S] its boxes and a caption.

    A finding has one colour on the sheet; below it stands which.

    Args:
        rows: boxes have `finding` and corners as fractions of the side.
        names: of the findings.
    """
    films = [one for row in rows.values() for one in row]
    shown = sorted({int(kind) for _, boxes, _ in films for kind in boxes["finding"]})
    key = "   ".join(f"{i + 1} {names[kind]}" for i, kind in enumerate(shown))
    words, line = list[str](), ""
    for word in key.split("   "):
        if len(line) + len(word) > 60:
            words, line = [*words, line], ""
        line = f"{line}   {word}".strip()
    figure = film_sheet({name: [(film, text) for film, _, text in row] for name, row in rows.items()},
                        foot="\n".join([*words, line]))  # fmt: skip
    for ax, (film, boxes, _) in zip(figure.axes, films, strict=True):
        side = film.shape[-1]
        for kind, (left, top, right, bottom) in zip(boxes["finding"], boxes[CORNERS].to_numpy() * side, strict=True):
            number = shown.index(int(kind))
            colour = COLOURS[number % len(COLOURS)]
            ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, ec=colour, lw=1))
            ax.text(left + 1, top + 1, str(number + 1), color=colour, fontsize=6, va="top", clip_on=True)
    return figure


def draw_run(run: Run, runtime: RuntimeConfig, *, split: str, count: int, target: Path) -> str:
    """Draw the true boxes of a split's first films above as many that a detector is surest of; says what was done."""
    dataset = films_of(run, runtime)
    files = [run.path / f"{kind}_{split}.csv.gz" for kind in ("boxes", "detections")]
    require(files[1].is_file(), split, f"a split on which run {run.id} was scored", split)
    truth, found = map(pd.read_csv, files)
    films, readers = range(min(count, len(dataset.splits[split]))), readers_of(dataset, split, runtime.root)
    figure = boxes_sheet(film_rows(dataset.splits[split].images, films, readers, truth, found), dataset.class_names)
    figure.savefig(target, dpi=200, bbox_inches="tight")
    return f"drew {len(films)} films of {split} with boxes of run {run.id} as {target.name}"
