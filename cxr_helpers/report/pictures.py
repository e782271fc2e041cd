"""Pictures of films: sheets of tiles with captions, and a slider that needs no kernel.

Films are arrays or tensors [H, W] or [C, H, W], uint8 or float in [0, 1]; greys are shown as they are stored.
"""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ..augment import (
    KINDS,
    POLICIES,
    SPECS,
    TOGGLED,
    AugmentationPolicy,
    Sweep,
    draw_rectangles,
    ends_of,
    range_of,
    rearrange,
)
from .style import WIDTH, colour_of, styled

__all__ = ["film_sheet", "sample_sheet", "slider_html", "sweep_sheet", "views_png", "views_sheet"]

SLIDER_PX = 128  # larger films are reduced in the slider


def _pixels(image: Any) -> NDArray[np.uint8]:
    """uint8 [H, W] of one channel, [H, W, 3] of three."""
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        pixels = np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    if pixels.ndim == 2:
        return pixels
    return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)


def _greys(image: Any, side: int) -> NDArray[np.uint8]:
    """uint8 [side, side] of any film."""
    return np.asarray(Image.fromarray(_pixels(image)).convert("L").resize((side, side)))


@styled
def film_sheet(rows: Mapping[str, Sequence[tuple[Any, str]]], *, foot: str = "") -> Figure:
    """Rows of films with their captions, each row under its name; below them words."""
    side = WIDTH / max(map(len, rows.values()))
    step = side + 0.23 + 0.16 * any(caption for films in rows.values() for _, caption in films)
    top = height = step * len(rows) + 0.05 + 0.15 * (foot.count("\n") + 1) * bool(foot)
    figure = Figure(figsize=(WIDTH, height))
    for name, films in rows.items():
        figure.text(0.01, (top - 0.07) / height, name, va="top")
        top -= step
        for i, (film, caption) in enumerate(films):
            ax = figure.add_axes(((i + 0.02) * side / WIDTH, top / height, 0.96 * side / WIDTH, 0.96 * side / height))
            ax.imshow(_pixels(film), cmap="gray", vmin=0, vmax=255, aspect="auto")
            ax.set_title(caption, pad=2, loc="center")
            ax.set_axis_off()
    figure.text(0.01, 0.05 / height, foot, va="bottom")
    return figure


def sample_sheet(images: Any, samples: pd.DataFrame) -> Figure:
    """A row of films of every class; `samples`: `class, index` (of the images)."""
    rows = {str(name): [(images[i], "") for i in part["index"]] for name, part in samples.groupby("class", sort=False)}
    return film_sheet(rows)


def rearranged_sheet(films: Mapping[str, Any], kinds: Mapping[str, str]) -> Figure:
    """Each film [C, H, W] as pretext tasks show it: rearranged (caption: kind), and a part hidden under its mean."""
    rows, draws = {}, torch.tensor([[0.5, 0.6, 0.5, 0.5]])
    for name, film in films.items():
        images = torch.as_tensor(film)[None]
        seen = [(rearrange(images, torch.tensor([KINDS.index(k)]))[0], fill(name, 10)) for name, k in kinds.items()]
        hidden = draw_rectangles(draws, images.shape[-1], 0.3, 0.3)[0]
        rows[name] = [*seen, (torch.where(hidden, images[0].float().mean().byte(), images[0]), "part\nhidden")]
    return film_sheet(rows)


def painted_sheet(films: Mapping[str, Any]) -> Figure:
    """Under each name films [3, C, H, W]: as they are, with a part hidden, and as painted."""
    return film_sheet({name: list(zip(of, ("film", "hidden", "painted"), strict=True)) for name, of in films.items()})


def views_sheet(films: Mapping[str, Any], views: Mapping[str, Any], policies: Sequence[AugmentationPolicy]) -> Figure:
    """Films, what each policy makes of them, and the policies' numbers; `views`: {policy: [film, view, C, H, W]}."""
    rows = {}
    for i, (name, film) in enumerate(films.items()):
        seen = [(view, policy) for policy, of_films in views.items() for view in of_films[i]]
        rows[name] = [(film, "original"), *seen]
    lines = [f"{policy.name}: " + "; ".join(_numbers(policy).values()) for policy in policies]
    return film_sheet(rows, foot="\n".join(fill(line, 72) for line in lines))


