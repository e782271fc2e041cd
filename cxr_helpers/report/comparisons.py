"""One configuration against another on the same images: which pairs answer a question, and what each difference is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd

from ..probe import holm, paired_bootstrap
from ..runs import Run
from .claims import content_of, one_data_set
from .lineage import commit_text, family_of
from .tables import Scores, distinct_labels, identity_of, measured, rows_of, seeds_together, stack_scores

__all__ = ["floor_pairs", "imagenet_pairs", "method_pairs", "paired_table", "transfer_pairs"]


FLOORS = ("imagenet", "random")  # families of encoders that have seen no X-ray


def method_pairs(summary: pd.DataFrame, *labels: str) -> list[tuple[str, str]]:
    """Pairs for `paired_table`: the methods with each other first, frozen and fine-tuned, each with every frozen or
    supervised encoder, and each fine-tuned with supervised training from scratch. A frozen encoder is not set against a
    fine-tuned one, and encoders of other data have pairs of their own (`transfer_pairs`)."""
    here = summary[summary["family"] != "file"]
    others = [label for label in here.label if label not in labels and "fine-tuned" not in label]
    within, ends = list(combinations(labels, 2)), [f"{label}, fine-tuned" for label in labels]
    tuned = [*combinations(ends, 2), *((end, "Supervised") for end in ends)]
    return within + [(a, b) for b in others for a in labels] + tuned


def imagenet_pairs(summary: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs for `paired_table` that say what ImageNet's weights do: each row that starts from them against its twin.

    Continued pretraining is set against the same method from random weights, against the frozen ImageNet encoder it
    started from, against supervised training from scratch and against the other method from the same weights;
    end-to-end training from ImageNet against the same from each encoder that has seen X-rays only and against none.
    """
    labels = list(summary["label"])
    pairs = []
    for label in (name for name in labels if " from ImageNet" in name):
        tuned = label.endswith(", fine-tuned")
        start = f"ImageNet{label.partition(' from ImageNet')[2].removesuffix(', fine-tuned')}"
        pairs.append((label, label.partition(" from ")[0] + (", fine-tuned" if tuned else "")))
        pairs.append((label, f"{start}, {'fine-tuned' if tuned else 'frozen'}"))
        pairs.append((label, "Supervised"))
    continued = [label for label in labels if " from ImageNet" in label]
    same_start = [(a, b) for a, b in combinations(continued, 2) if a.partition(" from ")[2] == b.partition(" from ")[2]]
    pairs += same_start
    tuned_here = [label for label in labels if label.endswith(", fine-tuned") and "ImageNet" not in label]
    for label in (name for name in labels if name.startswith("ImageNet") and name.endswith(", fine-tuned")):
        pairs += [(label, other) for other in (*tuned_here, "Supervised")]
    return [(a, b) for a, b in pairs if b in labels]


def transfer_pairs(summary: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs for `paired_table`: each encoder of other data against its twin trained on these, then against those that
    have seen no X-ray."""
    carried = [row.label for row in rows_of(summary) if row.family == "file"]
    floors = [row.label for row in rows_of(summary) if row.family in FLOORS]
    twins = [(label, label.partition(" (")[0]) for label in carried]
    return [(a, b) for a, b in twins if b in set(summary["label"])] + [(a, b) for a in carried for b in floors]


def floor_pairs(summary: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs for `paired_table`: every other row against the frozen ImageNet encoder and against the untrained one.

    Rows on part of the labels have none: the two are probed with all of them.
    """
    floors = [row.label for init in FLOORS for row in rows_of(summary) if row.family == init]
    others = [row.label for row in rows_of(summary) if row.family not in FLOORS and row.label_fraction == 1]
    return [*product(others, floors), *combinations(floors, 2)]


def paired_table(
    runs: Iterable[Run],
    pairs: Sequence[tuple[str, str]],
    *,
    split: str = "test",
    num_resamples: int = 2000,
    scores: Callable[[Sequence[Run]], Scores] | None = None,
) -> pd.DataFrame:
    """Differences of two configurations on the same images, resampling patients and training seeds.

    Args:
        pairs: (label, label) as `summary_table` has them; a pair is left out where one of the two is not there.
        scores: of a configuration's runs on the split; None takes their predictions.
    Returns:
        `a, b, seeds_a, seeds_b, difference, low, high, p_value, p_holm, verdict, ...`; the verdict on a is `better` or
        `worse` only where the 95 % interval excludes 0, else `not distinguishable`; `p_holm` is corrected for the
        number of pairs in this table.
    Raises:
        ValueError: runs of several data sets, sizes or contents, or splits that hold other images.
    """
    by_label: dict[str, list[Run]] = {}
    stacked = scores or partial(stack_scores, split=split)
    groups = seeds_together(runs)
    table = one_data_set(distinct_labels(pd.DataFrame([identity_of(members[0]) for members in groups.values()])))
    for label, members in zip(table.label, groups.values(), strict=True):
        by_label[label] = members
    rows = []
    for a, b in pairs:
        if a in by_label and b in by_label:
            rows.append({"a": a, "b": b, **_compared(by_label[a], by_label[b], split, num_resamples, stacked)})
    compared = pd.DataFrame(rows)
    return compared.assign(p_holm=holm(compared["p_value"])) if rows else compared


def _compared(
    a: Sequence[Run], b: Sequence[Run], split: str, num_resamples: int, stacked: Callable[[Sequence[Run]], Scores]
) -> dict[str, Any]:
    left, right = stacked(a), stacked(b)
    if not (np.array_equal(left.labels, right.labels) and np.array_equal(left.groups, right.groups)):
        raise ValueError(f"a pair must be scored on the same {split} images, got {a[0].id} and {b[0].id}")
    _, metric, _ = measured(a[0])
    result = paired_bootstrap(
        left.labels, left.stack, right.stack, left.groups, resample_seeds=True, metric=metric,
        num_resamples=num_resamples,
    )  # fmt: skip
    verdict = "better" if result.low > 0 else "worse" if result.high < 0 else "not distinguishable"
    return {
        "dataset": a[0].record["dataset"],
        "data": identity_of(a[0])["data"],
        "size": a[0].record["size"],
        "content": content_of(a[0].record["fingerprint"]),
        "commits": ", ".join(dict.fromkeys(commit_text(run.environment) for run in (*a, *b))),
        "split": split,
        "metric": metric,
        "seeds_a": tuple(run.record["seed"] for run in a),
        "seeds_b": tuple(run.record["seed"] for run in b),
        "deterministic": any(family_of(side[0].record) == "imagenet" for side in (a, b)),
        "mean_a": result.estimate_a,
        "mean_b": result.estimate_b,
        "difference": result.difference,
        "low": result.low,
        "high": result.high,
        "p_value": result.p_value,
        "images": result.num_images,
        "patients": result.num_groups,
        "verdict": verdict,
    }
