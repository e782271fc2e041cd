"""What a notebook writes and shows: figures, answers and tables."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
from IPython.display import Image, Markdown
from matplotlib.figure import Figure
from matplotlib.text import Text

from ..planning import project_root
from ..profiles import Profile
from ..runs import commit_record, write_bytes, write_table
from .claims import PAGE, one_data_set
from .lineage import commit_text
from .prose import cell
from .tables import resampled_unit, rows_of

__all__ = [
    "page_commit",
    "report_folder",
    "save_answer",
    "save_figure",
    "save_table",
    "shown_pairs",
    "shown_runs",
    "shown_summary",
    "to_markdown",
    "with_palette",
]

_MOVED_LEVELS = 0.5  # of 255, the mean that a palette may move a picture's pixels

# ---- the only writers


def report_folder(profile: Profile) -> Path:
    """Where a page's figures and tables go: `CXR_REPORT`, else the checkout's ignored `report/<profile>`."""
    return Path(os.environ.get("CXR_REPORT") or project_root() / "report" / profile.name)


def _target(kind: str, slug: str, suffix: str, profile: Profile) -> Path:
    if not re.fullmatch(r"\d\d_[a-z0-9_]{1,80}", slug):  # 80: file systems end names at 255 bytes
        raise ValueError(
            f"slug must be the notebook's two digits, _ and up to 80 of a to z, 0 to 9 and _, got {slug[:120]!r}"
        )
    PAGE.require_profile(profile.name)
    building = os.environ.get("CXR_PROFILE") if os.environ.get("CXR_REPORT") else None
    if building not in (None, profile.name):
        raise ValueError(f"profile must be {building}, whose report is being built, got {profile.name}")
    folder = report_folder(profile) / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{slug}{suffix}"


def save_figure(figure: Figure, slug: str, profile: Profile, *, alt: str = "") -> Image:
    """Write `figures/<slug>.png` and return that very picture for display.

    Args:
        slug: `NN_words`, NN the notebook's number.
        alt: what the figure shows, for those who cannot see it.
    """
    buffer = io.BytesIO()
    _show_names_as_they_are(figure)
    figure.savefig(buffer, format="png", dpi=160, bbox_inches="tight", metadata={"Software": None})
    content = with_palette(buffer.getvalue())
    write_bytes(_target("figures", slug, ".png", profile), content)
    width = int(figure.get_figwidth() * 100)
    return Image(data=content, format="png", width=width, alt=alt or slug[3:].replace("_", " "))


def with_palette(png: bytes) -> bytes:
    """A PNG in 256 colours, less than half its size, where that moves its pixels by under half a level on average."""
    drawn = PIL.Image.open(io.BytesIO(png)).convert("RGB")
    few = drawn.quantize(256, method=PIL.Image.Quantize.MEDIANCUT, dither=PIL.Image.Dither.NONE)
    moved = np.abs(np.asarray(few.convert("RGB"), np.int16) - np.asarray(drawn, np.int16)).mean()
    if moved > _MOVED_LEVELS:
        return png
    buffer = io.BytesIO()
    few.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _show_names_as_they_are(figure: Figure) -> None:
    """A dollar sign in the name of a class is a dollar sign, not the beginning of a formula (that of a log axis is)."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if "$" in text.get_text() and not re.fullmatch(r"\$\\mathdefault\{[^$]*\}\$", text.get_text()):
            text.set_parse_math(False)


def save_table(table: pd.DataFrame, slug: str, profile: Profile) -> pd.DataFrame:
    """Write `tables/<slug>.csv` and return the table."""
    write_table(_target("tables", slug, ".csv", profile), table)
    return table


def save_answer(slug: str, text: str, profile: Profile) -> Markdown:
    """Write `answers/<slug>.md` (Markdown), which the report's index shows below the notebook's question; show it here.

    Raises:
        ValueError: a text that says nothing.
    """
    if not text.strip():
        raise ValueError(f"an answer must say something, got {text!r}")
    write_bytes(_target("answers", slug, ".md", profile), f"{text.strip()}\n".encode())
    return Markdown(text)


# ---- tables as readers see them


def to_markdown(table: pd.DataFrame) -> str:
    """A table as Markdown: numbers to the right, nothing for missing values but a dash."""
    if table.empty:
        return "*(no rows)*"

    def shown(value: Any) -> str:
        missing = value is None or (isinstance(value, float) and pd.isna(value))
        return "–" if missing else cell(str(value))

    marks = ["---:" if pd.api.types.is_numeric_dtype(table[c]) else "---" for c in table]
    rows = [[shown(v) for v in row] for row in table.itertuples(index=False)]
    head = [[cell(str(c)) for c in table], marks]
    return "\n".join("| " + " | ".join(row) + " |" for row in [*head, *rows])


