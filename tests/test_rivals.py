"""Rival explanations: each control does to planted images what it says, and finds what was planted, and is counted."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import texture_config, texture_dataset
from scipy.stats import spearmanr
from studies import make_run
from torch.nn import functional as F

from cxr_helpers import plots, rivals
from cxr_helpers.config import ProbeConfig, RuntimeConfig
from cxr_helpers.data import Dataset, Split
from cxr_helpers.evaluate import evaluate
from cxr_helpers.pretrain import pretrain
from cxr_helpers.probe import Features, auc_score, fit_head, predict
from cxr_helpers.report import evidence, prose_rivals
from cxr_helpers.rivals import subsets
from cxr_helpers.runs import Run

PROBE = ProbeConfig(cs=(0.01, 1.0), folds=2, sgd_epochs=1)


def _split(images: torch.Tensor, labels: Any = None, groups: list[str] | None = None) -> Split:
    labels = torch.zeros(len(images), dtype=torch.int64) if labels is None else torch.as_tensor(labels)
    return Split(images=images, labels=labels, groups=None if groups is None else np.array(groups))


# ---- images


def test_a_frame_and_its_centre_are_the_image() -> None:
    image = torch.arange(1, 65, dtype=torch.uint8).reshape(1, 1, 8, 8)
    border, centre = rivals.border_only(image, 1 / 4), rivals.centre_only(image, 1 / 4)
    assert torch.equal(border + centre, image)
    assert not border[..., 2:6, 2:6].any() and int((border > 0).sum()) == 64 - 16
    assert torch.equal(centre[..., 2:6, 2:6], image[..., 2:6, 2:6])
    assert int((rivals.border_only(image, 1 / 64) > 0).sum()) == 28  # one pixel at the least
    with pytest.raises(ValueError, match=r"leave a centre, got 0.5: 4 px of 8"):
        rivals.border_only(image, 0.5)


def test_equalising_leaves_ranks_and_no_exposure() -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.permutation(256).astype(np.uint8)).reshape(1, 1, 16, 16)
    assert torch.equal(rivals.equalised(image), image)  # each level once: flat already
    darker = torch.from_numpy((np.sqrt(np.arange(100)) * 9).astype(np.uint8)).reshape(1, 1, 10, 10)
    brighter = darker + 100
    assert torch.equal(rivals.equalised(darker), rivals.equalised(brighter))
    flat = rivals.equalised(torch.full((2, 1, 4, 4), 200, dtype=torch.uint8))
    assert set(flat.flatten().tolist()) == {128}  # 127.5, to even


def test_smoothing_takes_the_finest_detail_and_no_other() -> None:
    checks = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 200
    assert set(rivals.smoothed(checks.to(torch.uint8)[None, None]).flatten().tolist()) == {100}
    halves = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    halves[..., 8:] = 200
    smooth = rivals.smoothed(halves)
    assert torch.equal(smooth[..., :6], halves[..., :6]) and torch.equal(smooth[..., 10:], halves[..., 10:])


def test_every_input_keeps_shape_type_labels_and_patients() -> None:
    split = texture_dataset("multilabel", channels=3).val
    for name in rivals.INPUTS:
        other = rivals.changed(split, name)
        assert other.images.shape == split.images.shape and other.images.dtype == torch.uint8
        assert not torch.equal(other.images, split.images), name
        assert torch.equal(other.labels, split.labels) and other.groups is split.groups


# ---- labels


def test_patients_of_one_label_swap_labels_whole() -> None:
    groups = np.array(list("aaabbcddde"))
    labels = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 1])
    seen = [rivals.permuted_labels(labels, groups, np.random.default_rng(i)) for i in range(20)]
    for one in seen:
        assert all(len(set(one[groups == g])) == 1 for g in "abcde")
        assert sorted(one[[0, 3, 5, 6, 9]]) == [0, 0, 1, 1, 1]
    assert len({tuple(one) for one in seen}) > 3


@pytest.mark.parametrize("grouped", [True, False])
def test_mixed_rows_are_moved_whole_and_all_of_them(grouped: bool) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (30, 4))
    groups = rng.integers(0, 9, 30).astype(str) if grouped else None
    moved = rivals.permuted_labels(labels, groups, rng)
    assert sorted(map(tuple, moved)) == sorted(map(tuple, labels)) and not np.array_equal(moved, labels)


@pytest.mark.parametrize("task", ["binary", "multilabel", "multiclass"])
def test_many_shuffles_at_once_are_the_probes_of_each_alone_and_chance_on_average(task: Any) -> None:
    rng = np.random.default_rng(1)
    shape = (60, 2) if task == "multilabel" else (60,)
    labels = rng.integers(0, 3 if task == "multiclass" else 2, shape)
    x = rng.normal(size=(60, 5)).astype(np.float32)
    x[:, 0] += 3 * labels.reshape(60, -1)[:, 0]
    train = Features(x, labels, np.arange(60).astype(str))
    outputs = {"binary": 1, "multilabel": 2, "multiclass": 3}[task]
    options: dict[str, Any] = {"task": task, "num_outputs": outputs, "c": 0.1, "max_iter": 500}
    (scores,) = rivals.shuffled_scores(train, [train], draws=12, **options)
    for draw in (0, 11):
        y = rivals.permuted_labels(labels, train.groups, np.random.default_rng(draw))
        alone = predict(fit_head(x, y, **options).logits(x), task)
        np.testing.assert_allclose(scores[draw], alone, atol=1e-4)
    aucs = [auc_score(labels, one) for one in scores]
    assert abs(np.mean(aucs) - 0.5) < 3 * np.std(aucs) / np.sqrt(len(aucs)) and max(aucs) < 0.95
    assert auc_score(labels, predict(fit_head(x, labels, **options).logits(x), task)) > np.mean(aucs) + 0.1


# ---- statistics


def test_grey_statistics_by_hand() -> None:
    image = torch.tensor([0, 0, 0, 255], dtype=torch.uint8).reshape(1, 1, 2, 2)
    row = rivals.grey_statistics(_split(image)).x[0]
    np.testing.assert_allclose(row, [0.25, 0.5, 0, 0, 0, 0, 0, 1, 1], atol=1e-6)  # the 75th percentile: 3 of 4 are 0


def test_sharpness_knows_direction_and_blur_and_not_contrast() -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(60, 120, (1, 1, 32, 32)).astype(np.uint8))
    across = image.float().repeat_interleave(2, dim=2)[..., :32, :].to(torch.uint8)  # soft from top to bottom
    x = rivals.sharpness_statistics(_split(torch.cat([image, 2 * image, rivals.smoothed(image), across]))).x
    np.testing.assert_allclose(x[0], x[1], atol=1e-3)  # twice the contrast
    np.testing.assert_allclose(x[0], np.log(2), atol=0.15)  # white noise: E (a - b)² = 2 var
    assert (x[2, :2] < x[0, :2] - 1).all()  # blurred
    assert x[3, 1] < x[3, 0] - 0.4  # half of the neighbours below each other are equal
    summary = rivals.summary_statistics(_split(across))
    assert summary.shape == (1, 4) and summary[0, 3] == pytest.approx(x[3, 0] - x[3, 1])


def test_correlation_within_classes_ignores_what_differs_between_them() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [120, 60])
    noise = rng.normal(size=180)
    scores = labels + 0.1 * rng.normal(size=180)
    between = (10 * labels + noise)[:, None]  # tells the classes apart and nothing within them
    follows = np.exp(scores)[:, None]
    products = rivals.within_class_products(labels, scores, np.hstack([between, follows, -follows, 0 * follows]))
    expected = sum((labels == k).mean() * spearmanr(scores[labels == k], noise[labels == k])[0] for k in (0, 1))
    np.testing.assert_allclose(products.mean(axis=0), [expected, 1, -1, 0], atol=1e-9)
    assert spearmanr(scores, between[:, 0])[0] > 0.6


# ---- subsets


def test_only_the_test_image_with_a_copy_in_train_is_taken_out() -> None:
    data = texture_dataset()
    images = data.test.images.clone()
    images[3] = (0.5 * data.train.images[7].float() + 30).to(torch.uint8)  # another exposure of the same film
    other = dataclasses.replace(data, test=dataclasses.replace(data.test, images=images))
    assert rivals.without_near_copies(data).all()
    assert np.flatnonzero(~rivals.without_near_copies(other)).tolist() == [3]
    assert rivals.nearest_in_train(other)[3] > 0.99


def test_patients_of_train_are_known_by_name() -> None:
    data = texture_dataset()
    groups = data.val.groups.copy()  # type: ignore[union-attr]
    groups[[1, 4]] = data.train.groups[0]  # type: ignore[index]
    other = dataclasses.replace(data, val=dataclasses.replace(data.val, groups=groups))
    assert np.flatnonzero(~rivals.without_train_patients(other)).tolist() == [1, 4]  # type: ignore[operator]
    nameless = dataclasses.replace(data, val=dataclasses.replace(data.val, groups=None))
    assert rivals.without_train_patients(nameless) is None


def test_medmnists_own_images_are_those_that_its_small_file_has(monkeypatch: pytest.MonkeyPatch) -> None:
    data = texture_dataset()
    small = {
        name: dataclasses.replace(s, images=F.interpolate(s.images.float(), (28, 28), mode="area").to(torch.uint8))
        for name, s in data.splits.items()
    }
    small["test"].images[5] = small["test"].images[6]
    official = dataclasses.replace(data, size=28, **small)
    monkeypatch.setattr(subsets, "official_copy", lambda _: official)
    assert np.flatnonzero(~rivals.is_medmnists_own(data)).tolist() == [5]  # type: ignore[operator]
    monkeypatch.setattr(subsets, "official_copy", lambda _: None)
    assert rivals.is_medmnists_own(data) is None


# ---- a run under control


def _marked(where: str) -> Dataset:
    """Noise whose label shows as a brighter frame (as a marker of the ward would) or as a brighter centre."""
    data = texture_dataset(counts=(60, 40, 60))
    splits = {}
    for name, split in data.splits.items():
        generator = torch.Generator().manual_seed(len(name))
        noise = torch.randint(60, 140, tuple(split.images.shape), generator=generator)
        frame = rivals.border_only(torch.full_like(split.images, 60), 1 / 8)
        mark = frame if where == "border" else 60 - rivals.border_only(torch.full_like(split.images, 60), 1 / 4)
        images = noise + mark * split.labels[:, None, None, None]
        splits[name] = dataclasses.replace(split, images=images.to(torch.uint8))
    return dataclasses.replace(data, **splits)


def _run(data: Dataset, runtime: RuntimeConfig, *, test: bool = True) -> Run:
    run = pretrain(texture_config(epochs=0, policy="none"), data, runtime)
    evaluate(run, data, runtime, PROBE, test=test)
    return run


@pytest.mark.parametrize("where", ["border", "centre"])
def test_a_planted_shortcut_is_found_where_it_is_and_nowhere_else(
    where: str, tiny_net: None, runtime: RuntimeConfig
) -> None:
    data = _marked(where)
    run = _run(data, runtime)
    table = rivals.controls(run, data, runtime, PROBE)
    test = table[table["split"] == "test"].set_index("control")
    assert test.loc["as measured", "auc"] == pytest.approx(run.metrics["linear"]["test"]["auc"], abs=1e-9)
    assert test.loc["as measured", "difference"] == 0 and test.loc["as measured", "auc"] > 0.95
    inside, outside = test.loc["border 1/4 removed"], test.loc["border 1/8"]
    there, gone = (outside, inside) if where == "border" else (inside, outside)
    assert there.auc > 0.95 and gone.auc < 0.75 and gone.difference_high < 0
    assert gone.low <= gone.auc <= gone.high and there.difference == pytest.approx(there.auc - test.auc.iloc[0])
    assert test.loc["shuffled labels", "draw_low"] < 0.5 < test.loc["shuffled labels", "draw_high"]
    assert test.loc["grey levels alone", "auc"] > 0.9 > test.loc["sharpness alone", "auc"] - 0.2
    assert (test["images"] == 60).all() and (test["patients"] == 30).all()
    assert set(table.loc[table["split"] == "val", "control"]) == {
        "as measured", "shuffled labels, best on val", "no patient of train"
    }  # fmt: skip


def test_looks_at_test_are_counted_once_and_outlive_probing_and_retraining(
    tiny_net: None, runtime: RuntimeConfig
) -> None:
    data = texture_dataset()
    unread = _run(data, runtime, test=False)
    for measure in (rivals.controls, rivals.correlations):
        with pytest.raises(ValueError, match="must have been scored on it"):
            measure(unread, data, runtime, PROBE)
    run = _run(data, runtime)
    table = rivals.controls(run, data, runtime, PROBE)
    asked = int(((table["split"] == "test") & (table["kind"] != "measured")).sum())
    looks = asked - 1 + rivals.measure.SHUFFLED_FITS  # each shuffle was scored on test
    assert run.metrics["control_reads"] == looks == 51
    before = rivals.correlations(run, data, runtime, PROBE)
    assert evaluate(run, data, runtime, dataclasses.replace(PROBE, folds=3))["control_reads"] == looks
    for file in run.path.glob("*.safetensors"):
        file.unlink()
    again = rivals.controls(run, data, runtime, PROBE)  # the record, not a look
    pd.testing.assert_frame_equal(again, table, check_dtype=False, rtol=1e-6)
    pd.testing.assert_frame_equal(rivals.correlations(run, data, runtime, PROBE), before, check_dtype=False, rtol=1e-6)
    assert run.metrics["control_reads"] == looks
    with pytest.raises(ValueError, match="must be the one that run"):
        rivals.controls(run, texture_dataset(counts=(38, 24, 24)), runtime, PROBE)
    fresh = pretrain(texture_config(epochs=0, policy="none"), data, runtime, fresh=True)
    assert fresh.metrics["control_reads"] == looks and not (fresh.path / "controls.csv").is_file()


# ---- the report


def _row(control: str, kind: str, auc: float, half: float, measured: float = 0.96, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"control": control, "kind": kind, "split": "test", "auc": auc}
    row |= {"low": auc - half, "high": min(1.0, auc + half), "difference": auc - measured, "images": 120}
    row |= {"difference_low": auc - measured - half, "difference_high": auc - measured + half, "patients": 60}
    return row | {"c": 0.1, "draws": np.nan, "draw_sd": np.nan, "draw_low": np.nan, "draw_high": np.nan} | more


def _planted() -> pd.DataFrame:
    draws = {"draws": 40, "draw_sd": 0.1, "draw_low": 0.3, "draw_high": 0.7}
    rows = [_row("as measured", "measured", 0.96, 0.0), _row("shuffled labels", "nothing", 0.51, 0.05, **draws)]
    rows += [_row("shuffled labels, best on val", "nothing", 0.7, 0.05, draws=40)]
    rows += [{**rows[-1], "split": "val", "auc": 0.77}]
    rows += [_row("border 1/16", "alone", 0.52, 0.05), _row("border 1/8", "alone", 0.84, 0.03)]
    rows += [_row("grey levels alone", "alone", 0.7, 0.05), _row("border 1/4", "alone", 0.955, 0.01)]
    rows += [_row("grey levels equalised", "removed", 0.93, 0.01), _row("no near copy in train", "removed", 0.96, 0.0)]
    return pd.DataFrame(rows)


@pytest.fixture
def found(tmp_path: Path) -> evidence.Found:
    runs = [make_run(tmp_path, seed=0), make_run(tmp_path, seed=1), make_run(tmp_path, epochs=0, policy="none")]
    return evidence.Found(tuple((run, _planted()) for run in runs), ())


def test_a_page_says_which_explanation_survives(found: evidence.Found) -> None:
    summary = evidence.control_summary(found)
    assert list(dict.fromkeys(summary["name"])) == ["SimCLR, seed 0", "SimCLR, seed 1", "Random encoder"]
    text = prose_rivals.reading_of_controls(summary, found, texture_dataset())
    verdict = next(line for line in text.splitlines() if "what survives" in line)
    assert verdict.startswith("**SimCLR, seed 0, 0.960 [0.960, 0.960]: what survives.**")
    assert "border 1/4 0.955, border 1/8 0.840, grey levels alone 0.700." in verdict and "border 1/16" not in verdict
    assert "Not told apart from the measured AUC: border 1/4, so" in verdict
    assert "costs AUC: grey levels equalised (−3.0 points)." in verdict
    assert "over 40 shuffles (95 % t interval 0.478 to 0.542: chance)" in text
    assert "| 0.510 [0.478, 0.542] over 40 shuffles; " in text  # the mean's interval is over shuffles, not patients
    assert "the one that val likes best (0.770 there) has 0.700 on test" in text
    assert text.count("what survives") == 2 and "(120 of 120 test images, 60 patients)" in text
    assert "99 % of the way from chance" in text and "the file names no patients" in text
    off = found.parts[0][1].assign(auc=lambda t: t["auc"].where(t["control"] != "shuffled labels", 0.6))
    other = evidence.Found(((found.parts[0][0], off),), ())
    assert "**not chance**" in prose_rivals.reading_of_controls(
        evidence.control_summary(other), other, texture_dataset()
    )


def test_every_trained_encoder_has_its_verdict_and_the_untrained_one_comes_last(found: evidence.Found) -> None:
    summary = evidence.control_summary(found)
    other = summary[summary["name"] == "SimCLR, seed 1"].assign(label="VICReg", name="VICReg", family="vicreg")
    lines = prose_rivals.survivors(pd.concat([summary, other]))
    names = ["**SimCLR, seed 0", "**VICReg, seed 1", "**Random encoder, seed 0"]
    assert [line.partition(", 0.")[0] for line in lines] == names
    fixed = summary[summary["name"] == "SimCLR, seed 0"].assign(label="ImageNet, frozen", name="ImageNet, frozen")
    assert prose_rivals.survivors(fixed.assign(family="imagenet"))[0].startswith("**ImageNet, frozen, 0.960")


def test_what_cannot_be_asked_is_said(found: evidence.Found) -> None:
    summary = evidence.control_summary(found)
    data = texture_dataset()
    local = dataclasses.replace(data, name="pneumoniamnist", provenance={"status": "local"})
    official = dataclasses.replace(local, provenance={"status": "official"})
    assert "not derivable here" in prose_rivals.reading_of_controls(summary, found, local)
    assert "all are: this is MedMNIST's own file" in prose_rivals.reading_of_controls(summary, found, official)
    assert "MedMNIST's own" not in prose_rivals.reading_of_controls(summary, found, data)
    nothing = evidence.Found((), (found.parts[0][0],))
    assert evidence.control_summary(nothing).empty
    assert "Left out" in prose_rivals.reading_of_controls(pd.DataFrame(), nothing, data)
    assert "No encoder" in prose_rivals.reading_of_controls(pd.DataFrame(), evidence.Found((), ()), data)


def test_the_figure_has_a_dot_per_encoder_and_control_and_one_where_there_is_no_encoder(found: evidence.Found) -> None:
    figure = plots.plot_controls(evidence.control_summary(found))
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    ax = figure.axes[0]
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert names[0] == "as measured" and names[-1] == "shuffled labels, best on val" and len(names) == 9
    dots = [line.get_xdata() for line in ax.lines if line.get_marker() not in ("None", "") and len(line.get_xdata())]
    assert len(dots) == 3 * 8 + 1
    assert sum(np.isclose(x[0], 0.84) for x in dots) == 3 and sum(np.isclose(x[0], 0.7) for x in dots) == 3 + 1


def test_following_is_said_of_intervals_without_0(found: evidence.Found) -> None:
    table = pd.DataFrame({"statistic": ["mean grey", "sharpness"], "rho": [0.1, -0.4], "low": [-0.1, -0.5]})
    table = table.assign(high=[0.3, -0.3], images=120, patients=60)
    summary = evidence.control_summary(evidence.Found(((found.parts[0][0], table),), ()))
    text = prose_rivals.reading_of_correlations(summary)
    assert "sharpness −0.40 [−0.50, −0.30], mean grey +0.10 [−0.10, +0.30]: it follows sharpness." in text
    assert prose_rivals.reading_of_correlations(pd.DataFrame()) == ""
