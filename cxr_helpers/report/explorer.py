"""The explorer: a slider for every number of a policy, and one picture that follows them.

What is said beside a slider is the metadata of the policy's field. Python callbacks need a kernel: in an exported page
nothing is left of them, so what follows an explorer in a notebook must work without one.
"""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import Any

import ipywidgets as widgets
import torch

from ..augment import POLICIES, SPECS, OneView, draw_table, inert_fields, range_of
from ..data import Dataset
from ..fields import require
from .pictures import views_png

__all__ = ["Explorer", "explore_augmentations"]

NUM_VIEWS = 6  # three epochs of two views: enough to see a probability of a fifth
NOTE = '<div class="cxr-note {kind}">{text}</div>'
# The picture stays in sight while its sliders scroll; colours are JupyterLab's own, light or dark.
STYLE = """<style>
.cxr-explorer > .cxr-picture { width: 100%; max-width: 1164px; height: auto }
.cxr-explorer .cxr-scroll { display: block; max-height: max(38vh, 220px); overflow-y: auto }
.cxr-explorer .cxr-fields { display: block; columns: 330px; column-gap: 24px }
.cxr-explorer .cxr-fields > * { break-inside: avoid; overflow: hidden; margin: 0 2px 6px }
.cxr-note { font-size: 11px; line-height: 1.3; color: var(--jp-ui-font-color2, #6b6b6b) }
.cxr-note.warning { color: var(--jp-error-color1, #b3261e) }
</style>"""


def explore_augmentations(dataset: Dataset, *, policy: str = "ssl", index: int = 0) -> Explorer:
    """A widget that shows what a policy does to one image of train, and what every number of it is for.

    The views are those that a run of seed 0 makes of the image: two in each of three epochs, pixel noise apart.

    Args:
        policy: name in `POLICIES` to start from.
        index: of the image shown first.
    Raises:
        ValueError: no data set of `load_dataset`, an unknown policy.
    """
    require(isinstance(dataset, Dataset), "dataset", 'one of load_dataset, such as load_dataset("phantom")', dataset)
    require(policy in POLICIES, "policy", f"one of {', '.join(POLICIES)}", policy)
    return Explorer(dataset, policy, index)


def _slider(name: str, value: float) -> widgets.Widget:
    """Over the range for chest X-rays and once more its width to either side, as far as that is legal."""
    low, high = range_of(name)
    low, high = max(SPECS[name].low, 2 * low - high), min(SPECS[name].high, 2 * high - low)
    look = {"description": name, "style": {"description_width": "130px"}, "layout": {"width": "auto"}}
    if isinstance(value, int):
        return widgets.IntSlider(value, int(low), int(high), **look)
    digits = 2 if high > 0.5 else 3  # the ends are whole steps, which a browser counts from the lower one
    ends = {"min": round(low, digits), "max": round(high, digits)}
    return widgets.FloatSlider(value, **ends, step=10**-digits, readout_format=f".{digits}f", **look)


