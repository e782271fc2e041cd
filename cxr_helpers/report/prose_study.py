"""Sentences for the study's questions: sanity, policies, labels, ImageNet. Every number comes from a table or a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data import Dataset
from ..methods import vicreg_loss
from ..runs import Run
from .choice import Choice, PolicyInUse, single_seed_winners
from .lineage import run_label
from .prose import after_correction, points, verdict
from .tables import rows_of

__all__ = [
    "choice_text",
    "imagenet_verdict",
    "reading_of_agreement",
    "reading_of_first_losses",
    "reading_of_labels",
    "reading_of_policies",
    "reading_of_policy_in_use",
    "reading_of_sanity",
    "single_seed_text",
]

ANCHOR_EPOCHS = 100  # of the published CIFAR-10 figures
CIFAR_TRAIN = 45_000  # of CIFAR-10's 50,000 training images, what is left beside a val split carved from them


# ---- notebook 00


def reading_of_first_losses(runs: Iterable[Run]) -> str:
    """The loss of the very first batch against what an encoder that cannot tell images apart would pay."""
    lines = []
    for run in runs:
        history, options = run.history, run.record["options"]
        if history.empty or "first_loss" not in history:
            continue
        first = float(history["first_loss"].iloc[0])
        text = f"- **{run_label(run)}**, seed {run.record['seed']}: the first batch costs {first:.3f}; "
        if "temperature" in options:
            candidates = 2 * int(run.record["batch_size"]) - 1
            text += (
                f"embeddings that are all alike would cost log(2B − 1) = log {candidates} = {np.log(candidates):.3f}."
            )
        elif "variance_weight" in options:
            text += (
                f"embeddings that are all alike would cost {_collapsed_vicreg(options):.3f}, its variance term alone."
            )
        else:
            continue
        lines.append(text)
    return "\n".join(lines) or "No record holds the loss of its first batch."


def _collapsed_vicreg(options: Mapping[str, float]) -> float:
    """VICReg's loss of constant embeddings under these weights, from the loss itself."""
    constant = torch.ones(4, 8, dtype=torch.float64)
    weights = {key: float(value) for key, value in options.items() if key.endswith("_weight")}
    return float(vicreg_loss(constant, constant, **weights)["loss"])


def reading_of_sanity(summary: pd.DataFrame, pairs: pd.DataFrame, dataset: Dataset, epochs: int) -> str:
    """Whether the methods learn: each one's test accuracy and its paired distance to the untrained encoder, and
    whether it may be compared with the published band at all.

    Args:
        pairs: `paired_table` of `floor_pairs`.
    """
    metric = "accuracy" if "accuracy" in set(summary["metric"]) else "AUC"
    floors = set(summary["label"][summary["family"] == "random"])
    against = {row.a: row for row in rows_of(pairs) if row.b in floors}
    trained = rows_of(summary[summary["family"] != "random"])
    lines = []
    for row in trained:
        text = f"- **{row.label}**: test {metric} {100 * row.test_mean:.1f} % by linear probe "
        text += f"[{100 * row.test_low:.1f}, {100 * row.test_high:.1f}], {100 * row.test_knn:.1f} % by kNN"
        if row.label in against:
            gain = against[row.label]
            text += f"; {points(gain.difference)} points [{points(gain.low)}, {points(gain.high)}]"
            text += " against the untrained encoder"
        lines.append(text + ".")
    learnt = [row.label for row in trained if row.label in against and against[row.label].low > 0]
    in_doubt = [row.label for row in trained if row.label in against and row.label not in learnt]
    if in_doubt:
        lines.insert(0, f"**Not shown to have learnt** more than random convolutions give: {', '.join(in_doubt)}.\n")
    if learnt:
        lines.insert(0, f"**Above the untrained encoder**, with an interval that excludes 0: {', '.join(learnt)}.\n")
    short = [f"{epochs} epochs instead of {ANCHOR_EPOCHS}"] if epochs < ANCHOR_EPOCHS else []
    if dataset.name != "cifar10":
        short.append(f"{dataset.name} instead of CIFAR-10")
    elif len(dataset.train) < CIFAR_TRAIN:
        short.append(f"{len(dataset.train):,} of CIFAR-10's training images")
    if short:
        lines.append(
            f"\nNot comparable with the published band: {', '.join(short)}. The order of magnitude is a check."
        )
    return "\n".join(lines)


