"""What notebook 01 says about the data: sentences and tables whose every number comes from `eda`'s tables."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ..data import Dataset
from ..eda.duplicates import EXACT, NEAR, Similarities
from ..eda.labels import NONE
from ..eda.options import EDA
from ..eda.pixels import ALL
from .report import to_markdown
from .tables import rows_of

__all__ = [
    "listed",
    "reading_of_counts",
    "reading_of_duplicates",
    "reading_of_format",
    "reading_of_labels",
    "reading_of_leak",
    "reading_of_patients",
    "reading_of_pixels",
    "shown",
    "shown_pixels",
]

NO_PATIENTS = "There are no patient identifiers in this file: images count as independent, and a leak cannot be seen."


def shown(table: pd.DataFrame, digits: int = 3) -> str:
    """A table for readers: shares and moments with that many digits, counts with separators, words for yes and no."""
    table = table.copy()
    for column in table:
        values = table[column]
        if pd.api.types.is_bool_dtype(values):
            table[column] = values.map({True: "yes", False: "no"})
        elif pd.api.types.is_float_dtype(values):
            whole = bool((values.dropna() % 1 == 0).all()) and bool(values.notna().any())
            text = f"{{:,.{0 if whole else digits}f}}"
            table[column] = [text.format(v) if np.isfinite(v) else None for v in values]
        elif pd.api.types.is_integer_dtype(values) and column != "index":
            table[column] = values.map("{:,}".format)
    return to_markdown(table.rename(columns=lambda name: str(name).replace("_", " ")))


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _points(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:+.1f}".replace("-", "−")  # + 0.0: no minus before a zero


def listed(words: Iterable[str]) -> str:
    """Words as a sentence lists them: a, b and c."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _plural(number: int, word: str) -> str:
    return f"{number:,} {word}{'s' if number != 1 else ''}"


# ---- labels


def reading_of_format(dataset: Dataset, table: pd.DataFrame) -> str:
    """What one label looks like, and the mistake that this shape invites.

    Args:
        dataset: the one described.
        table: `label_format`'s rows.
    """
    first = rows_of(table)[0]
    text = f"Images are {first.image_dtype} {first.images}, labels {first.label_dtype} {first.labels} of {first.values}"
    text += f"; the first of train is `{first.example}`: {first.means}."
    if dataset.task == "multilabel":
        none = float((dataset.train.labels == 0).all(dim=1).float().mean())
        text += (
            f" A row answers {len(dataset.class_names)} yes-or-no questions, it does not name a class: "
            f"{_percent(none)} of train's rows are all 0, and an argmax would call every one of them "
            f"{dataset.class_names[0]}."
        )
    unlabelled = int(table.unlabelled.sum())
    return text + (f" {_plural(unlabelled, 'image')} have no label." if unlabelled else " Every image is labelled.")


def reading_of_counts(counts: pd.DataFrame, shift: pd.DataFrame) -> str:
    """Balance of train, and what moves from train to val and to test.

    Args:
        counts: `class_counts`'s rows.
        shift: `prevalence_shift`'s rows of the same data.
    """
    train = counts[(counts.split == "train") & (counts["class"] != NONE)].sort_values("images", ascending=False)
    first, last = train.iloc[0], train.iloc[-1]
    text = f"In train the most frequent is {first['class']} ({_percent(first.share)}), the rarest {last['class']} "
    text += f"({_percent(last.share)}, {_plural(int(last.images), 'image')}"
    text += f" of {_plural(int(last.patients), 'patient')})" if np.isfinite(last.patients) else ")"
    text += f": {first.images / last.images:.1f} to 1." if last.images else ": none at all."
    if len(train) == 2:  # two sides of one question move by the same amount
        shift = shift[shift["class"] == first["class"]]
    for other, rows in shift.groupby("to", sort=False):
        text += f" From train to {other} {_moves(rows.rename(columns={'class': 'label'}))}."
    if len(shift) > 5:
        text += f" Of {len(shift)} comparisons at 95 % about {0.05 * len(shift):.1f} would stand out by chance."
    return text


def _moves(rows: pd.DataFrame) -> str:
    """Which shares move between two splits; of a single one, by how much in any case."""
    ranked = rows.sort_values("difference", key=abs, ascending=False, kind="stable")
    named = [
        f"{row.label} {_points(row.difference)} points [{_points(row.low)}, {_points(row.high)}]"
        for row in rows_of(ranked if len(rows) == 1 else ranked[ranked.moved])
    ]
    if len(rows) == 1:
        return f"the share of {named[0]}: {'it moves' if rows.moved.all() else 'no shift can be told from 0'}"
    if not named:
        return f"none of {len(rows)} shares moves beyond its 95 % interval"
    count = f"{len(named)} of {len(rows)} shares {'move' if len(named) != 1 else 'moves'}"
    return f"{count}, most {listed(named[:3])}" if len(named) > 3 else f"{count}: {listed(named)}"


