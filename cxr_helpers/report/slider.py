"""Pre-rendered views behind a slider: what a page has in the explorer's place, where no kernel runs.

A notebook displays the static sheet; the data of the slider travel with it under a type of their own, which only
`report.pages` understands, so that Jupyter and GitHub show the sheet.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from IPython.display import Image

from ..augment import TOGGLED, Sweep, magnitude_fields
from ..plots.augmentations import sweep_title
from ..plots.images import grey_tile, reduced
from ..plots.strips import TILE_PX, compressed_tiles, histogram_heights, view_strips

__all__ = ["SLIDER", "Sliding", "slider_html", "with_slider"]

SLIDER = "application/vnd.cxr-helpers.sweeps+json"
_PANE_PX = 208  # about the side of a picture in the page: four fit side by side at 1,280 px
_META = {item.name: item.metadata for item in magnitude_fields()}


class Sliding:
    """A static picture with the data of a slider beside it; IPython displays it.

    Attributes:
        picture: what is shown where nothing slides.
        data: JSON for `slider_html`.
    """

    def __init__(self, picture: Image, data: Mapping[str, Any]) -> None:
        self.picture, self.data = picture, data

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = self.picture._repr_mimebundle_()
        return {**data, SLIDER: self.data}, metadata


def _address(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


def with_slider(picture: Image, sweeps: Sequence[Sweep], *, about: str) -> Sliding:
    """The sheet of some sweeps for display, to become a slider in a page.

    Args:
        picture: the sheet, from `save_figure`.
        sweeps: of one image, at least one of them of an operation that is applied or not.
        about: what image that is, in a few words.

    Raises:
        ValueError: no sweep shows the image as it is.
    """
    plain = next((item.views[0] for item in sweeps if item.field in TOGGLED), None)
    if plain is None:
        raise ValueError(f"sweeps must have one of {', '.join(TOGGLED)}, got {', '.join(s.field for s in sweeps)}")
    operations = []
    for item in sweeps:
        operations.append(
            {
                "name": sweep_title(item),
                "captions": list(item.captions),
                "note": _note(item),
                "strips": [_address(strip) for strip in view_strips(plain, item.views)],
                "heights": histogram_heights(item.views),
            }
        )
    small = reduced(plain[None], TILE_PX)[0]
    data = {
        "about": about,
        "side": small.shape[-1],
        "original": _address(compressed_tiles(grey_tile(small))),
        "heights": histogram_heights(plain[None])[0],
        "operations": operations,
    }
    return Sliding(picture, data)


def _note(item: Sweep) -> str:
    """What stands below the slider of an operation."""
    if item.inert:
        return "Cannot change a one-channel image."
    meta = _META[item.field]
    if item.field in TOGGLED:
        return f"Applied or not, without a strength: {meta['reason']}."
    return f"{item.unit}; range for chest X-rays {meta['low']:.3g} to {meta['high']:.3g}: {meta['reason']}."


def slider_html(data: Mapping[str, Any], sheet: str, name: str) -> str:
    """The slider of a page around its static sheet, which is what paper, and a browser without scripts, show.

    Args:
        data: from `with_slider`, read back from a notebook.
        sheet: HTML of the static picture.
        name: an id that is used once in the page.
    """
    side = int(data["side"])
    pane = side * max(1, round(_PANE_PX / side))  # whole screen pixels to a pixel
    options = "".join(f"<option>{escape(operation['name'])}</option>" for operation in data["operations"])
    kept = [{key: value for key, value in operation.items() if key != "name"} for operation in data["operations"]]
    stored = escape(json.dumps({"heights": data["heights"], "operations": kept}), quote=True)
    original, about = escape(str(data["original"]), quote=True), escape(str(data["about"]))
    changing = "".join(
        f'<figure><div class="pane {kind}" role="img" aria-label="{said}"></div>'
        f"<figcaption>{said}</figcaption></figure>"
        for kind, said in (("view", "view"), ("difference", "view − image: red brighter, blue darker"))
    )
    return f"""<div class="slider" style="--pane: {pane}px" data-slider="{stored}">
<div class="live" hidden>
<p class="knobs"><label>operation <select>{options}</select></label>
<label>strength <input type="range" min="0" step="1"></label> <output></output></p>
<p class="remark" aria-live="polite"></p>
<div class="panes">
<figure><div class="pane"><img src="{original}" alt="{about}"></div><figcaption>{about}</figcaption></figure>
{changing}
<figure><svg class="pane" viewBox="0 0 64 64" preserveAspectRatio="none" role="img" aria-label="grey values">
<path class="before"/><path class="after"/></svg>
<figcaption>grey values from 0 to 1; filled: the image's (square roots of shares)</figcaption></figure>
</div>
<p><button type="button" aria-expanded="false" aria-controls="{name}">Show all of them at once</button></p>
</div>
<div class="sheet" id="{name}">{sheet}</div>
</div>"""
