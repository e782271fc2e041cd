"""What notebook 01 concludes: baselines, the metric and the loss of each data set, and every value with its reason."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ..eda.baselines import Choice
from ..eda.options import EDA, EdaOptions
from .hyperparameters import field_notes
from .prose_eda import listed
from .tables import dataset_name, rows_of

__all__ = ["choices_table", "reading_of_baselines", "reading_of_choice"]


def reading_of_baselines(table: pd.DataFrame) -> str:
    """What predicting nothing gets on test by each metric, and what one number per image gets.

    Args:
        table: `baseline_table`'s rows.
    """
    rows = table[table.split == "test"].set_index("baseline")
    majority, prior, own = (rows.loc[name] for name in ("majority", "prior of train", "prior of the split itself"))
    text = f"On test, predicting nothing gets accuracy {majority.accuracy:.3f}, balanced accuracy "
    text += f"{majority.balanced_accuracy:.3f}, weighted F1 {majority.weighted_f1:.3f}, "
    text += f"AUC {prior.auc:.3f}, average precision {prior.average_precision:.3f}. The prior of train costs "
    text += f"{prior.log_loss:.3f} nats, {prior.log_loss - own.log_loss:.3f} of them because the shares have moved. "
    best = rows.loc[["brightness", "contrast"]].sort_values("auc").iloc[-1]
    text += f"{str(best.name).capitalize()} alone ranks with AUC {best.auc:.3f}: "
    return text + "what an encoder must beat is that, not one half."


def reading_of_choice(choice: Choice, weights: pd.DataFrame) -> str:
    """The metric and the loss of one data set, with the figures that speak for them.

    Args:
        choice: `choose`'s.
        weights: `loss_weights`'s rows.
    """
    lines = [
        f"- **Metric: {choice.metric}.** {_why_metric(choice)}",
        f"- **Beside it:** {listed(choice.beside)}.",
        f"- **Loss: {choice.loss}.** {_why_loss(choice, weights)}",
    ]
    if choice.task != "multiclass":
        lines.append(
            "- **Not weighted:** the offline probe (logistic regression) and its SGD curve. AUC sees only ranks, and "
            "unweighted probabilities stay calibrated to train's shares."
        )
    return "\n".join(lines)


def _why_metric(choice: Choice) -> str:
    f = choice.facts
    if choice.task == "multiclass":
        balance = f"the most frequent is {f['imbalance']:.1f} times the rarest"
        return f"Classes exclude each other, {balance} in train, and a constant gets {f['majority_accuracy']:.3f}."
    text = f"Accuracy gives {f['majority_accuracy']:.3f} on test to a constant, AUC {f['prior_auc']:.2f}. AUC needs no "
    text += "threshold and does not move when only the share of positives does. Average precision does: for a constant "
    text += f"it is that share, {f['prior_ap']:.3f} on test{' in the mean' if choice.task == 'multilabel' else ''}."
    if choice.task == "multilabel":
        text += (
            f" In train the most frequent label is {f['imbalance']:.0f} times the rarest. The mean over labels lets "
        )
        text += f"each count alike; the rarest has {f['fewest_positives']:.0f} positives on test, where a scorer "
        text += f"that knows nothing is anywhere in .5 ± {f['widest_auc']:.3f}: no single label decides anything."
    return text


def _why_loss(choice: Choice, weights: pd.DataFrame) -> str:
    if choice.task == "multiclass":
        return "One softmax, because classes exclude each other."
    if choice.task == "binary":
        row = rows_of(weights)[0]
        side = "majority" if row.ratio < 1 else "minority"
        text = f"One yes-or-no question, one sigmoid. Positives are the {side} of train: weighed with {row.weight:.2f}"
        return text + f" (negatives per positive: {row.ratio:.2f}), both sides pull alike."
    text = "One sigmoid per label: an image may have several or none. A positive weighs as many negatives as it faces "
    text += f"in train, {weights.ratio.min():.1f} to {weights.ratio.max():.0f} by label"
    capped = int(weights.capped.sum())
    if capped:
        text += f", but at most {weights.weight.max():g}; this cap holds for {capped} of {len(weights)} labels and "
        text += "keeps one image of the rarest label from outweighing its batch"
    return text + "."


def choices_table(choices: Mapping[str, Choice], weights: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Every value this notebook depends on and why: metric and loss of each data set, then `EdaOptions`.

    Args:
        choices: `choose`'s, by the name of the data set.
        weights: `loss_weights`'s rows, by the same names.
    """
    rows = []
    for name, choice in choices.items():
        data, why_loss = dataset_name(name), _why_loss(choice, weights[name])
        rows.append({"choice": f"metric, {data}", "value": choice.metric, "why": _why_metric(choice)})
        rows.append({"choice": f"loss, {data}", "value": choice.loss, "why": why_loss})
    notes = field_notes(EdaOptions)
    rows += [{"choice": key, "value": f"{value:g}", "why": notes.get(key, "")} for key, value in vars(EDA).items()]
    return pd.DataFrame(rows)