def reading_of_labels(cardinality: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """How many labels an image has, and which ones come together more often than chance has it.

    Args:
        cardinality: `cardinality_table`'s rows.
        pairs: `cooccurrence_table`'s rows.
    """
    train = cardinality[cardinality.split == "train"]
    mean, several = float((train.labels * train.share).sum()), float(train[train.labels > 1].share.sum())
    text = f"A train image has {mean:.2f} labels on average; {_percent(float(train.share.iloc[0]))} have none, "
    text += f"{_percent(several)} more than one, the most {int(train[train.images > 0].labels.max())}. "
    usable = pairs.dropna(subset=["lift"]).sort_values("phi", ascending=False)
    if usable.empty:
        return text + f"No pair of labels is expected in {EDA.fewest_expected:g} images: too few to judge any."
    best = [
        f"{row.a} with {row.b} ({row.both} images, {row.lift:.1f} times as often as by chance, phi {row.phi:.2f})"
        for row in rows_of(usable)[:3]
    ]
    above, few = int((usable.lift > 1).sum()), len(pairs) - len(usable)
    text += f"Closest are {listed(best)}. {above} of {len(usable)} pairs come together more often than by chance; "
    text += f"{_plural(few, 'pair')} with fewer than {EDA.fewest_expected:g} expected images are not judged. "
    largest = float(pairs.phi.abs().max())
    return text + f"No phi exceeds {largest:.2f} in size: no label can be read off another."


# ---- pixels


def shown_pixels(table: pd.DataFrame) -> str:
    """`pixel_table` for readers: one row per class (and channel), the three splits side by side.

    Args:
        table: `pixel_table`'s rows.
    """
    rows = []
    for (label, channel), part in table.groupby(["class", "channel"], sort=False):
        by_split = part.set_index("split")
        row = {"class": label} | ({"channel": channel} if table.channel.nunique() > 1 else {})
        for column, digits in (("images", 0), ("mean", 3), ("variance", 4), ("contrast", 3)):
            values = [by_split[column].get(split) for split in table.split.unique()]
            row[column] = " / ".join("–" if v is None else f"{v:,.{digits}f}" for v in values)
        rows.append(row)
    head = f"images ({' / '.join(table.split.unique())})"
    return to_markdown(pd.DataFrame(rows).rename(columns={"images": head}))


def reading_of_pixels(table: pd.DataFrame) -> str:
    """Train's moments for the normalisation, and how far splits and classes lie apart against films.

    Args:
        table: `pixel_table`'s rows.
    """
    train = table[(table.split == "train") & (table["class"] == ALL)]
    values = [f"{row.channel} mean {row.mean:.3f}, sd {row.std:.3f}" for row in rows_of(train)]
    text = f"Train, in [0, 1]: {listed(values)}; "
    text += f"{_percent(train.black.mean())} of the pixels are black, {_percent(train.white.mean(), 2)} white. "
    between = (train.mean_sd**2 / train.variance).mean()
    text += f"After Normalize(.5, .5), the assignment's, that is mean {(train['mean'].mean() - 0.5) / 0.5:+.2f} and "
    text += f"sd {train['std'].mean() / 0.5:.2f}. "
    text += f"Films differ in brightness by sd {train.mean_sd.mean():.3f}, {_percent(between, 0)} of the variance. "
    every = table[table["class"] == ALL].groupby("split", sort=False)["mean"].mean()
    away = (every - every["train"]).drop("train") / train.mean_sd.mean()
    moves = [
        f"{split}'s mean lies {round(float(value), 2) + 0.0:+.2f}".replace("-", "−") for split, value in away.items()
    ]
    text += f"In units of that sd, {listed(moves)} from train's. "
    classes = table[(table.split == "train") & ~table["class"].isin([ALL])].groupby("class", sort=False)
    for column, what in (("mean", "brightness"), ("contrast", "contrast")):
        by_class = classes[column].mean().sort_values()
        text += f"By class, {what} goes from {by_class.iloc[0]:.3f} ({by_class.index[0]}) to "
        text += f"{by_class.iloc[-1]:.3f} ({by_class.index[-1]}). "
    return text.strip()


# ---- patients and duplicates


def reading_of_patients(patients: pd.DataFrame, shared: pd.DataFrame) -> str:
    """How many images a patient has, and which splits share patients.

    Args:
        patients: `patient_table`'s rows, maybe none.
        shared: `shared_patients`'s rows, maybe none.
    """
    if patients.empty:
        return NO_PATIENTS
    sizes = [f"{row.images:,} {row.split} images of {row.patients:,}" for row in rows_of(patients)]
    worst = patients.sort_values("most_images").iloc[-1]
    text = f"{listed(sizes)} patients; one patient has up to {worst.most_images} images (in {worst.split}), and "
    text += f"{_percent(patients.set_index('split').images_of_repeated['train'])} of train's images have a sibling. "
    found = shared[shared.images > 0]
    if found.empty:
        return text + "No patient is in two splits."
    leaks = {(row.split, row.other): row for row in rows_of(found)}
    for (split, other), row in leaks.items():
        if (split, other) in (("val", "train"), ("test", "train"), ("test", "val")):
            text += f"**{row.images} of {row.of} {split} images ({_percent(row.share)}) show a patient of {other}.** "
    if not any("test" in pair for pair in leaks):
        text += "Test shares no patient with either."
    return text.strip()


def reading_of_leak(check: pd.DataFrame) -> str:
    """Whether knowing the patient helps on val, and whether that explains the distance to test.

    Args:
        check: `leak_check`'s rows.
    """
    parts = {row.part: row for row in rows_of(check)}

    def score(name: str) -> str:
        row = parts[name]
        return f"{row.auc:.3f} [{row.low:.3f}, {row.high:.3f}] on {row.images:,} images"

    known, fresh = "val, patient in train", "val, patient not in train"
    if known not in parts or fresh not in parts or "test" not in parts:
        scores = [f"{score(name)} of {name}" for name in ("val", "test") if name in parts]
        return f"Remembered train pixels score AUC {listed(scores)}." if scores else "Too few labels to check."
    text = f"Remembered train pixels score AUC {score(known)} whose patient is in train, {score(fresh)} whose patient "
    text += f"is not, and {score('test')} of test. "
    row = parts[known]
    text += f"The nearest neighbour of {_percent(row.nearest_same)} of the former is of their own patient. "
    leak, rest = parts[known].auc - parts[fresh].auc, parts[fresh].auc - parts["test"].auc
    text += f"Known patients gain {_points(leak)} points; without any, val still lies {_points(rest)} from test. "
    if rest > max(leak, 0):
        return text + "**By this measure most of the distance between val and test is not the leak.**"
    return text + "By this measure the leak is the larger part of the distance between val and test."


def reading_of_duplicates(found: Similarities, confirmed: pd.DataFrame | None = None) -> str:
    """How many images are there twice, where, and what supports the threshold.

    Args:
        found: `compare_images`'s result.
        confirmed: `confirm_pairs`'s rows of the duplicates in the official file; None where there is none to ask.
    """
    histogram, pairs = found.histogram, found.duplicates
    known = bool(histogram.same.any())
    text = f"{int((histogram.same + histogram.different).sum()):,} pairs compared"
    if known:
        other = found.pairs[found.pairs.same_patient == False]  # noqa: E712  (None is unknown)
        below = other[other.r < found.threshold].r
        above = int((other.r >= found.threshold).sum())
        text += f", {int(histogram.same.sum()):,} of one patient; {above} of two patients reach {found.threshold:g}"
        reached = histogram[(histogram.different > 0) & (histogram.r < found.threshold)].r
        text += f", the next highest lies at {below.max() if len(below) else reached.max():.2f}"
    text += ". "
    if pairs.empty:
        return text + "No image is there twice, exactly or nearly."
    parts = []
    for kind in (EXACT, NEAR):
        rows = pairs[pairs.kind == kind]
        across = rows[rows.split_a != rows.split_b]
        where = ", ".join(sorted({f"{a}–{b}" for a, b in zip(across.split_a, across.split_b, strict=True)}))
        inside = f" ({len(across)} across {where})" if len(across) else ""
        parts.append(f"{_plural(len(rows), 'pair')} {kind}{inside}")
    text += f"**{listed(parts)}**, {int((~pairs.same_label.astype(bool)).sum())} with labels that disagree"
    text += f", {int((pairs.same_patient == False).sum())} filed under two patients. " if known else ". "  # noqa: E712
    return (text + (_confirmed(confirmed, found.threshold) if confirmed is not None else "")).strip()


def _confirmed(pairs: pd.DataFrame, threshold: float) -> str:
    """How many of the pairs another copy of the data has, too."""
    there = pairs.identical_other | (pairs.r_other >= threshold)
    text = f"MedMNIST's own 28 px file has {int(there.sum())} of these {len(pairs)}, too, "
    text += f"{int(pairs.identical_other.sum())} of them identical"
    rest = [
        f"{row.split_a} {row.index_a} / {row.split_b} {row.index_b} (there r = {row.r_other:.2f})"
        for row in rows_of(pairs[~there])
    ]
    return text + (f"; not {listed(rest)}, where the file used here must hold another image." if rest else ".")
