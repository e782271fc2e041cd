"""What a run that guesses hidden parts paints into films, kept with its record, since weights do not travel."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from ..augment import get_policy, normalise
from ..data import Dataset
from ..methods import Target, get_options, load_method
from ..probe import evaluating
from ..runs import Run
from ..writing import write_bytes
from .frozen import require_data

__all__ = ["painted"]

FILMS = 3


def painted(run: Run, dataset: Dataset) -> NDArray[np.uint8]:
    """The first films of val as they are, with a part hidden, and with what the run paints there.

    Under `norm_pix` each patch gets its own mean and spread back, which the network was not asked for.

    Returns:
        uint8 [FILMS, 3, S, S], grey.
    Raises:
        FileNotFoundError: neither the picture nor the weights are there.
    """
    require_data(run, dataset)
    file, size = run.path / "painted.png", dataset.size
    if not file.is_file():
        buffer = io.BytesIO()
        Image.fromarray(np.vstack([np.hstack([*row]) for row in _painted(run, dataset)])).save(buffer, "PNG")
        write_bytes(file, buffer.getvalue())
    sheet = np.asarray(Image.open(file))
    return sheet.reshape(-1, size, 3, size).swapaxes(1, 2)


@torch.inference_mode()
def _painted(run: Run, dataset: Dataset) -> NDArray[np.uint8]:
    backbone, of = run.backbone(), run.record
    options = get_options(of["method"], of["options"])
    method: Any = load_method(of["method"])(backbone, options, Target(task="", num_outputs=1))
    method.load_state_dict(load_file(run.path / "network.safetensors"))
    films = dataset.val.images[:FILMS].float() / 255
    method.views(get_policy("none"), dataset.size)  # which says how much it draws
    draws = torch.rand(len(films), method.num_draws, generator=torch.Generator().manual_seed(0))
    hidden = method.hide(draws, dataset.size)
    x = normalise(films.expand(-1, backbone.in_channels, -1, -1), backbone.normalisation)
    with evaluating(method):
        _, made = method.paint(x, hidden)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in vars(backbone.normalisation).values())
    made = torch.where(hidden, made * std + mean, films)
    shown = torch.stack([films.mean(1), films.mean(1).masked_fill(hidden[:, 0], 0.5), made.mean(1)], dim=1)
    return (255 * shown.clamp(0, 1)).round().byte().numpy()
