"""Sentences and figures of notebook 01: numbers come from the tables, and every kind of data set gets its own."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import texture_dataset
from matplotlib.figure import Figure

from cxr_helpers import eda, plots
from cxr_helpers.data import Dataset
from cxr_helpers.report import prose_choice, prose_eda

TASKS = ["binary", "multiclass", "multilabel"]


def _data(task: str, *, channels: int = 1, patients: bool = True) -> Dataset:
    data = texture_dataset(task, (60, 40, 40), channels)  # type: ignore[arg-type]
    if patients:
        return data
    return replace(data, **{name: replace(split, groups=None) for name, split in data.splits.items()})


def _shares(**changes: float) -> pd.DataFrame:
    """`class_counts` of a binary question of 1,000 images, whose share differs by split."""
    rows = []
    for split, share in {"train": 0.7, "val": 0.7, "test": 0.7, **changes}.items():
        for name, part in (("pneumonia", share), ("normal", 1 - share)):
            row = {"split": split, "class": name, "images": round(1000 * part), "of": 1000, "share": part}
            rows.append({**row, "low": part - 0.02, "high": part + 0.02, "patients": 100.0, "of_patients": 200.0})
    return pd.DataFrame(rows)


# ---- sentences


def test_the_reading_of_counts_names_a_shift_with_its_interval_and_none_where_there_is_none() -> None:
    counts = _shares(test=0.6)
    text = prose_eda.reading_of_counts(counts, eda.prevalence_shift(counts))
    assert "pneumonia (70.0 %)" in text and "300 images of 100 patients" in text and "2.3 to 1" in text
    assert "val the share of pneumonia +0.0 points [−2.8, +2.8]: no shift can be told from 0" in text
    assert "test the share of pneumonia −10.0 points [−12.8, −7.2]: it moves" in text


def test_the_reading_of_the_leak_follows_the_figures() -> None:
    parts = ["val, patient in train", "val, patient not in train", "val", "test"]
    check = pd.DataFrame({"part": parts, "images": 1000, "auc": [0.99, 0.97, 0.98, 0.9], "nearest_same": 0.25})
    check = check.assign(low=check.auc - 0.01, high=check.auc + 0.01)
    text = prose_eda.reading_of_leak(check)
    assert "+2.0 points" in text and "+7.0" in text and "25.0 %" in text and "is not the leak" in text
    check.loc[1, "auc"] = 0.91
    assert "the leak is the larger part" in prose_eda.reading_of_leak(check)


def test_data_without_patients_say_so() -> None:
    data = _data("binary", patients=False)
    text = prose_eda.reading_of_patients(eda.patient_table(data), eda.shared_patients(data))
    assert "no patient identifiers in this file" in text
    check = prose_eda.reading_of_leak(eda.leak_check(data, num_resamples=20))
    assert "of val and" in check and "patient" not in check
    found = prose_eda.reading_of_duplicates(eda.compare_images(data))
    assert "patient" not in found and "No image is there twice" in found


def test_shared_patients_are_counted_in_the_sentence() -> None:
    data = _data("binary")
    groups = data.val.groups.copy()  # type: ignore[union-attr]
    groups[:9] = data.train.groups[:9]  # type: ignore[index]
    data = replace(data, val=replace(data.val, groups=groups))
    text = prose_eda.reading_of_patients(eda.patient_table(data), eda.shared_patients(data))
    assert "**9 of 40 val images (22.5 %) show a patient of train.** Test shares no patient with either." in text
    clean = _data("binary")
    assert "No patient is in two splits" in prose_eda.reading_of_patients(
        eda.patient_table(clean), eda.shared_patients(clean)
    )


def _with_copies() -> tuple[Dataset, eda.Similarities]:
    data = _data("binary")
    images = data.val.images.clone()
    images[0], images[1] = data.train.images[0], data.train.images[1]
    data = replace(data, val=replace(data.val, images=images))
    return data, eda.compare_images(data)


def test_copies_are_counted_placed_and_checked_against_another_file() -> None:
    data, found = _with_copies()
    text = prose_eda.reading_of_duplicates(found)
    assert "**2 pairs identical (2 across train–val) and 0 pairs nearly identical**" in text
    assert "2 filed under two patients" in text and "28 px" not in text
    images = data.val.images.clone()
    images[1] = data.val.images[2]
    other = replace(data, val=replace(data.val, images=images))
    checked = prose_eda.reading_of_duplicates(found, eda.confirm_pairs(found.duplicates, other))
    assert "has 1 of these 2, too, 1 of them identical; not train 1 / val 1" in checked


def test_an_argmax_over_labels_is_warned_of_with_its_share() -> None:
    data = _data("multilabel")
    text = prose_eda.reading_of_format(data, eda.label_format(data))
    none = float((data.train.labels.sum(dim=1) == 0).float().mean())
    assert f"{100 * none:.1f} % of train's rows" in text and "call every one of them x" in text
    assert "argmax" not in prose_eda.reading_of_format(_data("binary"), eda.label_format(_data("binary")))


@pytest.mark.parametrize("task", TASKS)
def test_baselines_and_choice_state_the_figures_of_their_tables(task: str) -> None:
    data = _data(task)
    table = eda.baseline_table(data, eda.pixel_histograms(data))
    weights, choice = eda.loss_weights(data), eda.choose(data, table)
    accuracy = table.set_index(["split", "baseline"]).accuracy["test", "majority"]
    assert f"accuracy {accuracy:.3f}" in prose_choice.reading_of_baselines(table)
    text = prose_choice.reading_of_choice(choice, weights)
    assert choice.metric in text and choice.loss in text and f"{accuracy:.3f}" in text
    assert ("offline probe" in text) == (task != "multiclass")
    values = prose_choice.choices_table({"textures": choice}, {"textures": weights})
    assert values.why.str.len().gt(10).all() and not values.choice.duplicated().any()


def test_the_cap_is_mentioned_only_where_it_holds() -> None:
    base = {"class": ["a", "b"], "positives": [1, 2]}
    capped = pd.DataFrame({**base, "ratio": [184.0, 5.0], "weight": [10.0, 5.0], "capped": [True, False]})
    free = pd.DataFrame({**base, "ratio": [9.0, 5.0], "weight": [9.0, 5.0], "capped": [False, False]})
    data = _data("multilabel")
    choice = eda.choose(data, eda.baseline_table(data, eda.pixel_histograms(data)))
    with_cap = prose_choice.reading_of_choice(choice, capped)
    assert "5.0 to 184 by label, but at most 10; this cap holds for 1 of 2 labels" in with_cap
    assert "at most" not in prose_choice.reading_of_choice(choice, free)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_told_in_the_units_of_the_films(channels: int) -> None:
    data = _data("binary", channels=channels)
    table = eda.pixel_table(data, eda.pixel_histograms(data))
    mean = data.train.images.double().mean(dim=(0, 2, 3))[0] / 255
    assert f"mean {mean:.3f}" in prose_eda.reading_of_pixels(table)
    shown = prose_eda.shown_pixels(table).splitlines()
    assert len(shown) == 2 + 3 * channels and "60 / 40 / 40" in shown[2] and f"{mean:.3f} / " in shown[2]


def test_tables_for_readers_separate_thousands_and_dash_what_is_missing() -> None:
    table = pd.DataFrame({"images": [12345], "yes_no": [True], "share": [0.12345], "none": [np.nan], "whole": [3.0]})
    assert prose_eda.shown(table).splitlines()[-1] == "| 12,345 | yes | 0.123 | – | 3 |"
    assert "yes no" in prose_eda.shown(table)


# ---- figures


def _figures(data: Dataset) -> dict[str, Figure]:
    histograms, counts, found = eda.pixel_histograms(data), eda.class_counts(data), eda.compare_images(data)
    figures = {
        "balance": plots.plot_balance(counts),
        "levels": plots.plot_levels(eda.level_table(data, histograms)),
        "pixels": plots.plot_pixels(eda.pixel_table(data, histograms)),
        "similarity": plots.plot_duplicate_similarity(found.histogram, found.threshold),
        "samples": plots.plot_samples(data, eda.draw_samples(data)),
        "pairs": plots.plot_pairs(data, found.pairs),
    }
    if data.task == "multilabel":
        figures["cardinality"] = plots.plot_cardinality(eda.cardinality_table(data))
        figures["cooccurrence"] = plots.plot_cooccurrence(eda.cooccurrence_table(data), counts)
    if data.train.groups is not None:
        figures["patients"] = plots.plot_patients(eda.images_per_patient(data), eda.shared_patients(data))
    return figures


KINDS = [("binary", 1, True), ("multiclass", 3, False), ("multilabel", 1, True)]


@pytest.mark.parametrize(("task", "channels", "patients"), KINDS)
def test_every_figure_draws_for_every_kind_of_data(task: str, channels: int, patients: bool) -> None:
    figures = _figures(_data(task, channels=channels, patients=patients))
    for name, figure in figures.items():
        figure.savefig(io.BytesIO(), format="png", dpi=20)
        assert figure.axes or figure.subfigs, name
        assert not any(ax.get_title() for ax in figure.axes), name
    assert ("patients" in figures) == patients


def test_the_balance_shows_the_share_where_it_is_and_the_images_beside_it() -> None:
    axis = plots.plot_balance(_shares(test=0.6)).axes[0]
    marks = {(round(float(line.get_xdata()[0]), 3)) for line in axis.lines if line.get_marker() == "s"}  # type: ignore[arg-type]
    assert marks == {60.0, 40.0}
    assert "700 / 700 / 600" in [text.get_text() for text in axis.texts]


def test_the_map_of_labels_writes_every_pair_once_under_the_more_frequent_label() -> None:
    data = _data("multilabel")
    pairs, counts = eda.cooccurrence_table(data), eda.class_counts(data)
    axis = plots.plot_cooccurrence(pairs, counts).axes[0]
    written = [t.get_text() for t in axis.texts if t.get_text().isdigit()]
    train = counts[(counts.split == "train") & (counts["class"] != "none of them")]
    assert sorted(written) == sorted([str(n) for n in [*pairs.both, *train.images]])
    assert [t.get_text() for t in axis.get_xticklabels()] == list(train.sort_values("images", ascending=False)["class"])


def test_the_sheet_of_pairs_shows_the_images_of_the_pair() -> None:
    data, found = _with_copies()
    figure = plots.plot_pairs(data, found.pairs)
    left, right = figure.axes[:2]
    first = found.pairs.iloc[0]
    np.testing.assert_array_equal(left.images[0].get_array(), data.train.images[first.index_a, 0])
    np.testing.assert_array_equal(right.images[0].get_array(), data.val.images[first.index_b, 0])