def _interval(mean: float, low: float, high: float, digits: int = 3) -> str:
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def shown_runs(table: pd.DataFrame) -> str:
    """`runs_table` for readers: every run, loaded or trained here, with its commit and command."""
    columns = {"data": "data", "size": "px", "label": "encoder", "seed": "seed", "epochs": "epochs"}
    shown = table[list(columns)].rename(columns=columns)
    for split in ("val", "test"):
        if split in table:
            shown[split] = [_interval(*v) for v in table[[split, f"{split}_low", f"{split}_high"]].to_numpy()]
            shown[f"kNN {split}"] = table[f"{split}_knn"].map("{:.3f}".format)
    shown["minutes"] = table.minutes.map("{:.0f}".format)
    return to_markdown(shown.assign(status=table.get("status"), commit=table.commit, run=table.run_id))


def shown_summary(
    summary: pd.DataFrame,
    published: pd.DataFrame | None = None,
    *,
    pairs: pd.DataFrame | None = None,
    brief: bool = False,
) -> str:
    """`summary_table` of one data set for readers, published figures below the line that separates protocols.

    Args:
        pairs: `paired_table` of `floor_pairs`: a column for each floor, in points with the paired interval, bold where
            that excludes zero.
        brief: without val and kNN.
    """
    rows = []
    floors = _floor_columns(summary, pairs)
    interval = f"95 % interval ({resampled_unit(summary)})"
    for row in rows_of(one_data_set(summary).sort_values("test_mean", ascending=False)):
        spread = f"{row.test_mean:.3f} ± {row.test_sd:.3f}" if row.num_seeds > 1 else f"{row.test_mean:.3f}"
        rows.append(
            {
                "encoder": row.label,
                "protocol": row.protocol,
                "seeds": str(row.num_seeds),
                "val": f"{row.val_mean:.3f}",
                "test, mean ± sd of seeds": spread,
                interval: f"[{row.test_low:.3f}, {row.test_high:.3f}]",
                **{title: cells.get(row.label, "") for title, cells in floors.items()},
                "kNN test": f"{row.test_knn:.3f}",
                "commit": row.commits,
            }
        )
    for other in [] if published is None else rows_of(published.sort_values("value", ascending=False)):
        rows.append(
            {
                "encoder": f"*{other.label}*",
                "protocol": f"*{other.status}: {other.protocol}; {other.source}*",
                "test, mean ± sd of seeds": f"*{other.value:g}*",
            }
        )
    table = pd.DataFrame(rows)
    return to_markdown(table.drop(columns=["val", "kNN test"], errors="ignore") if brief else table)


def _floor_columns(summary: pd.DataFrame, pairs: pd.DataFrame | None) -> dict[str, dict[str, str]]:
    """Column title to a cell for every row that was set against that floor."""
    columns: dict[str, dict[str, str]] = {}
    if pairs is None or pairs.empty:
        return columns
    family = dict(zip(summary["label"], summary["family"], strict=True))
    titles = {"imagenet": "minus frozen ImageNet, points", "random": "minus untrained, points"}
    alone = summary["family"].value_counts() == 1
    for row in rows_of(pairs):
        title = titles[family[row.b]] if alone[family[row.b]] else f"minus {row.b}, points"
        number = f"{100 * row.difference:+.1f}"
        number = number if row.verdict == "not distinguishable" else f"**{number}**"
        cell = f"{number} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]".replace("-", "−")
        columns.setdefault(title, {})[row.a] = cell
    return columns


def shown_pairs(pairs: pd.DataFrame) -> str:
    """`paired_table` for readers, in points (hundredths) of the metric."""
    if pairs.empty:
        return to_markdown(pairs)
    one_data_set(pairs)
    rows = [
        {
            "a": row.a,
            "b": row.b,
            "seeds": f"{len(row.seeds_a)} / {len(row.seeds_b)}",
            "a − b, points": f"{100 * row.difference:+.1f}".replace("-", "−"),
            "95 % interval": f"[{100 * row.low:+.1f}, {100 * row.high:+.1f}]".replace("-", "−"),
            "p": _p(row.p_value),
            f"p, Holm of {len(pairs)}": _p(row.p_holm),
            "a is": row.verdict,
            "commits": row.commits,
        }
        for row in rows_of(pairs)
    ]
    return to_markdown(pd.DataFrame(rows))


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"  # none is 0: it is counted on resamples


def page_commit() -> str:
    """The commit that makes a page, with a + where the code differed from it."""
    return commit_text(commit_record())
