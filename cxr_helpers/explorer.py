"""The explorer: sliders for every number of a policy, and one picture that follows them.

It draws through `plots` and augments through `augment`; what is said beside a slider is the metadata of the policy's
field. Python callbacks need a kernel: in an exported page only the picture's last state is left.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import ipywidgets as widgets
import torch
from torch import Tensor

from .augment import (
    POLICIES,
    AugmentationPolicy,
    OneView,
    code_line,
    draw_table,
    field_groups,
    inert_fields,
    magnitude_fields,
    range_notes,
    read_code_line,
)
from .controls import COPY, NOTE, STYLE, make_room, number, slider
from .data import Dataset, Split
from .plots.views import ViewsSheet

__all__ = ["Explorer", "explore_augmentations"]

NUM_VIEWS = 6  # three epochs of two views: enough to see a probability of a fifth
_ANY, _NO_LABEL = "any class", "no finding"
_INERT = "cannot change a one-channel image"


def explore_augmentations(
    dataset: Dataset,
    *,
    policy: str = "ssl",
    split: str = "train",
    size: int | None = None,
    index: int = 0,
    seed: int = 0,
) -> widgets.Widget:
    """A widget that shows what a policy does to one image, and what every number of it is for.

    The views are those that a run of this seed makes of the image: two in each of three epochs from the one shown,
    pixel noise apart. Nothing raises on bad data; what is wrong is said in one sentence in place of the picture.

    Args:
        dataset: any data set of `load_dataset`.
        policy: name in `POLICIES` to start from.
        split: train, val or test.
        size: side of the views in px; None is the images' own.
        index: of the image shown first, among all of the split.
        seed: of the draws, as in a run's configuration.

    Returns:
        An `Explorer`, or a line of text that says why there is nothing to explore.

    Raises:
        ValueError: an unknown policy or split.
    """
    complaint = _complaint(dataset, split)
    if complaint:
        return widgets.HTML(f"<b>There is nothing to explore:</b> {html.escape(complaint)}.")
    if policy not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, got {policy!r}")
    if split not in dataset.splits:
        raise ValueError(f"split must be one of {', '.join(dataset.splits)}, got {split!r}")
    members = dataset.splits[split]
    return Explorer(
        members,
        _classes_of(members, dataset.class_names),
        title=f"{dataset.name}, {split}",
        policy=policy,
        size=size or dataset.size,
        index=min(max(index, 0), len(members) - 1),
        seed=seed,
    )


def _complaint(dataset: Any, split: str) -> str:
    """Why a data set cannot be explored, as half a sentence; nothing where it can."""
    if not isinstance(dataset, Dataset):
        kind = f" of {dataset.dtype}" if isinstance(dataset, Tensor) else ""
        return (
            f"it takes a data set of load_dataset, whose images are uint8, got a {type(dataset).__name__}{kind}; "
            'try explore_augmentations(load_dataset("phantom", size=64))'
        )
    members = dataset.splits.get(split)
    if members is not None and members.images.dtype != torch.uint8:
        return (
            f"the images of {dataset.name} must be uint8 from 0 to 255, got {members.images.dtype}: "
            "multiply floats in [0, 1] by 255 and convert them"
        )
    if members is not None and len(members) == 0:
        return f"the {split} split of {dataset.name} has no images; another split may have some"
    return ""


def _classes_of(split: Split, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Indices of the images of each class or label that has any, behind those of all."""
    classes = {_ANY: torch.arange(len(split))}
    if split.labels.ndim == 1:
        members = {name: split.labels == k for k, name in enumerate(names)}
    else:
        members = {name: split.labels[:, k] == 1 for k, name in enumerate(names)}
        members[_NO_LABEL] = (split.labels == 0).all(dim=1)
    return classes | {name: rows.nonzero().flatten() for name, rows in members.items() if bool(rows.any())}


