"""The look at the data: planted labels, pixels, patients and copies come out as they were planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import texture_dataset
from samples import as_bytes, random_bytes, smooth_images
from torch import Tensor

from cxr_helpers import eda
from cxr_helpers.data import Dataset, Split
from cxr_helpers.eda import baselines, duplicates, options
from cxr_helpers.probe import OnlineProbe


def _split(images: Tensor, labels: list, groups: list[str] | None = None) -> Split:  # type: ignore[type-arg]
    named = None if groups is None else np.array(groups, dtype="U8")
    return Split(images=images, labels=torch.tensor(labels), groups=named)


def _dataset(train: Split, val: Split, test: Split, names: tuple[str, ...] = ("normal", "pneumonia")) -> Dataset:
    task = "multilabel" if train.labels.ndim == 2 else "binary" if len(names) == 2 else "multiclass"
    size = train.images.shape[-1]
    provenance = {"source": "planted", "status": "planted", "notes": []}
    return Dataset(
        name="planted", size=size, task=task, class_names=names, train=train, val=val, test=test, provenance=provenance
    )  # type: ignore[arg-type]


def _planted(
    labels: list, groups: list[str] | None = None, names: tuple[str, ...] = ("normal", "pneumonia")
) -> Dataset:  # type: ignore[type-arg]
    """The same labels in all three splits, over noise."""
    parts = [_split(random_bytes(len(labels), 8) // (i + 1), labels, groups) for i in range(3)]
    return _dataset(*parts, names=names)


MULTI = [[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]


# ---- labels


def test_counts_are_of_images_and_of_patients_with_the_class() -> None:
    counts = eda.class_counts(_planted([1, 1, 1, 0], ["a", "a", "b", "c"]))
    row = counts[(counts.split == "val") & (counts["class"] == "pneumonia")].iloc[0]
    assert (row.images, row.of, row.share, row.patients, row.of_patients) == (3, 4, 0.75, 2, 3)
    assert counts.groupby("split").images.sum().eq(4).all()


def test_images_without_a_label_are_not_counted() -> None:
    counts = eda.class_counts(_planted([1, -1, 0, -1]))
    assert set(counts.of) == {2}
    assert counts.patients.isna().all()
    assert eda.label_format(_planted([1, -1, 0, -1])).unlabelled.eq(2).all()


def test_images_of_none_of_the_labels_are_a_row_of_their_own() -> None:
    counts = eda.class_counts(_planted(MULTI, names=("x", "y", "z")))
    train = counts[counts.split == "train"].set_index("class").images
    assert train.to_dict() == {"x": 3, "y": 2, "z": 1, "none of them": 2}


def test_an_interval_without_patients_is_wilsons() -> None:
    share, low, high = eda.share_interval(np.arange(20) < 4)
    assert share == 0.2
    assert (low, high) == (pytest.approx(0.0807, abs=1e-4), pytest.approx(0.4160, abs=1e-4))  # statsmodels' wilson


def test_images_that_repeat_their_patient_add_nothing_to_an_interval() -> None:
    alone = np.random.default_rng(0).random(200) < 0.3
    patients = np.arange(200)
    single = eda.share_interval(alone, patients)
    fivefold = eda.share_interval(np.repeat(alone, 5), np.repeat(patients, 5))
    np.testing.assert_allclose(fivefold, single, rtol=0.01)
    independent = eda.share_interval(np.repeat(alone, 5))
    assert independent[2] - independent[1] < 0.5 * (single[2] - single[1])


@pytest.mark.parametrize("value", [False, True])
def test_an_interval_at_the_end_of_the_range_stays_in_it_and_counts_patients(value: bool) -> None:
    column = np.full(50, value)
    share, low, high = eda.share_interval(column, np.repeat(np.arange(10), 5))
    assert 0 <= low <= share <= high <= 1
    assert high - low > 0.2  # ten patients, not fifty images: 3.84 / (10 + 3.84)


def test_a_planted_shift_is_found_and_an_absent_one_is_not() -> None:
    parts = [_split(random_bytes(400, 8), [1] * n + [0] * (400 - n)) for n in (300, 300, 200)]
    shift = eda.prevalence_shift(eda.class_counts(_dataset(*parts))).set_index(["class", "to"])
    assert not shift.moved["pneumonia", "val"] and shift.moved["pneumonia", "test"]
    row = shift.loc[("pneumonia", "test")]
    assert row.difference == pytest.approx(-0.25) and row.low < -0.25 < row.high < 0
    mirror = shift.loc[("normal", "test")]
    assert (mirror.low, mirror.high) == (pytest.approx(-row.high), pytest.approx(-row.low))


def test_cardinality_counts_every_number_of_labels() -> None:
    table = eda.cardinality_table(_planted(MULTI, names=("x", "y", "z")))
    assert table[table.split == "test"].images.tolist() == [2, 2, 2]
    assert table.groupby("split").share.sum().eq(1).all()


def test_cooccurrence_agrees_with_hand_counts_and_with_corrcoef(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxr_helpers.eda.labels.EDA", options.EdaOptions(fewest_expected=1.0))
    pairs = eda.cooccurrence_table(_planted(MULTI, names=("x", "y", "z"))).set_index(["a", "b"])
    assert pairs.both.tolist() == [2, 0, 0]
    assert pairs.expected.tolist() == [1.0, 0.5, pytest.approx(1 / 3)]
    assert pairs.lift["x", "y"] == 2 and np.isnan(pairs.lift["x", "z"])  # .5 expected is too few
    expected = np.corrcoef(np.array(MULTI).T)
    np.testing.assert_allclose(pairs.phi, expected[np.triu_indices(3, 1)])


def test_a_label_nobody_has_gets_no_phi() -> None:
    pairs = eda.cooccurrence_table(_planted([[1, 0], [0, 0]], names=("x", "y")))
    assert pairs.phi.isna().all() and pairs.both.tolist() == [0]


def test_classes_that_exclude_each_other_have_no_cooccurrence() -> None:
    for table in (eda.cardinality_table, eda.cooccurrence_table):
        with pytest.raises(ValueError, match="multi-label"):
            table(_planted([0, 1, 0, 1]))


def test_the_format_shows_the_first_label_in_numbers_and_in_words() -> None:
    row = eda.label_format(_planted(MULTI, names=("x", "y", "z"))).iloc[0]
    assert (row.labels, row.label_dtype, row.example, row.means) == ("[6, 3]", "int64", "[1, 1, 0]", "x + y")
    assert eda.label_format(_planted([1, 0])).means[0] == "pneumonia"


# ---- pixels


@pytest.mark.parametrize("channels", [1, 3])
def test_moments_from_histograms_equal_those_of_the_pixels(channels: int) -> None:
    data = texture_dataset(counts=(30, 12, 12), channels=channels)
    table = eda.pixel_table(data, eda.pixel_histograms(data))
    pixels = data.train.images.double().numpy() / 255
    rows = table[(table.split == "train") & (table["class"] == "all images")]
    np.testing.assert_allclose(rows["mean"], pixels.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(rows.variance, pixels.var(axis=(0, 2, 3)))
    np.testing.assert_allclose(rows.mean_sd, pixels.mean(axis=(2, 3)).std(axis=0))
    np.testing.assert_allclose(rows.contrast, pixels.std(axis=(2, 3)).mean(axis=0))
    members = pixels[data.train.labels.numpy() == 1]
    chosen = table[(table.split == "train") & (table["class"] == "pneumonia")]
    np.testing.assert_allclose(chosen["mean"], members.mean(axis=(0, 2, 3)))
    assert chosen.images.eq(len(members)).all() and len(chosen) == channels


def test_a_histogram_counts_every_pixel_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_bytes(7, 16, 3)
    whole = eda.image_histograms(images)
    monkeypatch.setattr("cxr_helpers.eda.pixels.EDA", options.EdaOptions(image_block=3))
    np.testing.assert_array_equal(eda.image_histograms(images), whole)
    expected = [np.bincount(channel.flatten().numpy(), minlength=256) for channel in images.flatten(0, 1)]
    np.testing.assert_array_equal(whole.reshape(21, 256), expected)


def test_levels_of_a_split_and_class_add_up_to_one_at_the_right_place() -> None:
    images = torch.full((4, 1, 8, 8), 255, dtype=torch.uint8)
    images[:2] = 0
    split = _split(images, [0, 0, 1, 1])
    data = _dataset(split, split, split)
    levels = eda.level_table(data, eda.pixel_histograms(data))
    assert levels.groupby(["split", "class"]).share.sum().eq(1).all()
    dark = levels[(levels["class"] == "normal") & (levels.split == "val")]
    assert dark.share.idxmax() == dark.level.idxmin() and dark.share.max() == 1
    table = eda.pixel_table(data, eda.pixel_histograms(data)).set_index(["split", "class"])
    assert (table.black["train", "normal"], table.white["train", "normal"]) == (1, 0)
    assert table["mean_sd"]["train", "all images"] == pytest.approx(0.5)


# ---- samples


def test_samples_show_their_class_and_no_patient_twice() -> None:
    data = texture_dataset("multilabel", (60, 12, 12))
    samples = eda.draw_samples(data, per_class=5)
    for row in samples.itertuples():
        on = {n for n, v in zip(data.class_names, data.train.labels[row.index].tolist(), strict=True) if v}
        others = set(str(row.others).split(", ")) - {""}
        assert on - others == ({row._1} if row._1 != "none of them" else set())
    groups = samples.assign(patient=data.train.groups[samples["index"]])  # type: ignore[index]
    assert not groups.duplicated(["class", "patient"]).any()
    pd.testing.assert_frame_equal(samples, eda.draw_samples(data, per_class=5))


def test_samples_repeat_no_image_while_a_class_has_others() -> None:
    labels = [[1, 1]] * 3 + [[1, 0]] * 5 + [[0, 1]] * 5 + [[0, 0]] * 3
    samples = eda.draw_samples(_planted(labels, names=("x", "y")), per_class=3)
    assert not samples["index"].duplicated().any()


# ---- patients


def _leaky() -> Dataset:
    train = _split(random_bytes(6, 8), [1, 1, 1, 0, 0, 0], ["a", "a", "b", "c", "d", "d"])
    val = _split(random_bytes(4, 8) // 2, [1, 1, 0, 0], ["a", "e", "d", "f"])
    test = _split(random_bytes(3, 8) // 3, [1, 0, 1], ["g", "g", "h"])
    return _dataset(train, val, test)


def test_planted_patients_are_found_in_both_splits() -> None:
    shared = eda.shared_patients(_leaky()).set_index(["split", "other"])
    assert (shared.images["val", "train"], shared.patients["val", "train"]) == (2, 2)
    assert (shared.images["train", "val"], shared.share["train", "val"]) == (4, pytest.approx(4 / 6))
    assert shared.images["test", "train"] == shared.images["val", "test"] == 0


def test_patients_are_counted_with_their_images_and_labels() -> None:
    table = eda.patient_table(_leaky()).set_index("split")
    assert (table.patients["train"], table.most_images["train"], table.median_images["train"]) == (4, 2, 1.5)
    assert table.images_of_repeated["train"] == pytest.approx(4 / 6)
    assert table.mixed_labels.to_dict() == {"train": 0, "val": 0, "test": 1}
    each = eda.images_per_patient(_leaky())
    assert each[each.split == "train"][["images_each", "patients"]].to_numpy().tolist() == [[1, 2], [2, 2]]


def test_without_patients_the_tables_of_patients_are_empty() -> None:
    data = _planted([1, 0, 1, 0])
    assert eda.patient_table(data).empty and eda.shared_patients(data).empty and eda.images_per_patient(data).empty
    check = eda.leak_check(data, num_resamples=20)
    assert check.part.tolist() == ["val", "test"] and check.nearest_same.isna().all()


def test_a_model_that_remembers_patients_gains_only_on_those_it_knows() -> None:
    """Patients look like themselves and labels like nothing else, so memory is worth 1 with the patient, .5 without."""
    generator = torch.Generator().manual_seed(0)
    faces = torch.randint(0, 256, (300, 1, 8, 8), generator=generator).to(torch.uint8)
    truth = torch.randint(0, 2, (300,), generator=generator)

    def of(people: list[int]) -> Split:
        return _split(faces[people], truth[people].tolist(), [f"p{i}" for i in people])

    data = _dataset(of(list(range(100)) * 2), of(list(range(50)) + list(range(100, 200))), of(list(range(200, 300))))
    check = eda.leak_check(data, num_resamples=20).set_index("part")
    assert check.auc["val, patient in train"] > 0.95
    assert 0.3 < check.auc["val, patient not in train"] < 0.7 and 0.3 < check.auc["test"] < 0.7
    assert check.nearest_same.to_dict() == {
        "val, patient in train": 1, "val, patient not in train": 0, "val": pytest.approx(1 / 3), "test": 0
    }  # fmt: skip
    assert check.images.tolist() == [50, 100, 150, 100]


# ---- copies


def _with_copies() -> Dataset:
    """Noise with two planted copies: train 3 = val 1 exactly, train 5 and test 2 up to brightness and rounding."""
    images = torch.randint(20, 200, (30, 1, 48, 48), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    images[11] = images[3]
    images[22] = (images[5].float() * 0.8 + 30).round().to(torch.uint8)
    people = [f"p{i}" for i in range(30)]
    people[11] = people[3]
    labels = [i % 2 for i in range(30)]
    labels[11] = labels[3]
    parts = [_split(images[part], labels[part], people[part]) for part in (slice(0, 10), slice(10, 20), slice(20, 30))]
    return _dataset(*parts)


def test_planted_copies_and_nothing_else_are_found() -> None:
    found = eda.compare_images(_with_copies())
    pairs = found.duplicates
    assert pairs[["split_a", "index_a", "split_b", "index_b"]].to_numpy().tolist() == [
        ["train", 3, "val", 1],
        ["train", 5, "test", 2],
    ]
    assert pairs.kind.tolist() == [duplicates.EXACT, duplicates.NEAR]
    assert pairs.same_patient.tolist() == [True, False] and pairs.same_label.tolist() == [True, False]
    assert pairs.r.iloc[0] == pytest.approx(1) and 0.99 < pairs.r.iloc[1] < 1
    assert len(found.pairs) == 2 + options.EDA.nearby_pairs and (found.pairs.r.diff().dropna() <= 0).all()
    summary = eda.duplicate_summary(pairs).set_index("kind")
    assert summary.splits.to_dict() == {duplicates.EXACT: "train and val", duplicates.NEAR: "train and test"}
    assert summary.same_patient.tolist() == [1, 0] and summary.other_label.tolist() == [0, 1]


def test_every_pair_is_compared_once_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _with_copies()
    whole = eda.compare_images(data)
    assert int((whole.histogram.same + whole.histogram.different).sum()) == 30 * 29 // 2
    assert whole.histogram.same.sum() == 1
    monkeypatch.setattr("cxr_helpers.eda.duplicates.EDA", options.EdaOptions(image_block=7))
    blocks = eda.compare_images(data)
    pd.testing.assert_frame_equal(blocks.histogram, whole.histogram)
    pd.testing.assert_frame_equal(blocks.pairs, whole.pairs, atol=1e-5)


def test_exact_copies_are_sets_of_equal_bytes() -> None:
    split = _split(random_bytes(5, 8), [0, 1, 0, 1, 0])
    images = split.images.clone()
    images[4, 0, 0, 0] ^= 1  # one bit
    data = _dataset(split, _split(images[:1], [1]), _split(images[4:], [0]))
    rows = eda.exact_duplicates(data)
    assert rows[["copies", "split", "index"]].to_numpy().tolist() == [[0, "train", 0], [0, "val", 0]]
    assert rows.label.tolist() == [(0,), (1,)]


def test_detail_is_blind_to_brightness_and_contrast_and_flat_images_match_nothing() -> None:
    images = as_bytes(smooth_images(4, 64))
    changed = as_bytes(smooth_images(4, 64) * 0.7 + 0.2)
    detail, again = eda.detail_vectors(images), eda.detail_vectors(changed)
    assert ((detail * again).sum(dim=1) > 0.98).all()
    np.testing.assert_allclose(detail.norm(dim=1), 1, rtol=1e-5)
    assert eda.detail_vectors(torch.full((2, 3, 28, 28), 7, dtype=torch.uint8)).abs().max() == 0


def test_a_copy_that_another_file_does_not_have_is_not_confirmed() -> None:
    data = _with_copies()
    pairs = eda.compare_images(data).duplicates
    other = _dataset(data.train, data.val, _split(255 - random_bytes(10, 48), [0] * 10))
    checked = eda.confirm_pairs(pairs, other)
    assert checked.identical_other.tolist() == [True, False]
    assert checked.r_other.iloc[0] == pytest.approx(1) and checked.r_other.iloc[1] < 0.5


def test_only_medmnist_data_that_is_not_official_has_an_official_copy_to_ask() -> None:
    assert eda.official_copy(_with_copies()) is None


# ---- baselines and the choice


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_a_constant_ranks_nothing_and_the_splits_own_prior_has_the_lowest_loss(task: str) -> None:
    data = texture_dataset(task, (60, 40, 40))  # type: ignore[arg-type]
    table = eda.baseline_table(data, eda.pixel_histograms(data)).set_index(["split", "baseline"])
    for split in ("val", "test"):
        own = table.log_loss[split, "prior of the split itself"]
        assert table.auc[split, "majority"] == table.auc[split, "prior of train"] == 0.5
        assert own <= table.log_loss[split, "prior of train"] + 1e-12 and np.isnan(table.log_loss[split, "majority"])
        assert np.isnan(table.accuracy[split, "brightness"])


def test_the_majority_answers_with_trains_more_frequent_side() -> None:
    parts = [_split(random_bytes(10, 8), [1] * n + [0] * (10 - n)) for n in (7, 6, 2)]
    data = _dataset(*parts)
    table = eda.baseline_table(data, eda.pixel_histograms(data)).set_index(["split", "baseline"])
    assert table.accuracy["val", "majority"] == 0.6 and table.accuracy["test", "majority"] == 0.2
    assert table.balanced_accuracy["test", "majority"] == 0.5
    expected = -(0.2 * np.log(0.7) + 0.8 * np.log(0.3))
    assert table.log_loss["test", "prior of train"] == pytest.approx(expected)


def test_brightness_ranks_in_the_direction_of_train_alone() -> None:
    dark, bright = (torch.full((1, 8, 8), v, dtype=torch.uint8) for v in (10, 200))
    train = _split(torch.stack([dark, dark, bright, bright]), [1, 1, 0, 0])
    test = _split(torch.stack([dark, bright]), [0, 1])  # the other way round
    data = _dataset(train, train, test)
    table = eda.baseline_table(data, eda.pixel_histograms(data)).set_index(["split", "baseline"])
    assert table.auc["val", "brightness"] == 1 and table.auc["test", "brightness"] == 0


@pytest.mark.parametrize(
    ("task", "labels", "scores", "expected"),
    [
        ("binary", [1, 0], [0.5, 0.5], np.log(2)),
        ("multiclass", [0, 2], [[0.5, 0.25, 0.25]] * 2, (np.log(2) + np.log(4)) / 2),
        ("multilabel", [[1, 0]], [[0.25, 0.0]], np.log(4) / 2),
        ("binary", [0], [1.0], np.inf),
    ],
)
def test_log_loss_agrees_with_hand_counts(task: str, labels: list, scores: list, expected: float) -> None:  # type: ignore[type-arg]
    assert eda.log_loss(task, np.array(labels), np.array(scores)) == pytest.approx(expected)  # type: ignore[arg-type]


def test_weights_shown_are_the_weights_used_with_their_cap() -> None:
    labels = [[1, 0]] + [[0, 1]] * 13 + [[0, 0]] * 26
    weights = eda.loss_weights(_planted(labels, names=("rare", "common")))
    assert weights.ratio.tolist() == [39, pytest.approx(27 / 13)] and weights.capped.tolist() == [True, False]
    used = OnlineProbe(4, "multilabel", 2, torch.tensor(labels)).pos_weight
    np.testing.assert_allclose(weights.weight, used)
    assert eda.loss_weights(_planted(labels, names=("rare", "common")), max_weight=5.0).weight[0] == 5
    assert eda.loss_weights(_planted([0, 1, 2], names=("a", "b", "c"))).empty


def test_the_width_at_chance_is_that_of_shuffled_scores() -> None:
    labels = [1] * 12 + [0] * 60
    half = eda.label_support(_planted(labels)).half_width.iloc[1]
    rng = np.random.default_rng(0)
    ranks = np.array([rng.permutation(72)[:12].sum() for _ in range(4000)])
    assert half == pytest.approx(1.96 * (ranks / (12 * 60)).std(), rel=0.05)


METRICS = [
    ("binary", "ROC-AUC", "binary"),
    ("multiclass", "accuracy", "cross"),
    ("multilabel", "macro ROC-AUC over labels", "binary"),
]


@pytest.mark.parametrize(("task", "metric", "loss"), METRICS)
def test_every_task_gets_its_metric_and_loss_with_figures(task: str, metric: str, loss: str) -> None:
    data = texture_dataset(task, (60, 40, 40))  # type: ignore[arg-type]
    choice = eda.choose(data, eda.baseline_table(data, eda.pixel_histograms(data)))
    assert choice.metric == metric and choice.loss.startswith(loss)
    table = baselines.baseline_table(data, eda.pixel_histograms(data)).set_index(["split", "baseline"])
    assert choice.facts["majority_accuracy"] == table.accuracy["test", "majority"]
