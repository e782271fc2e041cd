"""Every published test figure stands as it was first published, whatever becomes of the code around it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxr_helpers.detect import coco_ap, voc_ap

HERE = Path(__file__).resolve().parent
RUNS = HERE.parent / "results" / "runs"
KEYS = ["dataset", "size", "encoder", "seed", "label_fraction"]
PUBLISHED = pd.read_csv(HERE / "published.csv").set_index(KEYS)
FOLDERS = sorted(file.parent.name for file in RUNS.glob("*/predictions_test.csv*"))


def encoder_of(record: dict[str, Any]) -> str:
    """What was learnt from what, without the name of any run: `supervised/supervised/10 from simclr/ssl/30 from random
    on pneumoniamnist`."""
    starts = []
    for one in (record.get("encoder") or record["init"]).split(" + "):
        parent = RUNS / one.split("/")[0] / "config.json"
        source = json.loads(parent.read_text()) if parent.is_file() else {}
        starts.append(f"{encoder_of(source)} on {source['dataset']}" if source else one)
    init = " + ".join(starts) + "".join(f" by {record[how]}" for how in ("stage", "join") if how in record)
    best = " best" * (record.get("keep") == "best")
    return f"{record['method']}/{record['policy']}/{record['epochs']}{best} from {init}" if "epochs" in record else init


def row_of(name: str) -> dict[str, Any]:
    """A run's key and its main test figure: as recorded, and by scikit-learn from the stored scores.

    Scores are stored with seven digits: where those tie two images, the two figures differ by half a pair.
    """
    record, metrics = (json.loads((RUNS / name / file).read_text()) for file in ("config.json", "metrics.json"))
    table = pd.read_csv(next((RUNS / name).glob("predictions_test.csv*")))
    labels, scores = (table.filter(regex=f"^{part}").to_numpy() for part in ("label", "score"))
    if labels.shape == scores.shape:  # binary, or a column per label
        metric, value = "auc", roc_auc_score(labels, scores, average="macro")
    else:
        metric, value = "accuracy", np.mean(labels[:, 0] == scores.argmax(axis=1))
    key = {"label_fraction": 1.0, **record, "encoder": encoder_of(record)}
    recorded = metrics.get("head", metrics["linear"])["test"][metric]
    return {**{column: key[column] for column in KEYS}, "metric": metric, "recorded": recorded, "scored": float(value)}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_runs_test_figure_is_the_published_one_and_its_records(name: str) -> None:
    row = row_of(name)
    key = tuple(row[column] for column in KEYS)
    assert key in PUBLISHED.index, f"add to tests/published.csv: {','.join(map(str, row.values()))}"
    found = PUBLISHED.loc[key]
    assert row["metric"] == found["metric"]
    assert [row["recorded"], row["scored"]] == pytest.approx([found["recorded"], found["scored"]], abs=1e-6)
    assert row["recorded"] == pytest.approx(row["scored"], abs=1e-5)


def test_no_published_row_is_lost_and_none_is_there_twice() -> None:
    keys = [tuple(row_of(name)[column] for column in KEYS) for name in FOLDERS]
    assert PUBLISHED.index.is_unique and len(keys) == len(set(keys))
    assert set(PUBLISHED.index) == set(keys)


@pytest.mark.parametrize("name", sorted(file.parent.name for file in RUNS.glob("*/detections_test.csv.gz")))
def test_a_detectors_test_figures_are_those_of_its_recorded_boxes(name: str) -> None:
    recorded = json.loads((RUNS / name / "metrics.json").read_text())["detection"]["test"]
    found, truth = (pd.read_csv(RUNS / name / f"{kind}_test.csv.gz") for kind in ("detections", "boxes"))
    classes = int(truth["finding"].max()) + 1
    ap = voc_ap(found, truth, np.ones((1, recorded["films"])), sorted(truth["finding"].unique()))
    figures = {"ap40": float(np.nanmean(ap)), **coco_ap(found, truth, recorded["films"], classes)}
    assert figures == pytest.approx({key: recorded[key] for key in figures}, abs=1e-6)