@lru_cache(maxsize=8)
def _training_draws(num_images: int, index: int, seed: int, epoch: int) -> Tensor:
    """The rows [NUM_VIEWS, 1, K] that a run's tables of this and the next epochs hold for one image."""
    tables = (draw_table(num_images, 2, seed, epoch + later) for later in range(NUM_VIEWS // 2))
    return torch.cat([table[index] for table in tables])[:, None]


class Explorer(widgets.VBox):
    """Controls and picture; every control may be set from Python as well, and the picture follows.

    Attributes:
        policy: the policy as the sliders say; the last legal one while they contradict each other.
        picture: `ipywidgets.Image`, PNG bytes in `value`.
        controls: {field: slider}.
        notes: {field: what is said below its slider}.
        choose_policy, choose_class, choose_image, choose_seed: what is shown.
        resample, reset: buttons.
        code: the line that makes `policy`.
        message: why the picture does not follow, or nothing.
    """

    def __init__(
        self, split: Split, classes: dict[str, Tensor], *, title: str, policy: str, size: int, index: int, seed: int
    ) -> None:
        self.split, self.classes, self.title, self.size = split, classes, title, size
        self.policy, self.epoch = POLICIES[policy], 0
        self.sheet = ViewsSheet(NUM_VIEWS)
        self._quiet, self._given = False, {item.name: getattr(self.policy, item.name) for item in magnitude_fields()}
        self.choose_policy = widgets.Dropdown(options=list(POLICIES), value=policy, description="policy")
        self.choose_class = widgets.Dropdown(options=list(classes), value=_ANY, description="class")
        self.choose_image = widgets.IntSlider(index, 0, len(split) - 1, description="image")
        self.choose_seed = widgets.BoundedIntText(seed, 0, 2**31 - 1, description="seed")
        self.resample = widgets.Button(description="resample", tooltip="the views of the next epochs", icon="refresh")
        self.reset = widgets.Button(description="reset to policy", tooltip="every slider back", icon="undo")
        self.picture = widgets.Image(format="png").add_class("cxr-picture")
        self.about, self.message, self.copy = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.code = widgets.Text(layout={"width": "100%"}, continuous_update=False)
        self.controls = {item.name: slider(item, self.policy) for item in magnitude_fields()}
        self.notes = {name: widgets.HTML() for name in self.controls}
        super().__init__([self._head(), self.picture, self.message, self._line(), self._groups()])
        self.add_class("cxr-explorer")
        self._listen()
        self._images_of_class()
        self._changed()

    def __repr__(self) -> str:
        return f"Explorer of {self.title}: its sliders need a kernel; what follows says the same without one"

    # ---- layout

    def _head(self) -> widgets.Widget:
        chosen = (self.choose_policy, self.choose_class, self.choose_image, self.choose_seed)
        for control in chosen:
            control.style.description_width, control.layout.width = "46px", "auto"
        self.choose_image.layout.width, self.choose_seed.layout.width = "300px", "130px"
        row = widgets.HBox([*chosen, self.resample, self.reset], layout={"flex_flow": "row wrap"})
        return widgets.VBox([widgets.HTML(STYLE, layout={"display": "none"}), row, self.about])

    def _line(self) -> widgets.Widget:
        return widgets.HBox([self.copy, self.code]).add_class("cxr-line")

    def _groups(self) -> widgets.Widget:
        """A box per operation, in as many columns as there is room for, scrolling below the picture."""
        boxes = []
        for operation, items in field_groups().items():
            title = widgets.HTML(f"<b>{operation}</b>")
            rows = [part for item in items for part in (self.controls[item.name], self.notes[item.name])]
            boxes.append(widgets.VBox([title, *rows]))
        return widgets.Box([widgets.Box(boxes).add_class("cxr-fields")]).add_class("cxr-scroll")

    # ---- reactions

    def _listen(self) -> None:
        for control in (self.choose_seed, self.choose_image, *self.controls.values()):
            control.observe(lambda _: self._changed(), "value")
        self.choose_class.observe(lambda _: self._class_chosen(), "value")
        self.choose_policy.observe(lambda _: self._to_policy(), "value")
        self.code.observe(lambda _: self._line_given(), "value")
        self.reset.on_click(lambda _: self._to_policy())
        self.resample.on_click(lambda _: self._next_epochs())

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Several controls are set, the picture is drawn once."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before
        self._changed()

    def _class_chosen(self) -> None:
        with self._together():
            self.choose_image.value = 0
            self._images_of_class()

    def _images_of_class(self) -> None:
        self.choose_image.max = len(self.classes[self.choose_class.value]) - 1
        self.choose_image.disabled = self.choose_image.max == 0

    def _to_policy(self) -> None:
        with self._together():
            self._set_controls(POLICIES[self.choose_policy.value])

    def _set_controls(self, policy: AugmentationPolicy) -> None:
        for name, control in self.controls.items():
            value = self._given[name] = getattr(policy, name)
            make_room(control, value)
            control.value = value

    def _line_given(self) -> None:
        """A line of code that was typed or pasted moves the sliders; what is wrong with it is said, nothing moves."""
        if self.code.value == code_line(self.choose_policy.value, self.policy):
            return
        try:
            base, policy = read_code_line(self.code.value)
        except ValueError as error:
            self._say(f"Not taken over: {error}")
            return
        with self._together():
            self.choose_policy.value = base
            self._set_controls(policy)

    def _say(self, text: str) -> None:
        self.message.value = NOTE.format(kind="warning", text=f"{html.escape(text)}.") if text else ""

    def _next_epochs(self) -> None:
        self.epoch += NUM_VIEWS // 2
        self._changed()

    def _changed(self) -> None:
        """Policy, notes, line of code and picture follow the controls; a contradiction is said instead."""
        if self._quiet:
            return
        base = POLICIES[self.choose_policy.value]
        values = {name: number(control, self._given[name]) for name, control in self.controls.items()}
        try:
            self.policy = replace(base, **values)  # type: ignore[arg-type]
        except ValueError as error:
            self._say(f"Not drawn: {error}")
            return
        self._say("")
        line = code_line(base.name, self.policy)
        self.code.value, self.copy.value = line, COPY.format(code=html.escape(line, quote=True))
        self._write_notes()
        self._draw()

    def _write_notes(self) -> None:
        outside, inert = range_notes(self.policy), inert_fields(self.split.images.shape[1])
        for item in magnitude_fields():
            meta, name = item.metadata, item.name
            said = f"{meta['low']:.3g} to {meta['high']:.3g}: {meta['reason']}"
            said = _INERT if name in inert else outside.get(name, said)
            kind = "warning" if name in inert or name in outside else ""
            self.notes[name].value = NOTE.format(kind=kind, text=f"{meta['unit']} · {html.escape(said)}")

    @property
    def index(self) -> int:
        """Of the image shown, in the split."""
        return int(self.classes[self.choose_class.value][self.choose_image.value])

    def _draw(self) -> None:
        index, seed = self.index, self.choose_seed.value
        image = self.split.images[index : index + 1]
        noise = torch.Generator(image.device).manual_seed(seed + self.epoch)
        draws = _training_draws(len(self.split), index, seed, self.epoch)
        plain = AugmentationPolicy(name="none", reason="identity")
        (original,) = OneView(plain, self.size)(image, draws[:1])
        (views,) = OneView(self.policy, self.size)(image.expand(NUM_VIEWS, -1, -1, -1), draws, noise)
        self.sheet.show(original[0], views, name=f"image {index}")
        self.picture.value = self.sheet.png()
        epochs = f"views of epochs {self.epoch} to {self.epoch + NUM_VIEWS // 2 - 1}"
        alone = "" if self.choose_image.max else "; the only image here: there is no other to choose"
        text = f"{self.title}, image {index}: {self._label(index)}; {self.size} px; {epochs}{alone}"
        self.about.value = html.escape(text)

    def _label(self, index: int) -> str:
        own = [name for name, rows in self.classes.items() if name != _ANY and bool((rows == index).any())]
        return ", ".join(own) or "not labelled"