def _numbers(policy: AugmentationPolicy) -> dict[str, str]:
    """{operation: its magnitude, and probability where that is below 1}."""
    rows = [row for row in policy.describe() if row.effect != "none"]
    often = {row.operation: f", p {row.probability:g}" * (row.probability < 1) for row in rows}
    return {row.operation: f"{row.operation} {row.magnitude}{often[row.operation]}" for row in rows}


def sweep_sheet(sweeps: Sequence[Sweep]) -> Figure:
    """A film under each operation, a row from one end of its range to the other."""
    heads = [f"{_name(one)}, {SPECS[one.field].unit}" + ": changes nothing here" * one.inert for one in sweeps]
    tiles = [list(zip(one.views, one.captions, strict=True)) for one in sweeps]
    return film_sheet(dict(zip(heads, tiles, strict=True)))


def _name(sweep: Sweep) -> str:
    return re.sub("_(min|max|deg|std|prob)$", "", sweep.field).replace("_", " ")


def _strip(original: Any, views: Sequence[Any], side: int) -> Image.Image:
    """Views side by side; below each what changed: red brighter, blue darker."""
    films = np.hstack([_greys(film, side) for film in views]).astype(float)
    change = films - np.tile(_greys(original, side), len(views))
    coloured = mpl.colormaps["RdBu_r"](0.5 + change / 510)[..., :3] * 255
    shown = np.vstack([np.repeat(films[..., None], 3, axis=2), coloured])
    return Image.fromarray(shown.round().astype(np.uint8))


def views_png(original: Any, views: Sequence[Any], *, side: int = 160) -> bytes:
    """A film and views of it, as PNG; below each what changed. Fast enough for a slider."""
    buffer = io.BytesIO()
    _strip(original, [original, *views], side).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _address(original: Any, views: Any) -> str:
    """A strip of views as an address that needs no file."""
    buffer = io.BytesIO()
    _strip(original, views, min(views.shape[-1], SLIDER_PX)).save(buffer, "WEBP", quality=80, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def slider_html(films: Mapping[str, Sequence[Sweep]], policies: Sequence[str] = ("ref", "imagenet", "ssl")) -> str:
    """Two films side by side under one operation, its strength on a slider that marks what each policy uses; no kernel.

    Args:
        films: {name: sweeps of that film}, the same fields for each, one of them of `TOGGLED`; the first two are shown.
        policies: names in `POLICIES`.
    """
    first = next(iter(films.values()))
    plain = next(i for i, sweep in enumerate(first) if sweep.field in TOGGLED)
    shown = [{"name": _name(sweep), "captions": sweep.captions, "note": _note(sweep),
              "marks": [_marks(sweep, POLICIES[name]) for name in policies]} for sweep in first]  # fmt: skip
    strips = {name: [_address(of[plain].views[0], sweep.views) for sweep in of] for name, of in films.items()}
    data = json.dumps({"operations": shown, "films": strips})
    page = jinja2.Environment(loader=jinja2.PackageLoader(__package__, "."), autoescape=True)
    name = f"slider-{zlib.crc32(data.encode()):08x}"
    return page.get_template("slider.html.j2").render(data=data, id=name, films=list(films), shown=shown)


def _note(sweep: Sweep) -> str:
    if sweep.inert:
        return "Cannot change a one-channel image."
    low, high = range_of(sweep.field)
    return f"{SPECS[sweep.field].unit}; range for chest films {low:.3g} to {high:.3g}: {SPECS[sweep.field].why}."


def _marks(sweep: Sweep, policy: AugmentationPolicy) -> dict[str, Any]:
    """Where a policy's numbers lie on a sweep's scale, in parts of its length, and the policy's words for them."""
    words = _numbers(policy)
    group = SPECS[sweep.field].group
    said = words.get(sweep.field if group == "jitter" else group)
    ends = {getattr(policy, name) for name in ends_of(sweep.field)}
    ends |= {-end for end in ends if sweep.values[0] < 0}
    off = said is None or (group == "affine" and ends <= {0.0, 1.0})
    order = np.argsort(sweep.values)
    at = np.interp(sorted(ends), np.array(sweep.values)[order], order / (len(order) - 1)).tolist()
    kept = [] if off or sweep.field in TOGGLED else at
    return {"policy": policy.name, "colour": colour_of(policy.name), "at": kept, "text": "not used" if off else said}
