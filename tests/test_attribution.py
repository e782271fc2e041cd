"""Maps and their scores: the closed form of a linear probe, planted evidence, cells counted by hand, records alone."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TinyNet, texture_config, texture_dataset
from torch import Tensor, nn

from cxr_helpers import attribution, localisation, plots
from cxr_helpers.augment import Normalisation, eval_transform
from cxr_helpers.config import ProbeConfig, RuntimeConfig
from cxr_helpers.data import Dataset, Split
from cxr_helpers.evaluate import evaluate
from cxr_helpers.models import resnet, save_backbone
from cxr_helpers.pretrain import pretrain
from cxr_helpers.probe import LinearHead, threshold_from
from cxr_helpers.report import evidence, prose_evidence
from cxr_helpers.runs import Run

PROBE = ProbeConfig(cs=(0.01, 1.0), folds=2, sgd_epochs=1)
PLAIN = Normalisation(mean=(0.0,), std=(1.0,))


class StageNet(TinyNet):
    """TinyNet with the stages that maps are asked of: 8 x 8 cells and 4 x 4 cells at 64 px."""

    def __init__(self) -> None:
        super().__init__()
        del self.conv2, self.bn2
        self.layer3 = nn.Sequential(nn.Conv2d(64, 16, 3, 1, 1), nn.ReLU())
        self.layer4 = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        h = self.maxpool(self.bn1(self.conv1(x)).relu())
        return self.fc(self.layer4(self.layer3(h)).mean((2, 3)))


@pytest.fixture(autouse=True)
def stage_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(resnet.BUILDERS, "resnet18", StageNet)


def _head(outputs: int = 2, seed: int = 0) -> LinearHead:
    rng = np.random.default_rng(seed)
    return LinearHead(
        weights=rng.normal(size=(32, outputs)), bias=rng.normal(size=outputs), mean=rng.normal(size=32),
        std=rng.uniform(0.5, 2, 32), converged=True,
    )  # fmt: skip


def _probed(outputs: int = 2) -> attribution.Probed:
    torch.manual_seed(0)
    return attribution.Probed(resnet.ResNet("resnet18", 1, "imagenet", PLAIN).eval(), _head(outputs))


def _masked(seed: int, count: int) -> Split:
    """Dim noise; in the ill, a bright square of 16 px in one of the sixteen places of a grid, and its mask."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 40, (count, 1, 64, 64), generator=generator)
    masks = torch.zeros(count, 1, 64, 64, dtype=torch.bool)
    labels = torch.arange(count) % 2
    for i in torch.nonzero(labels).flatten().tolist():
        y, x = (16 * int(v) for v in torch.randint(0, 4, (2,), generator=generator))
        images[i, 0, y : y + 16, x : x + 16] += 200
        masks[i, 0, y : y + 16, x : x + 16] = True
    groups = np.char.add(f"{seed}-", (np.arange(count) // 2).astype(str))
    return Split(images=images.to(torch.uint8), labels=labels, masks=masks, groups=groups)


def squares() -> Dataset:
    train, val, test = (_masked(seed, count) for seed, count in enumerate((40, 24, 32)))
    return Dataset(
        name="squares", size=64, task="binary", class_names=("none", "square"), train=train, val=val, test=test,
        provenance={"source": "squares", "notes": []},
    )  # fmt: skip


# ---- maps


def test_the_probed_backbone_gives_the_probes_log_odds() -> None:
    probed, head = _probed(), _head()
    images = texture_dataset().test.images[:5]
    x = eval_transform(images, PLAIN)
    with torch.no_grad():
        np.testing.assert_allclose(probed(x), head.logits(probed.backbone(x).numpy()), atol=1e-4)


def test_the_last_stages_map_is_that_of_the_closed_form_and_its_cells_add_up_to_the_log_odds() -> None:
    probed, images = _probed(), texture_dataset().test.images[:5]
    with torch.no_grad():
        net, x = probed.backbone.net, eval_transform(images, PLAIN)
        cells = net.layer4(net.layer3(net.maxpool(net.bn1(net.conv1(x)).relu()))).double().numpy()  # [5, 32, 4, 4]
        odds = probed(x).double().numpy()[:, 1]
    expected = np.einsum("d,ndhw->nhw", probed.classifier.weight.detach().double().numpy()[1], cells) / 16
    found = attribution.grad_cam(probed, images, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    usual = attribution.usual_map(probed, images, 1)
    np.testing.assert_allclose(usual, expected.mean(axis=0), rtol=1e-4, atol=1e-6)
    evidence, base = attribution.evidence_maps(probed, images, 1, usual)
    np.testing.assert_allclose(evidence.mean(axis=(1, 2)) + base, odds, atol=1e-4)
    np.testing.assert_allclose(evidence.mean(axis=0), 0, atol=1e-5)
    assert base == pytest.approx(odds.mean(), abs=1e-4)


def test_maps_leave_the_backbone_as_it_was_and_name_a_stage_that_is_not_there() -> None:
    probed, images = _probed(), texture_dataset().test.images[:3]
    probed.backbone.net.bn1.train()
    before = {key: value.clone() for key, value in probed.state_dict().items()}
    assert attribution.grad_cam(probed, images, 0, "layer3").shape == (3, 8, 8)
    assert all(torch.equal(value, before[key]) for key, value in probed.state_dict().items())
    assert probed.backbone.net.bn1.training and all(p.grad is None for p in probed.parameters())
    with pytest.raises(ValueError, match="stage must be a part of the backbone, such as layer4"):
        attribution.grad_cam(probed, images, 0, "layer9")


# ---- scores


def test_pixels_of_masks_are_counted_in_the_cells_of_a_grid() -> None:
    masks = np.zeros((1, 7, 7), bool)  # cells of 4 and 3 px: rows 0-3 and 4-6
    masks[0, 3:5, 0:2] = True
    pixels, centres = localisation.cell_overlaps(masks, (2, 2))
    assert pixels.tolist() == [[2.0, 0.0, 2.0, 0.0]] and not centres.any()
    masks[0, 1, 5] = True
    pixels, centres = localisation.cell_overlaps(masks, (2, 2))
    assert pixels.tolist() == [[2.0, 1.0, 2.0, 0.0]] and centres.tolist() == [[False, True, False, False]]
    assert localisation.cell_overlaps(np.ones((1, 64, 64), bool), (4, 4))[0].sum() == 64 * 64


def test_a_map_of_the_truth_hits_and_reaches_the_best_of_its_grid_and_its_negative_neither() -> None:
    masks = squares().test.masks[1::2, 0].numpy()  # type: ignore[index]
    truth, _ = localisation.cell_overlaps(masks, (4, 4))
    scores = localisation.score_maps(truth.reshape(-1, 4, 4), masks, masks)
    assert (scores[["hit", "iou", "iou_best"]] == 1).all(axis=None)  # a square is one cell
    np.testing.assert_allclose(scores[["hit_random", "iou_random"]], 1 / 16)
    wrong = localisation.score_maps(-truth.reshape(-1, 4, 4), masks, masks)
    assert (wrong[["hit", "iou"]] == 0).all(axis=None) and (wrong["iou_best"] == 1).all()
    usual = masks.reshape(len(masks), -1)[:1].repeat(3, axis=0).reshape(3, 64, 64)  # always where the first one is
    habit = localisation.score_maps(truth.reshape(-1, 4, 4), masks, usual)
    assert habit["hit_usual"].iloc[0] == habit["iou_usual"].iloc[0] == 1
    same = (masks == masks[0]).all(axis=(1, 2))
    np.testing.assert_array_equal(habit["hit_usual"], same.astype(float))


def test_the_expectation_of_chance_is_the_mean_of_random_maps() -> None:
    rng = np.random.default_rng(0)
    masks = np.zeros((1, 64, 64), bool)
    masks[0, 10:40, 20:50] = True
    one = localisation.score_maps(rng.random((1, 8, 8)), masks, masks).iloc[0]
    many = localisation.score_maps(rng.random((4000, 8, 8)), masks.repeat(4000, axis=0), masks)
    assert many["hit"].mean() == pytest.approx(one["hit_random"], abs=0.02)
    assert many["iou"].mean() == pytest.approx(one["iou_random"], abs=0.01)
    assert (many["iou"] <= many["iou_best"] + 1e-12).all()


# ---- runs


@pytest.fixture
def run(runtime: RuntimeConfig) -> Run:
    run = pretrain(texture_config(dataset="squares", epochs=0, policy="none"), squares(), runtime)
    evaluate(run, squares(), runtime, PROBE, test=True)
    return run


def test_the_recorded_probe_is_found_again_and_other_weights_are_not_taken_for_it(
    run: Run, runtime: RuntimeConfig
) -> None:
    head = attribution.recorded_head(run, squares(), runtime)
    assert head.weights.shape == (32, 1)
    other = dataclasses.replace(squares(), test=squares().val)
    with pytest.raises(ValueError, match="must be the one that run"):
        attribution.recorded_head(run, other, runtime)
    for file in run.path.glob("features_*.safetensors"):
        file.unlink()
    changed = run.backbone()
    nn.init.normal_(changed.net.layer4[0].weight)
    save_backbone(changed, run.weights)
    with pytest.raises(ValueError, match="must have the weights of its record"):
        attribution.recorded_head(run, squares(), runtime)


def test_images_are_drawn_by_lot_among_each_kind_of_decision_and_need_no_weights_again(
    run: Run, runtime: RuntimeConfig
) -> None:
    table = attribution.explained_images(run, squares(), runtime, per_cell=2)
    val, test = run.predictions("val"), run.predictions("test")
    threshold = threshold_from(val["label"], val["score/square"])[0]
    rows = test.iloc[table["image"]]
    called, ill = rows["score/square"].to_numpy() >= threshold, rows["label"].to_numpy() == 1
    kinds = np.array([["tn", "fn"], ["fp", "tp"]])[called.astype(int), ill.astype(int)]
    assert table["kind"].tolist() == kinds.tolist() and table["kind"].value_counts().max() <= 2
    cells = table[[f"e{i}" for i in range(16)]].to_numpy()
    odds = np.log(table["score"] / (1 - table["score"]))
    np.testing.assert_allclose(cells.mean(axis=1) + table["usual"], odds, atol=1e-3)
    for file in run.path.glob("*.safetensors"):
        file.unlink()
    again = attribution.explained_images(run, squares(), runtime)
    np.testing.assert_allclose(again.select_dtypes("number"), table.select_dtypes("number"), rtol=1e-6)
    (run.path / "grad_cam.csv").unlink()
    with pytest.raises(FileNotFoundError, match="not its weights"):
        attribution.explained_images(run, squares(), runtime)


def test_a_page_shows_each_cells_figure_under_one_scale_and_says_how_images_were_drawn(
    run: Run, runtime: RuntimeConfig
) -> None:
    found = evidence.explain([run], squares(), runtime)
    table = found.tables["Random encoder"]
    figure = plots.plot_grad_cam(table, squares().test)
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    written = {t.get_text() for ax in figure.axes for t in ax.texts}
    values = table[[f"e{i}" for i in range(16)]].to_numpy().ravel()
    scales = {image.norm for ax in figure.axes for image in ax.images if image.get_array().shape == (4, 4)}
    assert len(scales) == 1 and all(scale.vmin == -scale.vmax for scale in scales)
    digits = 1 if next(iter(scales)).vmax >= 1 else 2
    assert {f"{v:+.{digits}f}".replace("-", "−") for v in values} == written
    ill = table["kind"].isin(["tp", "fn"]).sum()
    assert sum(bool(ax.collections) for ax in figure.axes if ax.images) == ill  # their masks are outlined
    text = prose_evidence.reading_of_maps(found, 64)
    assert (
        "drawn by lot" in text and "4 × 4 cells of 16 px" in text and f"threshold of {table.threshold[0]:.3f}" in text
    )
    counts = table["kind"].value_counts()
    assert f"{counts['tp']} rightly called" in text and ("none missed" in text) == ("fn" not in counts)


def test_planted_evidence_is_found_on_the_runs_own_films_and_on_others(
    run: Run, runtime: RuntimeConfig, tmp_path: Path
) -> None:
    table = localisation.localisation(run, squares(), squares(), runtime)
    assert set(table["stage"]) == {"layer4", "layer3"} and len(table) == 2 * 16 and set(table["name"]) == {"square"}
    last = table[table["stage"] == "layer4"]
    assert last["hit_special"].mean() > 0.8 > 5 * last["hit_random"].mean()  # bright squares and their edges
    assert last["iou_special"].mean() > 5 * last["iou_random"].mean()
    assert (table.groupby("image")["called"].nunique() == 1).all() and last["called"].mean() > 0.8
    other = pretrain(texture_config(epochs=0, policy="none"), texture_dataset(), runtime)
    evaluate(other, texture_dataset(), runtime, PROBE)
    moved = localisation.localisation(other, texture_dataset(), squares(), runtime, PROBE)
    assert set(moved["films"]) == {"squares"} and moved["hit_special"].mean() > 0.5
    other.weights.unlink()
    again = localisation.localisation(other, texture_dataset(), squares(), runtime, PROBE)
    np.testing.assert_allclose(again["iou"], moved["iou"], rtol=1e-6)


def test_films_with_masks_are_the_data_themselves_or_drawn_ones_of_the_same_task() -> None:
    own = squares()
    assert localisation.films_with_masks(own) is own
    assert localisation.films_with_masks(texture_dataset("multiclass")) is None
    assert localisation.films_with_masks(texture_dataset(channels=3)) is None