# ---- notebook 03


def reading_of_policies(summary: pd.DataFrame) -> str:
    """The policies beside the default, which of them are told apart from it, and where the other probes disagree."""
    if summary.empty:
        return "No seed has a finished run under a policy and under the default yet."
    rows, default = rows_of(summary), summary["default"].iloc[0]
    count = summary["seeds"].map(len)
    alike = count.nunique() == 1
    by_seeds = f"{count.iloc[0]} seed{'s' if count.iloc[0] > 1 else ''}" if alike else "the seeds of each"
    order = ", ".join(f"{f'**{row.policy}**' if i == 0 else row.policy} {row.online:.3f}" for i, row in enumerate(rows))
    lines = [f"By the online probe, mean of {by_seeds}, in the order of the paired differences to {default}: {order}."]
    others = [row for row in rows if row.policy != default]
    lines += [f"{said[0].upper()}{said[1:]}." for said in _beside_default(others, default)]
    if not alike:
        lines.append("A policy given more seeds because it led on the first keeps that lucky seed in its mean.")
    return " ".join([*lines, *_other_probes(summary)])


def _other_probes(summary: pd.DataFrame) -> list[str]:
    """Where kNN or the offline linear probe has another best policy than the online probe."""
    best, texts = rows_of(summary)[0], []
    for column, name in (("knn", "kNN"), ("linear", "the offline linear probe")):
        top = rows_of(summary.sort_values(column, ascending=False))[0]
        if top.policy != best.policy:
            texts.append(f"By {name} the best is {top.policy} ({getattr(top, column):.3f}), not {best.policy}.")
    return texts


def _beside_default(rows: list[Any], default: str) -> list[str]:
    """Which policies' paired intervals lie above 0, below it, hold it, and which have none."""
    texts = []
    sides = {
        f"above {default} by an interval that excludes 0": [row for row in rows if row.low > 0],
        f"below {default} by an interval that excludes 0": [row for row in rows if row.high < 0],
        f"not told from {default}": [row for row in rows if np.isfinite(row.low) and row.low <= 0 <= row.high],
    }
    for side, members in sides.items():
        if members:
            shown = "; ".join(
                f"{row.policy} {points(row.above_default)} points [{points(row.low)}, {points(row.high)}], "
                f"{len(row.shared_seeds)} seeds"
                for row in members
            )
            texts.append(f"{side}: {shown}")
    alone = [row.policy for row in rows if len(row.shared_seeds) == 1]
    if alone:
        texts.append(f"one seed, so no interval and an order that may be chance: {', '.join(alone)}")
    return texts


def choice_text(choice: Choice | None, summary: pd.DataFrame | None = None) -> str:
    """What was chosen and how sure that is.

    Args:
        summary: `policy_summary`'s rows; what they say of other policies and by other probes is added.
    """
    if choice is None:
        return "**No choice yet**: a policy of the search still lacks its runs, and what is missing might have won."
    if choice.best == choice.default:
        text = f"**{choice.policy}**, the policy argued for beforehand, is also the best in the mean"
    else:
        interval = "no interval from one seed"
        if len(choice.seeds) > 1:
            interval = f"95 % interval {points(choice.low)} to {points(choice.high)}, "
            interval += f"paired over {len(choice.seeds)} seeds"
        text = f"{choice.best} is furthest above {choice.default}, {points(choice.difference)} points ({interval}). "
        if choice.policy == choice.default:
            text += f"That does not exclude 0, so **{choice.default}**, argued for beforehand, is kept"
        else:
            text += f"That excludes 0, so **{choice.policy}** replaces {choice.default}"
    if len(choice.winners) > 1:
        text += f". Drawing the seeds anew, {choice.best} comes out on top in {100 * choice.share:.0f} % of the draws"
    if summary is None:
        return f"{text}."
    rows = [row for row in rows_of(summary) if row.policy not in (choice.best, choice.default)]
    others = "; ".join(_beside_default(rows, choice.default))
    return " ".join([f"{text}.", *([f"Of the others, {others}."] if others else []), *_other_probes(summary)])


