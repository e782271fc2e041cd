"""The training figure that updates in place: one output of a cell, a line and a picture, replaced after every epoch.

One display is updated, so nothing is stacked, in JupyterLab as under nbclient; the picture is an image in HTML and
needs no widget. A front end without HTML shows the line alone.
"""

from __future__ import annotations

import base64
import html
import io
import math
import time

import pandas as pd
from IPython.display import DisplayHandle, Markdown
from matplotlib.figure import Figure

from ..plots.progress import plot_progress

__all__ = ["LiveFigure"]

PATIENCE = 20.0  # a drawing may take this part of the time: after one of a second the next comes 20 s later
DPI = 90  # of a picture that is looked at while it changes


class LiveFigure:
    """One output of a cell that follows training: `pretrain(config, dataset, on_epoch=LiveFigure(epochs=30).epoch)`.

    Drawing costs at most a twentieth of the time: where epochs are short, some pass without a new picture, none without
    a new line.

    Args:
        epochs: of the run, for the axis and the line; None shows only what has been done.
        name: of the run, at the beginning of the line.
        family: the method, for the colour.
    """

    def __init__(self, *, epochs: int | None = None, name: str = "", family: str = "") -> None:
        self.handle = DisplayHandle()
        self.shown = False
        self.picture = ""
        self.next_drawing = 0.0  # on time.monotonic's clock
        self.follow(epochs=epochs, name=name, family=family)

    def follow(
        self, *, epochs: int | None = None, name: str = "", family: str = "", earlier: list[pd.DataFrame] | None = None
    ) -> None:
        """Go on to another run in the same output.

        Args:
            earlier: histories of other seeds, drawn in grey; the list may grow.
        """
        self.epochs, self.name, self.family = epochs, name, family
        self.earlier = [] if earlier is None else earlier
        self.picture = ""

    def say(self, text: str) -> None:
        """Replace the output by a text."""
        self._show(Markdown(text))

    def epoch(self, history: pd.DataFrame) -> None:
        """For `pretrain(on_epoch=...)`: the figures of the last epoch, and the curves where it is time to draw them."""
        row = history.iloc[-1]
        online = row.get("online_auc", row.get("online_accuracy", math.nan))
        of = f" of {self.epochs}" if self.epochs else ""
        text = f"{self.name}, " if self.name else ""
        text += f"epoch {int(row.epoch)}{of}: loss {row.loss:.3f}, "
        text += f"{row.seconds:.0f} s" if math.isnan(online) else f"online val {online:.3f}, {row.seconds:.0f} s"
        text += ", **collapsed**" if row.get("collapsed", 0) else ""
        self._draw(history)
        bundle = {"text/plain": text, "text/markdown": text}
        if self.picture:
            bundle["text/html"] = f"<p>{html.escape(text.replace('**', ''))}</p>{self.picture}"
        self._show(bundle)

    def _draw(self, history: pd.DataFrame) -> None:
        begin = time.monotonic()
        if begin < self.next_drawing:
            return
        figure = plot_progress(history, epochs=self.epochs, family=self.family, earlier=self.earlier)
        self.picture = _image(figure, alt=f"training so far, {self.name}")
        end = time.monotonic()
        self.next_drawing = end + PATIENCE * (end - begin)

    def _show(self, content: object) -> None:
        raw = isinstance(content, dict)
        if self.shown:
            self.handle.update(content, raw=raw)
        else:
            self.handle.display(content, raw=raw)
        self.shown = True


def _image(figure: Figure, *, alt: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'
