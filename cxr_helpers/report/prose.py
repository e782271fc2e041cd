"""Sentences whose numbers come from tables: what a notebook says about its results, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data import Dataset
from ..loop import signs_of_collapse
from ..profiles import Profile
from .claims import PAGE, content_of, one_data_set
from .lineage import dataset_name
from .tables import rows_of, unit_of

__all__ = [
    "after_correction",
    "by_command",
    "heading",
    "missing_text",
    "page_head",
    "points",
    "reading_of_collapse",
    "reading_of_curves",
    "reading_of_online",
    "reading_of_probe_curve",
    "reading_of_scores",
    "verdict",
    "verdicts",
]

LEVEL = 0.05  # of false calls
FEW_SEEDS = 3  # below this a difference is one of weights, not of methods


def page_head(profile: Profile, datasets: Mapping[str, Dataset], *, imagenet: bool, commit: str) -> str:
    """Which profile, commit, device and data made a page, and what it is evidence for.

    From here on the page's tables take only runs on these data, and nothing is written for another profile.

    Args:
        imagenet: whether ImageNet's weights were to be had.
        commit: of the code that makes the page; each run shows its own.
    """
    PAGE.make(profile.name, {(data.name, data.size): data.fingerprint for data in datasets.values()})
    worth = "Evidence for" if profile.is_evidence else "**Not evidence.** It says"
    dirty = " (+: with changes not committed)" if commit.endswith("+") else ""
    threads = torch.get_num_threads()
    cpu = f"CPU, {threads} thread{'s' if threads != 1 else ''}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    lines = [
        f"**Profile `{profile.name}`** · page made on {device} · commit {commit}{dirty}",
        "",
        f"{worth} {profile.says}.",
    ]
    if "imagenet" in profile.baselines and not imagenet:
        lines.append(
            "ImageNet's weights are not on this machine and could not be downloaded, so their row is missing: put "
            "torchvision's ResNet-18 file here and name it in `CXR_IMAGENET_WEIGHTS`."
        )
    lines.append("")
    lines += ["| data | px | content | train / val / test | task | status | notes |", "|---|---|---|---|---|---|---|"]
    for data in datasets.values():
        sizes = " / ".join(f"{len(split):,}" for split in data.splits.values())
        task = f"{data.task}, {len(data.class_names)} {'labels' if data.task == 'multilabel' else 'classes'}"
        notes = list(data.provenance.get("notes", []))
        name = dataset_name(data.name, notes)
        cells = [name, data.size, content_of(data.fingerprint), sizes, task, data.provenance["status"]]
        lines.append(f"| {' | '.join(cell(str(text)) for text in [*cells, '; '.join(notes) or '–'])} |")
    return "\n".join(lines)


def cell(text: str) -> str:
    """A text as one cell of a Markdown table: names may hold bars, backslashes before them, and more lines."""
    return re.sub(r"(\\*)\|", r"\1\1\\|", " ".join(text.split()))


def heading(dataset: Dataset, what: str = "") -> str:
    """Heading of a data set's part of a section; `what` where a page has more than one."""
    name = dataset_name(dataset.name, dataset.provenance.get("notes", []))
    return f"### {name}, {dataset.size} px{': ' if what else ''}{what}"


