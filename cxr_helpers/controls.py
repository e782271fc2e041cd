"""What the explorer's controls are made of: sliders on whole steps, notes below them, a button that copies."""

from __future__ import annotations

import math
from dataclasses import Field
from typing import Any

import ipywidgets as widgets

from .augment import AugmentationPolicy

__all__ = ["COPY", "NOTE", "STYLE", "make_room", "number", "slider"]

NOTE = '<div class="cxr-note {kind}">{text}</div>'
COPY = (  # copying is the browser's to do, which lends its clipboard's better half to secure pages only
    '<button class="jupyter-button widget-button" style="width:auto" title="copy the line to the clipboard" '
    'data-code="{code}" onclick="if (navigator.clipboard) navigator.clipboard.writeText(this.dataset.code); '
    "else {{ const line = this.closest('.cxr-line').querySelector('input'); line.select(); "
    "document.execCommand('copy') }} this.textContent='copied'\">copy as code</button>"
)
# The picture stays in sight while its sliders scroll; colours are JupyterLab's own, light or dark.
STYLE = """<style>
.cxr-explorer { max-width: 1400px }
.cxr-explorer > .cxr-picture { width: 100%; max-width: 1164px; height: auto }
.cxr-explorer .cxr-scroll { display: block; max-height: max(38vh, 220px); overflow-y: auto; overscroll-behavior: auto;
  border: solid var(--jp-border-color2, #ccc); border-width: 1px 0 }
.cxr-explorer .cxr-fields { display: block; columns: 330px; column-gap: 24px }
.cxr-explorer .cxr-fields > * { break-inside: avoid; overflow: hidden; margin: 0 2px 6px }
.cxr-explorer .widget-html-content, .cxr-explorer .widget-html { line-height: 1.3; height: auto }
.cxr-note { font-size: 11px; color: var(--jp-ui-font-color2, #6b6b6b) }
.cxr-note.warning { color: var(--jp-error-color1, #b3261e) }
.cxr-explorer .noUi-handle:focus-visible { outline: 3px solid var(--jp-brand-color1, #0b5cad) }
</style>"""


def slider(item: Field[Any], policy: AugmentationPolicy) -> widgets.Widget:
    """Over the range for chest X-rays and once more its width to either side, as far as that is legal.

    The ends are whole steps: a browser moves every value to a step, counted from the lower end.
    """
    meta, value = item.metadata, getattr(policy, item.name)
    width = meta["high"] - meta["low"]
    low, high = max(meta["minimum"], meta["low"] - width), min(meta["maximum"], meta["high"] + width)
    look: dict[str, Any] = {"description": item.name, "style": {"description_width": "130px"}}
    look["layout"] = {"width": "auto"}
    if item.type == "int":
        return widgets.IntSlider(value, int(low), int(high), **look)
    digits = 2 if high > 0.5 else 3
    steps, slack = 10**digits, 1e-6  # .29 · 100 is 28.999…
    low, high = math.ceil(low * steps - slack) / steps, math.floor(high * steps + slack) / steps
    return widgets.FloatSlider(value, min=low, max=high, step=1 / steps, readout_format=f".{digits}f", **look)


def number(control: widgets.Widget, given: float) -> float:
    """A slider's value without the noise of its steps; the number it was given where no step lies closer to that."""
    return given if abs(control.value - given) <= control.step / 2 else type(given)(round(control.value, 6))


def make_room(control: widgets.Widget, value: float) -> None:
    """A slider that is too short for a value grows by whole steps."""
    if value < control.min:
        control.min = math.floor(value / control.step) * control.step
    if value > control.max:
        control.max = math.ceil(value / control.step) * control.step