class Explorer(widgets.VBox):
    """Controls and picture (PNG in `picture.value`); each may be set from Python as well, and the picture follows.

    Attributes:
        policy: the policy as the sliders say; the last legal one while they contradict each other.
        controls, notes: {field: slider}, {field: what is said below it}.
    """

    def __init__(self, dataset: Dataset, policy: str, index: int) -> None:
        self.split, self.name, last = dataset.train, dataset.name, len(dataset.train) - 1
        self.policy, self.epoch, self._quiet = POLICIES[policy], 0, False
        self._given = vars(self.policy)  # what the sliders were set to
        self.choose_policy = widgets.Dropdown(options=list(POLICIES), value=policy, description="policy")
        self.choose_image = widgets.IntSlider(min(max(index, 0), last), 0, last, description="image")
        self.resample = widgets.Button(description="resample", tooltip="the views of the next epochs", icon="refresh")
        self.reset = widgets.Button(description="reset to policy", tooltip="every slider back", icon="undo")
        self.picture = widgets.Image(format="png").add_class("cxr-picture")
        self.about, self.message, self.code = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.controls = {name: _slider(name, self._given[name]) for name in SPECS}
        self.notes = {name: widgets.HTML() for name in SPECS}
        row = [self.choose_policy, self.choose_image, self.resample, self.reset]
        head = [widgets.HTML(STYLE), widgets.HBox(row, layout={"flex_flow": "row wrap"}), self.about]
        super().__init__([*head, self.picture, self.message, self.code, self._groups()])
        self.add_class("cxr-explorer")
        for control in (self.choose_image, *self.controls.values()):
            control.observe(self._changed, "value")
        self.choose_policy.observe(self._to_policy, "value")
        self.reset.on_click(self._to_policy)
        self.resample.on_click(self._next_epochs)
        self._changed()

    def __repr__(self) -> str:
        return f"Explorer of {self.name}: its sliders need a kernel; what follows says the same without one"

    def _groups(self) -> widgets.Widget:
        """A box per operation, in as many columns as there is room for, scrolling below the picture."""
        boxes = []
        for group in dict.fromkeys(spec.group for spec in SPECS.values()):
            names = [name for name, spec in SPECS.items() if spec.group == group]
            rows = [part for name in names for part in (self.controls[name], self.notes[name])]
            boxes.append(widgets.VBox([widgets.HTML(f"<b>{group}</b>"), *rows]))
        return widgets.Box([widgets.Box(boxes).add_class("cxr-fields")]).add_class("cxr-scroll")

    def _next_epochs(self, _: Any) -> None:
        self.epoch += NUM_VIEWS // 2
        self._changed()

    def _to_policy(self, _: Any = None) -> None:
        """Every slider to the policy's number; the picture is drawn once."""
        self._quiet, self._given = True, vars(POLICIES[self.choose_policy.value])
        for name, control in self.controls.items():
            control.value = self._given[name]
        self._quiet = False
        self._changed()

    def _changes(self) -> dict[str, Any]:
        """The numbers that sliders were moved to, without the noise of their steps."""
        given, sliders = self._given, self.controls.items()
        moved = {name: one.value for name, one in sliders if abs(one.value - given[name]) > one.step / 2}
        return {name: type(given[name])(round(value, 6)) for name, value in moved.items()}

    def _changed(self, _: Any = None) -> None:
        """Policy, notes, line of code and picture follow the controls; a contradiction is said instead."""
        if self._quiet:
            return
        base, changes = self.choose_policy.value, self._changes()
        try:
            self.policy = replace(POLICIES[base], **changes)
        except ValueError as error:
            self.message.value = NOTE.format(kind="warning", text=escape(f"Not drawn: {error}."))
            return
        self.message.value = ""
        code = f'replace(POLICIES["{base}"]' + "".join(f", {name}={value!r}" for name, value in changes.items()) + ")"
        self.code.value = f"<code>{escape(code, quote=False)}</code>"
        self._write_notes()
        self._draw()

    def _write_notes(self) -> None:
        inert = inert_fields(self.split.images.shape[1])
        for name, spec in SPECS.items():
            low, high = range_of(name)
            said, kind = f"{low:.3g} to {high:.3g}: {spec.why}", ""
            if not low - 1e-9 <= getattr(self.policy, name) <= high + 1e-9:
                said, kind = f"outside {low:.3g} to {high:.3g}, the range for chest X-rays: {spec.why}", "warning"
            if name in inert:
                said, kind = "cannot change a one-channel image", "warning"
            self.notes[name].value = NOTE.format(kind=kind, text=f"{spec.unit} · {escape(said)}")

    def _draw(self) -> None:
        index, epochs = self.choose_image.value, range(self.epoch, self.epoch + NUM_VIEWS // 2)
        image, label = self.split.images[index], self.split.labels[index].tolist()
        draws = torch.cat([draw_table(len(self.split), 2, 0, epoch)[index] for epoch in epochs])[:, None]
        noise = torch.Generator(image.device).manual_seed(self.epoch)
        (views,) = OneView(self.policy, image.shape[-1])(image.expand(NUM_VIEWS, -1, -1, -1), draws, noise)
        self.picture.value = views_png(image, list(views))
        about = f"{self.name}, image {index} (label {label}); views of epochs {epochs[0]} to {epochs[-1]}"
        self.about.value = escape(about)