def by_command(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows whose commands differ in the seed alone, with that command: N stands for the seed of several."""
    any_seed = rows["command"].str.replace(r"--seed \d+", "--seed N", regex=True)
    for command, alike in rows.groupby(any_seed, sort=False):
        yield str(command) if len(alike) > 1 else str(alike["command"].iloc[0]), alike


def missing_text(missing: pd.DataFrame) -> str:
    """The runs that are not there, each with the command that makes it; seeds of one configuration share a line."""
    if missing.empty:
        return "Every run of the plan is there."
    one = len(missing) == 1
    count, them = ("1 run of the plan is", "it") if one else (f"{len(missing)} runs of the plan are", "them")
    lines = [f"**{count} not there**; all that follows is without {them}. To make {them}:", ""]
    for command, rows in by_command(missing):
        begun = [f"seed {row.seed}: {row.status}" for row in rows_of(rows) if row.status != "not run yet"]
        seeds = ", ".join(str(seed) for seed in rows["seed"])
        text = f"- `{command}`" if len(rows) == 1 else f"- `{command}` with N = {seeds}"
        lines.append(text + (f" ({'; '.join(begun)})" if begun else ""))
    return "\n".join(lines)


def _last(histories: pd.DataFrame) -> pd.DataFrame:
    """The last epoch of every run."""
    return histories.loc[histories.groupby(["label", "seed"]).epoch.idxmax()]


def _mean(values: pd.Series, digits: int = 3) -> str:
    """Mean over seeds, with their sd where there are several."""
    text = f"{values.mean():.{digits}f}"
    return f"{text} ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else text


def _seeds(number: int) -> str:
    return f"{number} seed{'s' if number != 1 else ''}"


NO_CURVES = "No finished run yet."


def reading_of_curves(histories: pd.DataFrame) -> str:
    """What the loss curves show: first and last loss, against chance where chance has a closed form."""
    if histories.empty:
        return NO_CURVES
    lines = []
    for label, rows in one_data_set(histories).groupby("label", sort=False):
        last, first = _last(rows), rows[rows.epoch == rows.epoch.min()]
        span = f"epochs {int(rows.epoch.min())} to {int(rows.epoch.max())}"
        text = f"- **{label}** ({_seeds(rows.seed.nunique())}, {span}): "
        text += f"loss {_mean(first.loss)} in epoch {int(rows.epoch.min())}, {_mean(last.loss)} in the last."
        if "invariance" in rows and rows["invariance"].notna().any():
            hinge = last["variance"].mean()
            text += (
                f" Its variance term ends at {hinge:.3f}; 0 would mean that every dimension has reached a standard "
                f"deviation of 1, and the projections' is {last.projection_std.mean():.2f}."
            )
        elif rows.family.iloc[0] == "simclr":
            candidates = 2 * int(rows.batch_size.iloc[0]) - 1
            text += f" Guessing among the 2B − 1 = {candidates} candidates would cost {np.log(candidates):.3f}."
        lines.append(text + _skipped(rows))
    return "\n".join(lines)


def _skipped(rows: pd.DataFrame) -> str:
    """Which steps were left out; empty where none was, or where the records are older than the count."""
    bad = rows[rows["skipped_steps"] > 0] if "skipped_steps" in rows else rows.iloc[:0]
    if bad.empty:
        return ""
    where = "; ".join(
        f"seed {seed}: {', '.join(f'{int(r.skipped_steps)} in epoch {int(r.epoch)}' for r in rows_of(of_seed))}"
        for seed, of_seed in bad.groupby("seed")
    )
    return f" **Steps were left out** because their loss or gradient was not finite ({where})."


def reading_of_online(histories: pd.DataFrame) -> str:
    """What the online probe and kNN say at the last epoch, and how much they still move."""
    if histories.empty:
        return NO_CURVES
    name, column = ("AUC", "online_auc") if "online_auc" in histories else ("accuracy", "online_accuracy")
    lines = []
    for label, rows in one_data_set(histories).groupby("label", sort=False):
        last = _last(rows)
        tail_epochs = min(5, int(rows.epoch.max()))
        tail = rows[rows.epoch > rows.epoch.max() - tail_epochs].groupby("seed")[column]
        swing = (tail.max() - tail.min()).max()
        near = _mean(last[column.replace("online", "knn")])
        text = f"- **{label}**: online val {name} {_mean(last[column])}, kNN {near} at the last epoch "
        text += f"({_seeds(last.seed.nunique())})"
        if tail_epochs > 1:
            text += f"; in the last {tail_epochs} epochs a run's online figure moves by up to {swing:.3f}"
        lines.append(f"{text}.")
    return "\n".join(lines)


def reading_of_collapse(histories: pd.DataFrame) -> str:
    """Whether the representation collapses: spread and rank at the end against the first epoch, and broken bounds."""
    if histories.empty:
        return NO_CURVES
    lines = []
    for label, rows in one_data_set(histories).groupby("label", sort=False):
        last, first = _last(rows), rows[rows.epoch == rows.epoch.min()]
        text = f"- **{label}**: {_collapse(rows)}; effective rank of the features "
        text += f"{first.effective_rank.mean():.0f} after epoch 1, {last.effective_rank.mean():.0f} at the end, "
        text += f"their std {first.feature_std.mean():.2f} → {last.feature_std.mean():.2f}"
        if "projection_std" in rows and rows.projection_std.notna().any():
            text += f", the projections' {first.projection_std.mean():.2f} → {last.projection_std.mean():.2f}"
        lines.append(text + ".")
    return "\n".join(lines)


def _collapse(rows: pd.DataFrame) -> str:
    """Where bounds of collapse are broken: judged when the run was trained, else (older records) here."""
    texts = []
    for seed, run in rows.groupby("seed"):
        epochs = [{str(name): value for name, value in row.items()} for row in run.to_dict("records")]
        broken = [row for row in epochs if row.get("collapsed", 0) > 0 or signs_of_collapse(row)]
        if not broken:
            continue
        first, still = int(broken[0]["epoch"]), broken[-1]["epoch"] == run.epoch.max()
        when = f"from epoch {first} on" if still else f"in epoch {first}, but not at the end"
        signs = signs_of_collapse(broken[-1]) or [f"effective rank {broken[-1]['effective_rank']:.1f}"]
        texts.append(f"seed {seed} {when}: {', '.join(signs)}")
    return f"**collapsed** ({'; '.join(texts)})" if texts else "no collapse"


def reading_of_probe_curve(curves: pd.DataFrame) -> str:
    """Whether the SGD probe has settled, and whether more epochs would change the order of the encoders."""
    by_epoch = one_data_set(curves).pivot_table(index="epoch", columns="label", values="val_auc")
    half, last = by_epoch.iloc[len(by_epoch) // 2], by_epoch.iloc[-1]
    order = [list(ranking.sort_values(ascending=False).index) for ranking in (half, last)]
    same = "as it was" if order[0] == order[1] else f"where it was {' > '.join(order[0])}"
    return (
        f"Order by val AUC after {len(by_epoch)} epochs of the probe: {' > '.join(order[1])}, {same} half-way; "
        f"in the second half no encoder's mean moved by more than {(last - half).abs().max():.3f}."
    )


def _of_data(row: Any, split: str = "test") -> str:
    images, patients = (getattr(row, k, None) or getattr(row, f"{split}_{k}") for k in ("images", "patients"))
    whose = f" of {patients:,} patients" if patients != images else ""
    return f"{row.data}, {row.size} px, {images:,} {split} images{whose}"


def reading_of_scores(summary: pd.DataFrame) -> str:
    """The best and the lowest row, where the random encoder stands, and what kind of spread is which."""
    ranked = one_data_set(summary).sort_values("test_mean", ascending=False)
    best = rows_of(ranked)[0]
    metric = "accuracy" if best.metric == "accuracy" else "AUC"
    text = f"On {_of_data(best)}, the highest test {metric} of these rows is {best.test_mean:.3f} "
    text += f"[{best.test_low:.3f}, {best.test_high:.3f}]: {best.label} ({_seeds(best.num_seeds)}, {best.protocol})."
    floor = ranked[ranked.family == "random"]
    if len(floor) and best.family == "random":
        text += " That encoder is untrained: nothing here was learnt that a linear probe can use."
    elif len(floor):
        low = rows_of(floor)[0]
        text += f" An untrained encoder already has {low.test_mean:.3f} [{low.test_low:.3f}, {low.test_high:.3f}]"
        text += f" ({_seeds(low.num_seeds)}): only what exceeds it was learnt."
    return text


def points(value: float) -> str:
    """A signed difference in hundredths of the metric."""
    return f"{100 * value:+.1f}".replace("-", "−")


def verdict(row: Any, *, short: bool = False) -> str:
    """One comparison as a sentence: difference, interval, seeds, data, split, and what may be concluded.

    Args:
        row: of `paired_table` (as `rows_of` gives it).
        short: leave out what every pair of one table shares.
    """
    metric = "accuracy" if row.metric == "accuracy" else "AUC"
    count_a, count_b = len(row.seeds_a), len(row.seeds_b)
    seeds = f"{_seeds(count_a)} each" if count_a == count_b else f"{count_a} and {_seeds(count_b)}"
    text = f"{row.a} is **{row.verdict}** than {row.b}"
    if row.verdict == "not distinguishable":
        text = f"{row.a} and {row.b} are **not distinguishable**"
    side = "above" if row.difference >= 0 else "below"
    text += f": {row.mean_a:.3f} is {100 * abs(row.difference):.1f} points {side} {row.mean_b:.3f}"
    text += f" (95 % interval {points(row.low)} to {points(row.high)}; {seeds})."
    if not short:
        unit = unit_of(row.images, row.patients)
        drawn = f"{unit} and seeds" if max(count_a, count_b) > 1 else unit
        text += f" Mean {row.split} {metric} on {_of_data(row, row.split)}, paired over {drawn}."
    fewest = max(count_a, count_b) if row.deterministic else min(count_a, count_b)
    if fewest < FEW_SEEDS:
        text += f" With {_seeds(fewest)} this compares sets of weights, not methods."
    return text


def verdicts(pairs: pd.DataFrame) -> str:
    """The first comparison as the answer, the others as its context."""
    if pairs.empty:
        return "No comparison yet: one side of every pair is still to be run."
    first, *others = rows_of(one_data_set(pairs))
    lines = [verdict(first), "", *(f"- {verdict(row, short=True)}" for row in others)]
    return "\n".join([*lines, "", after_correction(pairs)]).rstrip()


def after_correction(pairs: pd.DataFrame) -> str:
    """Which of several comparisons stay apart when their number is allowed for; nothing to say of fewer than two."""
    apart = [row for row in rows_of(pairs) if row.verdict != "not distinguishable"]
    if len(pairs) < 2 or not apart:
        return ""
    lost = [f"{row.a} against {row.b} (p = {row.p_holm:.3g})" for row in apart if row.p_holm > LEVEL]
    text = f"Each interval is at 95 % by itself. Corrected for the {len(pairs)} comparisons of this list (Holm), "
    if len(apart) == 1:
        return text + (f"none stays told apart: not {lost[0]}." if lost else "the one that is told apart stays so.")
    if not lost:
        return text + f"all {len(apart)} that are told apart stay so."
    kept = len(apart) - len(lost) or "none"
    return text + f"{kept} of the {len(apart)} that are told apart stay so; not {'; '.join(lost)}."
