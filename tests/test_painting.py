"""Pictures that an inpainting run leaves in its record."""

import numpy as np
import pytest
import torch
from conftest import texture_config, texture_dataset

from cxr_helpers.config import RuntimeConfig
from cxr_helpers.pretrain import pretrain
from cxr_helpers.report import pictures
from cxr_helpers.study import painted


def test_only_what_is_hidden_is_painted_and_the_record_needs_no_weights(tiny_net: None, runtime: RuntimeConfig) -> None:
    data = texture_dataset()
    run = pretrain(texture_config(method="inpainting", channels=3), data, runtime)
    shown = painted(run, data).astype(int)
    films, hidden, made = shown.transpose(1, 0, 2, 3)
    np.testing.assert_array_equal(films, data.val.images[:3, 0])
    for film, covered, painting in zip(films, hidden, made, strict=True):
        where = covered == 128  # the grey that hides
        assert 0.15 < where.mean() < 0.55 and (np.abs(painting - film)[~where] <= 1).all()
        assert (np.abs(painting - film)[where] > 1).mean() > 0.9  # a network of one epoch knows nothing
    for file in run.path.glob("*.safetensors"):
        file.unlink()
    np.testing.assert_array_equal(painted(run, data), shown)
    (run.path / "painted.png").unlink()
    with pytest.raises(FileNotFoundError, match=f"run {run.id} has its records but not its weights here"):
        painted(run, data)


@pytest.mark.parametrize(("method", "options"), [("mae", {"decoder_dim": 32, "decoder_depth": 1}),
                                                 ("inpainting", {"patch": 8})])  # fmt: skip
def test_hidden_patches_are_painted_too(method: str, options: dict[str, int], runtime: RuntimeConfig) -> None:
    data = texture_dataset(counts=(16, 12, 12))
    backbone = "vit_tiny6" if method == "mae" else "resnet18"
    run = pretrain(texture_config(method=method, backbone=backbone, options=options), data, runtime)
    films, covered, made = painted(run, data).astype(int).transpose(1, 0, 2, 3)
    cells = (covered == 128).reshape(3, 8, 8, 8, 8).mean(axis=(2, 4))
    assert ((cells == 1).sum(axis=(1, 2)) == 48).all() and (cells[cells < 1] < 0.2).all()
    where = np.kron(cells == 1, np.ones((8, 8))).astype(bool)
    assert (np.abs(made - films)[~where] <= 1).all() and (np.abs(made - films)[where] > 1).mean() > 0.9


def test_a_sheet_of_puzzles_shows_each_film_rearranged_and_with_a_part_in_its_mean() -> None:
    film = torch.arange(64 * 64).view(1, 64, 64).remainder(251).byte()
    figure = pictures.rearranged_sheet({"film": film}, {"as it is": "rot0", "mirrored": "flip up-down"})
    same, flipped, hidden = (np.asarray(ax.images[0].get_array()) for ax in figure.axes)
    np.testing.assert_array_equal(same, film[0])
    np.testing.assert_array_equal(flipped, film[0].flip(0))
    part = hidden != film[0].numpy()
    assert set(hidden[part]) == {int(film.float().mean())} and 0.27 < part.mean() < 0.33
