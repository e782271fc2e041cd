"""The explorer: a slider for every number of a policy, and one picture that follows them.

What is said beside a slider is the metadata of the policy's field. Python callbacks need a kernel: in an exported page
nothing is left of them, so what follows an explorer in a notebook must work without one.
"""

from __future__ import annotations

import math
from dataclasses import Field, replace
from html import escape
from typing import Any

import ipywidgets as widgets
import torch
from torch import Tensor

from ..augment import (
    POLICIES,
    OneView,
    code_line,
    draw_table,
    field_groups,
    inert_fields,
    magnitude_fields,
    range_notes,
)
from ..data import Dataset, Split
from ..fields import spec_of
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
.cxr-explorer .widget-html-content, .cxr-explorer .widget-html { line-height: 1.3; height: auto }
.cxr-note { font-size: 11px; color: var(--jp-ui-font-color2, #6b6b6b) }
.cxr-note.warning { color: var(--jp-error-color1, #b3261e) }
.cxr-explorer .noUi-handle:focus-visible { outline: 3px solid var(--jp-brand-color1, #0b5cad) }
</style>"""


def explore_augmentations(
    dataset: Dataset, *, policy: str = "ssl", split: str = "train", size: int = 0, index: int = 0, seed: int = 0
) -> Explorer:
    """A widget that shows what a policy does to one image, and what every number of it is for.

    The views are those that a run of this seed makes of the image: two in each of three epochs from the one shown,
    pixel noise apart.

    Args:
        policy: name in `POLICIES` to start from.
        split: train, val or test.
        size: side of the views in px; 0 is the images' own.
        index: of the image shown first. seed: of the draws.
    Raises:
        ValueError: an unknown policy or split, one without images, or no data set of `load_dataset`.
    """
    if not isinstance(dataset, Dataset):
        shown = 'explore_augmentations(load_dataset("phantom", size=64))'
        raise ValueError(f"dataset must be one of load_dataset, such as {shown}, got a {type(dataset).__name__}")
    for name, value, known in (("policy", policy, POLICIES), ("split", split, dataset.splits)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if not len(dataset.splits[split]):
        raise ValueError(f"the {split} split of {dataset.name} must have images, got none")
    return Explorer(dataset, policy, split, size or dataset.size, index, seed)


def _classes_of(split: Split, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Indices of the images of each class or label that has any, behind those of all."""
    if split.labels.ndim == 1:
        members = {name: split.labels == k for k, name in enumerate(names)}
    else:
        members = {name: split.labels[:, k] == 1 for k, name in enumerate(names)}
        members["no finding"] = (split.labels == 0).all(dim=1)
    found = {name: rows.nonzero().flatten() for name, rows in members.items() if bool(rows.any())}
    return {"any class": torch.arange(len(split)), **found}


def _slider(item: Field[Any], value: float) -> widgets.Widget:
    """Over the range for chest X-rays and once more its width to either side, as far as that is legal.

    The ends are whole steps: a browser moves every value to a step, counted from the lower end.
    """
    spec = spec_of(item)
    low, high = spec.slider or (spec.low, spec.high)
    low, high = max(spec.low, 2 * low - high), min(spec.high, 2 * high - low)
    digits = 0 if item.type == "int" else 2 if high > 0.5 else 3
    step, slack = 10**-digits, 1e-6  # .29 · 100 is 28.999…
    ends = {"min": math.ceil(low / step - slack) * step, "max": math.floor(high / step + slack) * step}
    look = {"description": item.name, "style": {"description_width": "130px"}, "layout": {"width": "auto"}}
    if item.type == "int":
        return widgets.IntSlider(value, **ends, **look)
    return widgets.FloatSlider(value, **ends, step=step, readout_format=f".{digits}f", **look)


class Explorer(widgets.VBox):
    """Controls and picture (PNG in `picture.value`); each may be set from Python as well, and the picture follows.

    Attributes:
        policy: the policy as the sliders say; the last legal one while they contradict each other.
        controls, notes: {field: slider}, {field: what is said below it}.
    """

    def __init__(self, dataset: Dataset, policy: str, split: str, size: int, index: int, seed: int) -> None:
        self.split, self.title, self.size = dataset.splits[split], f"{dataset.name}, {split}", size
        self.classes, last = _classes_of(self.split, dataset.class_names), len(self.split) - 1
        self.policy, self.epoch, self._quiet = POLICIES[policy], 0, False
        self._given = vars(self.policy)
        look: dict[str, Any] = {"style": {"description_width": "46px"}}
        self.choose_policy = widgets.Dropdown(options=list(POLICIES), value=policy, description="policy", **look)
        self.choose_class = widgets.Dropdown(options=list(self.classes), description="class", **look)
        self.choose_image = widgets.IntSlider(min(max(index, 0), last), 0, last, description="image", **look)
        self.choose_seed = widgets.BoundedIntText(seed, 0, 2**31 - 1, description="seed", **look)
        self.resample = widgets.Button(description="resample", tooltip="the views of the next epochs", icon="refresh")
        self.reset = widgets.Button(description="reset to policy", tooltip="every slider back", icon="undo")
        self.picture = widgets.Image(format="png").add_class("cxr-picture")
        self.about, self.message, self.code = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.controls = {item.name: _slider(item, getattr(self.policy, item.name)) for item in magnitude_fields()}
        self.notes = {name: widgets.HTML() for name in self.controls}
        super().__init__([*self._head(), self.picture, self.message, self.code, self._groups()])
        self.add_class("cxr-explorer")
        self._listen()
        self._changed()

    def __repr__(self) -> str:
        return f"Explorer of {self.title}: its sliders need a kernel; what follows says the same without one"

    def _head(self) -> list[widgets.Widget]:
        row = [self.choose_policy, self.choose_class, self.choose_image, self.choose_seed, self.resample, self.reset]
        for control, width in zip(row, (170, 200, 300, 130), strict=False):
            control.layout.width = f"{width}px"
        style = widgets.HTML(STYLE, layout={"display": "none"})
        return [style, widgets.HBox(row, layout={"flex_flow": "row wrap"}), self.about]

    def _groups(self) -> widgets.Widget:
        """A box per operation, in as many columns as there is room for, scrolling below the picture."""
        boxes = []
        for operation, items in field_groups().items():
            rows = [part for item in items for part in (self.controls[item.name], self.notes[item.name])]
            boxes.append(widgets.VBox([widgets.HTML(f"<b>{operation}</b>"), *rows]))
        return widgets.Box([widgets.Box(boxes).add_class("cxr-fields")]).add_class("cxr-scroll")

    def _listen(self) -> None:
        for control in (self.choose_seed, self.choose_image, *self.controls.values()):
            control.observe(lambda _: self._changed(), "value")
        self.choose_class.observe(lambda _: self._class_chosen(), "value")
        self.choose_policy.observe(lambda _: self._to_policy(), "value")
        self.reset.on_click(lambda _: self._to_policy())
        self.resample.on_click(lambda _: self._next_epochs())

    def _class_chosen(self) -> None:
        self.choose_image.value, self.choose_image.max = 0, len(self.classes[self.choose_class.value]) - 1
        self._changed()

    def _next_epochs(self) -> None:
        self.epoch += NUM_VIEWS // 2
        self._changed()

    def _to_policy(self) -> None:
        """Every slider to the policy's number; the picture is drawn once."""
        self._quiet, self._given = True, vars(POLICIES[self.choose_policy.value])
        for name, control in self.controls.items():
            control.value = self._given[name]
        self._quiet = False
        self._changed()

    def _number(self, name: str) -> float:
        """A slider's value without the noise of its steps; the number it was given where no step lies closer to it."""
        control, given = self.controls[name], self._given[name]
        return given if abs(control.value - given) <= control.step / 2 else type(given)(round(control.value, 6))

    def _changed(self) -> None:
        """Policy, notes, line of code and picture follow the controls; a contradiction is said instead."""
        if self._quiet:
            return
        base = POLICIES[self.choose_policy.value]
        try:
            self.policy = replace(base, **{name: self._number(name) for name in self.controls})  # type: ignore[arg-type]
        except ValueError as error:
            self.message.value = NOTE.format(kind="warning", text=escape(f"Not drawn: {error}."))
            return
        self.message.value = ""
        self.code.value = f"<code>{escape(code_line(base.name, self.policy), quote=False)}</code>"
        self._write_notes()
        self._draw()

    def _write_notes(self) -> None:
        outside, inert = range_notes(self.policy), inert_fields(self.split.images.shape[1])
        for item in magnitude_fields():
            spec, name = spec_of(item), item.name
            low, high = spec.slider or (spec.low, spec.high)
            said = outside.get(name, f"{low:.3g} to {high:.3g}: {spec.why}")
            said = "cannot change a one-channel image" if name in inert else said
            kind = "warning" if name in inert or name in outside else ""
            self.notes[name].value = NOTE.format(kind=kind, text=f"{spec.unit} · {escape(said)}")

    def _draw(self) -> None:
        index, seed = int(self.classes[self.choose_class.value][self.choose_image.value]), self.choose_seed.value
        image = self.split.images[index : index + 1]
        noise = torch.Generator(image.device).manual_seed(seed + self.epoch)
        epochs = range(self.epoch, self.epoch + NUM_VIEWS // 2)
        draws = torch.cat([draw_table(len(self.split), 2, seed, epoch)[index] for epoch in epochs])[:, None]
        (original,) = OneView(POLICIES["none"], self.size)(image, draws[:1])
        (views,) = OneView(self.policy, self.size)(image.expand(NUM_VIEWS, -1, -1, -1), draws, noise)
        self.picture.value = views_png(original[0], list(views))
        own = [name for name, rows in self.classes.items() if name != "any class" and bool((rows == index).any())]
        shown = f"image {index}: {', '.join(own) or 'not labelled'}; {self.size} px; views of epochs"
        self.about.value = escape(f"{self.title}, {shown} {epochs[0]} to {epochs[-1]}")
