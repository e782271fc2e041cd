"""Tables of frozen runs: label curves equal what one computes by hand, and are measured once."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import texture_dataset
from studies import make_run, probed

from cxr_helpers.config import RuntimeConfig
from cxr_helpers.data import keep_labels
from cxr_helpers.evaluate import run_features
from cxr_helpers.probe import Features, SeedSpread, auc_score, linear_probe, paired_bootstrap, resample
from cxr_helpers.study import Row, frozen


def test_a_draw_of_the_label_curve_is_the_probe_on_the_labels_kept_and_is_read_once(
    tiny_net: None, runtime: RuntimeConfig
) -> None:
    data = texture_dataset()
    run = probed(data, runtime)
    curve = frozen.label_curve(run, data, (0.5,), runtime, draws=2)
    kept = keep_labels(data, 0.5, 1).train
    features = {name: run_features(run, name, split, runtime) for name, split in data.splits.items()}
    train = Features(features["train"].x, kept.labels.numpy(), kept.groups)
    found = linear_probe(train, features["val"], features["test"], task="binary")
    row = curve.iloc[1]
    assert (row.val, row.test) == pytest.approx((found.metrics["val"]["auc"], found.metrics["test"]["auc"]))
    assert row.num_labels == int(kept.labelled.sum()) and row.num_patients == row.num_labels / 2
    assert run.metrics["label_reads"] == 2
    a, b = (Row(name, "textures", (run,)) for name in "ab")
    both = frozen.label_curves([a, b], {"textures": data}, (0.5,), runtime, draws=2)
    said = [auc_score(one.labels, one.stack[0]) for one in both["scores"]]
    assert said == pytest.approx(both["test"].tolist(), abs=1e-6) and len(said) == 6  # ranks say what the scores said
    summary = frozen.label_summary(both, "b", 100).set_index(["encoder", "fraction"]).loc[("a", 0.5)]
    assert summary.patients_resampled and summary.seeds == 1 and summary.low == summary.high == 0  # with itself
    for file in [*run.path.glob("*.safetensors"), run.path / "label_predictions.csv.gz"]:
        file.unlink()
    again = frozen.label_curve(run, data, (0.5,), runtime, draws=2)
    pd.testing.assert_frame_equal(again, curve, rtol=1e-6, check_dtype=False)
    assert run.metrics["label_reads"] == 2 and len(frozen.label_curve(run, data, (0.5,), runtime, draws=1)) == 1
    whole = frozen.label_curves([Row("a", "textures", (run,))], {"textures": data}, (0.5, 0.25), runtime, draws=2)
    assert whole.fraction.tolist() == [1.0] and whole.num_labels.tolist() == [40]  # .25 is not there, nor are weights
    with pytest.raises(FileNotFoundError, match="not its weights"):
        frozen.label_curve(run, data, (0.25,), runtime)


def test_encoders_are_compared_with_supervised_training_draw_by_draw(tmp_path: Path) -> None:
    data = texture_dataset()
    common = {"method": "supervised", "policy": "supervised", "fingerprint": data.fingerprint}
    parts = [make_run(tmp_path, **common, label_fraction=0.5, seed=d, quality=1.0 + d) for d in (0, 1)]
    known = [run.metrics["head"]["test"]["auc"] for run in parts]
    simclr = [make_run(tmp_path, method="simclr", seed=s, fingerprint=data.fingerprint) for s in (0, 1)]
    for run, gains in zip(simclr, ((0.02, 0.06), (0.04, 0.08)), strict=True):  # means .03 and .07
        rows = [(0.5, d, 20, known[d] + gain) for d, gain in enumerate(gains)]
        pd.DataFrame(rows, columns=["fraction", "draw", "num_labels", "test"]).to_csv(run.path / "label_curve.csv")
    rows = [Row("SimCLR", "d", tuple(simclr)), Row("Supervised", "d", tuple(parts))]
    curves = frozen.label_curves(rows, {"d": data}, (0.5,), draws=2)
    table = frozen.label_summary(curves).set_index(["encoder", "fraction"])
    row, half = table.loc[("SimCLR", 0.5)], 12.706205 * 2  # t quantile of one degree of freedom, half the distance
    assert (row.difference, row.low, row.high) == pytest.approx((5, 5 - half, 5 + half), rel=1e-5) and row.pairs == 2
    assert table.loc[("Supervised", 0.5), "mean"] == pytest.approx(np.mean(known)) and row.num_labels == 20
    assert np.isnan(table.loc[("SimCLR", 1.0), "difference"]) and not table["patients_resampled"].loc["SimCLR"].any()


def test_an_interval_over_draws_of_labels_holds_patients_and_what_draws_add(tmp_path: Path) -> None:
    data, sides = texture_dataset(), {}
    for name, qualities in {"tuned": (2.0, 3.0, 2.5, 3.5), "Supervised": (1.5, 1.2, 1.4, 1.0)}.items():
        how = {"method": "supervised", "policy": "none" if name == "tuned" else "supervised", "label_fraction": 0.5}
        runs = [
            make_run(tmp_path, **how, seed=d, quality=q, fingerprint=data.fingerprint) for d, q in enumerate(qualities)
        ]
        sides[name] = Row(name, "d", tuple(runs))
    tables = {name: [run.predictions("test") for run in row.runs] for name, row in sides.items()}
    labels, groups = (tables["tuned"][0][column].to_numpy() for column in ("label", "group"))
    stacks = [np.stack([table["score/ill"] for table in one]) for one in tables.values()]
    left, right = (resample(labels, stack, groups, num_resamples=500) for stack in stacks)
    gains, drawn = left.observed - right.observed, left.draws - right.draws
    added = (
        gains.var(ddof=1) - (drawn - gains).var(axis=1, ddof=1).mean()
    )  # half of it on each side: pairs, not two sets
    spread = SeedSpread(added / 2, 3)
    expected = paired_bootstrap(labels, *stacks, groups, spread=spread, num_resamples=500)
    table = frozen.label_summary(frozen.label_curves(sides.values(), {"d": data}, ()), num_resamples=500)
    row = table.set_index("encoder").loc["tuned"]
    assert added > 0 and row.patients_resampled and row.pairs == 4
    found = (row.difference, row.low, row.high)
    assert found == pytest.approx([100 * value for value in (expected.difference, expected.low, expected.high)])