def single_seed_text(choice: Choice | None) -> str:
    """What a report with one seed would have claimed."""
    if choice is None:
        return ""
    if len(choice.winners) == 1:
        text = f"One seed has a run under every policy, and that seed says {choice.winners[0]}"
        return f"{text}: exactly what must not be trusted."
    counts = single_seed_winners(choice)
    said = ", ".join(f"{name} with {count} of {len(choice.winners)} seeds" for name, count in counts.items())
    same = "every seed would have said the same" if len(counts) == 1 else "the answer would have depended on the seed"
    return f"With a single seed the winner would have been {said}: {same}."


def reading_of_agreement(found: Mapping[str, float], first: str, second: str) -> str:
    """Whether the second data set ranks the policies as the first."""
    if not np.isfinite(found["spearman"]):
        return f"Too few policies on both data sets to compare the orders of {first} and {second}."
    rho = found["spearman"]
    word = "agree" if rho > 0.7 else "agree in part" if rho > 0.3 else "do not agree"
    return (
        f"The orders on {first} and {second} {word}: Spearman's rank correlation of the means of "
        f"{found['policies']:.0f} policies is {rho:.2f}."
    )


def reading_of_policy_in_use(use: PolicyInUse) -> str:
    """Where a page's augmentations come from."""
    text = f"Augmentations: **{use.policy}**, "
    if use.why == "chosen":
        return f"{text}as notebook 03 left it for this profile: it says how sure that is."
    if use.why == "profile":
        return f"{text}as the profile names it; notebook 03 has written no choice for it yet."
    other = f"; notebook 03 chose **{use.chosen}**" if use.chosen != use.policy else ""
    if use.why == "named":
        return f"{text}as named above{other if use.chosen else ''}."
    text += f"as the profile names it{other}, with which no run of this length is finished. What follows "
    return text + f"says nothing about {use.chosen}; the commands below make its runs with `--policy {use.chosen}`."


# ---- notebook 04, labels


def reading_of_labels(summary: pd.DataFrame, reference: str = "Supervised") -> str:
    """At each part of the labels, which encoders are ahead of supervised training, draw by draw."""
    if summary.empty or "difference" not in summary:
        return "No supervised run on part of the labels yet: nothing to compare the frozen encoders with."
    lines = []
    for fraction, rows in summary[summary["difference"].notna()].groupby("fraction"):
        count = rows["num_labels"].mean()
        text = f"- **{100 * float(fraction):g} %** ({count:,.0f} labels): "  # type: ignore[arg-type]
        parts = []
        for row in rows_of(rows.sort_values("difference", ascending=False)):
            interval = f" [{points(row.low)}, {points(row.high)}]" if np.isfinite(row.low) else ""
            parts.append(f"{row.label} {points(row.difference)}{interval}")
        lines.append(text + "; ".join(parts) + ".")
    head = f"Points against {reference.lower()} training on the same labels, on the same test images; 95 % t interval "
    head += "over the draws of labels, not over patients, not corrected for their number:"
    return "\n".join([head, "", *lines])


# ---- notebook 05


def imagenet_verdict(pairs: pd.DataFrame, *, imagenet: bool, planned: bool = True) -> str:
    """Does it help or hurt to start from ImageNet? Left open where the weights or the runs are not there.

    Args:
        imagenet: whether ImageNet's weights were to be had.
        planned: whether the profile asks for them at all.
    """
    if not planned:
        return "**The verdict is open**: this profile leaves ImageNet's weights out."
    if not imagenet:
        return (
            "**The verdict is open.** ImageNet's weights are not on this machine and could not be downloaded. Put "
            "torchvision's ResNet-18 file here, name it in `CXR_IMAGENET_WEIGHTS` and run this page again."
        )
    if pairs.empty:
        return "**The verdict is open**: no pair of a run from ImageNet and its twin from random weights is finished."
    words = {"better": "helps", "worse": "hurts", "not distinguishable": "makes no difference that could be shown"}
    lines = []
    for row in rows_of(pairs):
        if row.b == "Supervised":
            lines.append(f"- Beside training on the labels from scratch: {verdict(row, short=True)}")
            continue
        if " from ImageNet" in row.a and " from ImageNet" in row.b:
            lines.append(f"- Two methods, both started from ImageNet: {verdict(row, short=True)}")
            continue
        what = "The pretext task, started from ImageNet," if row.b.startswith("ImageNet") else "Starting from ImageNet"
        lines.append(f"- {what} **{words[row.verdict]}**: {verdict(row, short=True)}")
    return "\n".join([*lines, "", after_correction(pairs)]).rstrip()
