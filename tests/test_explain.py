"""Maps and their scores: the closed form of a linear probe, planted evidence, cells counted by hand, records alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from conftest import TinyNet, texture_config, texture_dataset
from torch import Tensor, nn

from cxr_helpers.augment import Normalisation, eval_transform
from cxr_helpers.config import ProbeConfig, RuntimeConfig
from cxr_helpers.data import Dataset, Split
from cxr_helpers.evaluate import evaluate
from cxr_helpers.models import resnet
from cxr_helpers.pretrain import pretrain
from cxr_helpers.probe import LinearHead, threshold_from
from cxr_helpers.runs import Run
from cxr_helpers.study import explain, patient_means

PROBE = ProbeConfig(cs=(0.01, 1.0), folds=2, sgd_epochs=1)
PLAIN = Normalisation(mean=(0.0,), std=(1.0,))


class StageNet(TinyNet):
    """TinyNet with the stages that maps are asked of: 8 x 8 cells and 4 x 4 cells at 64 px."""

    def __init__(self) -> None:
        super().__init__()
        del self.conv2, self.bn2
        self.relu, self.layer1, self.layer2 = nn.ReLU(), nn.Identity(), nn.Identity()
        self.layer3 = nn.Sequential(nn.Conv2d(64, 16, 3, 1, 1), nn.ReLU())
        self.layer4 = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        h = self.maxpool(self.bn1(self.conv1(x)).relu())
        return self.fc(self.layer4(self.layer3(h)).mean((2, 3)))


@pytest.fixture(autouse=True)
def stage_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(resnet.BUILDERS, "resnet18", StageNet)


def masked(seed: int, count: int) -> Split:
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
    train, val, test = (masked(seed, count) for seed, count in enumerate((40, 24, 32)))
    about = {"class_names": ("none", "square"), "provenance": {"source": "squares", "notes": []}}
    return Dataset(name="squares", size=64, task="binary", train=train, val=val, test=test, **about)  # type: ignore[arg-type]


@pytest.fixture
def run(runtime: RuntimeConfig) -> Run:
    run = pretrain(texture_config(dataset="squares", epochs=0, policy="none"), squares(), runtime)
    evaluate(run, squares(), runtime, PROBE, test=True)
    return run


def test_the_last_stages_map_is_that_of_the_closed_form_and_maps_leave_the_backbone_as_it_was() -> None:
    rng, images = np.random.default_rng(0), texture_dataset().test.images[:5]
    about = {"mean": rng.normal(size=32), "std": rng.uniform(0.5, 2, 32), "converged": True}
    head = LinearHead(weights=rng.normal(size=(32, 2)), bias=rng.normal(size=2), **about)  # type: ignore[arg-type]
    backbone = resnet.ResNet("resnet18", 1, "imagenet", PLAIN).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    found = explain.grad_cam(backbone, head, images, 1)
    assert explain.grad_cam(backbone, head, images, 0, "layer3").shape == (5, 8, 8)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert backbone.training and all(p.grad is None for p in backbone.parameters())
    with torch.no_grad():
        cells = backbone.eval().stages(eval_transform(images, PLAIN))["layer4"].double().numpy()  # [5, 32, 4, 4]
    expected = np.einsum("d,ndhw->nhw", head.weights[:, 1] / head.std, cells) / 16
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    odds = head.logits(cells.mean(axis=(2, 3)))[:, 1]
    level = head.bias[1] - head.mean @ (head.weights[:, 1] / head.std)
    np.testing.assert_allclose(found.sum(axis=(1, 2)) + level, odds, atol=1e-4)


def test_a_map_of_the_truth_hits_and_reaches_the_best_of_its_grid_and_its_negative_neither() -> None:
    masks = squares().test.masks[1::2, 0].numpy()  # type: ignore[index]
    truth = masks.reshape(16, 4, 16, 4, 16).sum(axis=(2, 4)).astype(float)
    scores = explain.score_maps(truth, masks, masks)
    assert (scores[["hit", "iou", "iou_best"]] == 1).all(axis=None)  # a square is one cell
    np.testing.assert_allclose(scores[["hit_random", "iou_random"]], 1 / 16)
    wrong = explain.score_maps(-truth, masks, masks)
    assert (wrong[["hit", "iou"]] == 0).all(axis=None) and (wrong["iou_best"] == 1).all()
    habit = explain.score_maps(truth, masks, masks[:1].repeat(3, axis=0))  # always where the first one is
    same = (masks == masks[0]).all(axis=(1, 2)).astype(float)
    np.testing.assert_array_equal(habit[["hit_usual", "iou_usual"]].to_numpy().T, [same, same])


def test_the_expectation_of_chance_is_the_mean_of_random_maps() -> None:
    rng, masks = np.random.default_rng(0), np.zeros((1, 64, 64), bool)
    masks[0, 10:40, 20:50] = True
    one = explain.score_maps(rng.random((1, 8, 8)), masks, masks).iloc[0]
    many = explain.score_maps(rng.random((4000, 8, 8)), masks.repeat(4000, axis=0), masks)
    assert many["hit"].mean() == pytest.approx(one["hit_random"], abs=0.02)
    assert many["iou"].mean() == pytest.approx(one["iou_random"], abs=0.01)
    assert (many["iou"] <= many["iou_best"] + 1e-12).all()


def test_images_are_drawn_by_lot_among_each_kind_of_decision_and_need_no_weights_again(
    run: Run, runtime: RuntimeConfig
) -> None:
    table = explain.explained_images(run, squares(), runtime, per_kind=2)
    val, test = run.predictions("val"), run.predictions("test")
    threshold = threshold_from(val["label"], val["score/square"])[0]
    rows = test.iloc[table["image"]]
    called, ill = rows["score/square"].to_numpy() >= threshold, rows["label"].to_numpy() == 1
    kinds = np.array([["tn", "fn"], ["fp", "tp"]])[called.astype(int), ill.astype(int)]
    assert table["kind"].tolist() == kinds.tolist() and table["kind"].value_counts().max() <= 2
    cells, odds = table[[f"e{i}" for i in range(16)]].to_numpy(), np.log(table["score"] / (1 - table["score"]))
    np.testing.assert_allclose(cells.mean(axis=1) + table["usual"], odds, atol=1e-3)
    for file in run.path.glob("*.safetensors"):
        file.unlink()
    table.to_csv(run.path / "grad_cam.csv.gz")
    for file in ("grad_cam.csv", "grad_cam.csv.gz"):
        again = explain.explained_images(run, squares(), runtime)
        assert again["image"].tolist() == table["image"].tolist()
        (run.path / file).unlink()
    with pytest.raises(FileNotFoundError, match="not its weights"):
        explain.explained_images(run, squares(), runtime)
    with pytest.raises(ValueError, match="must be the one that run"):
        explain.explained_images(run, texture_dataset(), runtime)


def test_planted_evidence_is_found_on_the_runs_own_films_and_on_others(
    run: Run, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = explain.localisation(run, squares(), runtime)
    assert (
        set(table["stage"]) == {"layer4", "layer3", "layer2"}
        and len(table) == 3 * 16
        and set(table["name"]) == {"square"}
    )
    last = table[table["stage"] == "layer4"]
    assert last["hit_special"].mean() > 0.8 > 5 * last["hit_random"].mean()  # bright squares and their edges
    assert last["iou_special"].mean() > 5 * last["iou_random"].mean() and last["called"].mean() > 0.8
    means = patient_means(table, ["hit", "iou"], "stage").set_index("stage")
    assert means.hit["layer4"] == last["hit"].mean() and means.iou_low["layer4"] <= means.iou["layer4"]
    monkeypatch.setattr(explain, "load_dataset", lambda name, size: squares())
    other = dataclasses.replace(texture_dataset(), name="others")
    evaluate("random", other, runtime, PROBE)
    from cxr_helpers.evaluate import probe_of

    moved = explain.localisation(probe_of("random", other, runtime), other, runtime)
    assert set(moved["films"]) == {"squares"} and moved["hit_special"].mean() > 0.5
